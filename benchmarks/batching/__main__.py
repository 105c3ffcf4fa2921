"""``python -m benchmarks.batching``: what the dynamic batcher reaches.

simulate  throughput and waits over batch size and longest wait, simulated: a table and a picture. Beside it the usual
          batcher, which keeps an idle engine waiting. The picture (--png) is drawn in an environment that has
          matplotlib, made when it is first asked for
cost      µs of CPU that the batcher takes for a request, and how long a single one waits on an idle machine
model     the MiniLM model (int8, ONNX Runtime): concurrent callers of the batcher against a bare loop with full batches
peers     the same file behind Headrace, MLServer, LitServe, Mosec and BentoML: throughput with 64 clients, beside a
          bare loop with full batches, and waits at half of the least of these throughputs. Each peer is installed in an
          environment of its own when it is first asked for (~/.cache/headrace-bench/peers)
turns     Headrace and that loop by turns, a round of each after the other: what share of its throughput the server has
"""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.batching import measured, simulating


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=["simulate", "cost", "model", "peers", "turns"])
    parser.add_argument("--requests", type=int, default=20_000)
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--png", type=Path, default=Path("batching.png"))
    parser.add_argument("--only", default="", help="of the peers, these: a comma between them")
    parser.add_argument(
        "--mixed", action="store_true", help="peers: texts of 8 to 48 tokens, not 32"
    )
    parser.add_argument("--seconds", type=float, default=10.0, help="peers: of a measurement")
    parser.add_argument(
        "--calm-requests", type=int, default=1000, help="peers: of a measurement at half load"
    )
    parser.add_argument("--cores", default="0", help="peers: of the server; the load has core 1")
    parser.add_argument("--size", type=int, help="peers: rows of a batch, instead of what was best")
    parser.add_argument("--wait-ms", type=float, default=5.0, help="peers: with --size")
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
            from benchmarks.batching import peers, turns

            batches = None
            if chosen.size is not None:
                batches = peers.Batches(chosen.size, chosen.wait_ms)
            conditions = peers.Conditions(
                clients=chosen.clients,
                mixed=chosen.mixed,
                seconds=chosen.seconds,
                cores=chosen.cores,
                calm_requests=chosen.calm_requests,
                batches=batches,
            )
            if chosen.what == "turns":
                turns.compare(conditions, chosen.rounds)
            else:
                peers.compare(conditions, chosen.rounds, chosen.only)


main()
