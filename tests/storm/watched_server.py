"""The server as users start it, but for one thing: it can be looked into by signals.

SIGUSR2 writes how many asyncio tasks it has. SIGUSR1 collects garbage and writes what was found, by type:
objects that only a reference cycle kept. In between the collector is off if ``--no-gc`` was given.
usage: python -m tests.storm.watched_server CONFIG_FILE ANSWER_FILE [--no-gc]
"""

from __future__ import annotations

import asyncio
import gc
import json
import signal
import sys
from collections import Counter
from pathlib import Path

from headrace.app import App, serve
from headrace.settings import load


def garbage() -> dict[str, int]:
    """Collect it all; how many objects of each type there were."""
    gc.set_debug(gc.DEBUG_SAVEALL)
    gc.collect()
    found = Counter(f"{type(each).__module__}.{type(each).__qualname__}" for each in gc.garbage)
    gc.set_debug(0)
    gc.garbage.clear()
    gc.collect()
    return dict(found.most_common())


def main() -> int:
    config, file = sys.argv[1], Path(sys.argv[2])

    def tell(answer: object) -> None:
        new = file.with_suffix(".new")
        new.write_text(json.dumps(answer))
        new.rename(file)

    def announce(app: App) -> None:
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGUSR2, lambda: tell(len(asyncio.all_tasks())))
        loop.add_signal_handler(signal.SIGUSR1, lambda: tell(garbage()))
        if "--no-gc" in sys.argv:
            gc.disable()

    return serve(load(config).settings, announce)


if __name__ == "__main__":
    sys.exit(main())
