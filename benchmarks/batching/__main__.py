"""``python -m benchmarks.batching``: what the dynamic batcher reaches.

simulate  throughput and waits over batch size and longest wait, simulated: a table and a picture. Beside it the usual
          batcher, which keeps an idle engine waiting. The picture needs matplotlib (pip install matplotlib)
cost      µs of CPU that the batcher takes for a request, and how long a single one waits on an idle machine
model     the MiniLM model (int8, ONNX Runtime): concurrent callers of the batcher against a bare loop with full batches
peers     the same file behind Headrace, MLServer, LitServe, Mosec and BentoML: throughput with 64 clients, and
          waits at half of the least of these throughputs
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.batching import measured, simulating


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["simulate", "cost", "model", "peers"])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--png", type=Path, default=Path("batching.png"))
    parser.add_argument("--only", default="", help="of the peers, these: a comma between them")
    parser.add_argument("--json", action="store_true")
    chosen = parser.parse_args()
    match chosen.what:
        case "simulate":
            simulating.simulate(chosen.requests, chosen.png)
        case "cost":
            measured.cost(chosen.requests)
        case "model":
            measured.model(chosen.clients, chosen.rounds)
        case _:
            from benchmarks.batching import peers

            peers.compare(chosen.clients, chosen.rounds, chosen.only)


main()
