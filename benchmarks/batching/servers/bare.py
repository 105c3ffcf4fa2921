"""``python -m benchmarks.batching.servers.bare SIZE SECONDS < TEXTS``: no server at all. Texts that are tokens already,
in full batches of about one length, one after the other; prints rows a second, and milliseconds of CPU a row."""

from __future__ import annotations

import sys
import time

from benchmarks.batching.servers.minilm import MiniLm


def main() -> None:
    size, seconds = int(sys.argv[1]), float(sys.argv[2])
    model = MiniLm()
    rows = sorted(model.tokens(sys.stdin.read().splitlines()), key=len)
    batches = [rows[at : at + size] for at in range(0, len(rows) - size + 1, size)]
    model.run(batches[0])
    done = 0
    began, cpu = time.perf_counter(), time.process_time()
    while time.perf_counter() - began < seconds:
        for batch in batches:  # all of them: short ones take less
            model.run(batch)
            done += len(batch)
    print(done / (time.perf_counter() - began), 1000 * (time.process_time() - cpu) / done)


if __name__ == "__main__":
    main()
