"""A campaign of random kills: seeds printed, every fault named.

One round: a fresh server with a scripted engine, several witnesses whose generations are queued, prefill
and decode; the server is killed again and again at random moments (any time, or exactly between append
and send) and started again, until all witnesses have their whole answer. The script has characters of
several bytes and a card number that spans tokens, so kills fall into the middle of both.
usage: python -m tests.kill.campaign --kills 200 [--seed 1]
"""

from __future__ import annotations

import argparse
import json
import random
import sys
import tempfile
import time
from pathlib import Path

from tests.kill.arena import Server, Witness, faults

WORDS = ["The ", "mill", " wheel ", "turns: ", "日本", "語 ", "🦜", " é", "ä; ", "card "]
CARD = ["4111", " 1111", " 1111", " 11", "11", ". "]
SCRIPT = {
    "slots": 2,
    "scripts": [
        {
            "tokens": (WORDS + CARD) * 6,
            "delay_ms": 6,
            "prefill": [4, 8, 12],
            "prefill_ms": 15,
            "prompt_tokens": 12,
        }
    ],
}
EXPECTED = ("".join(WORDS) + "[redacted]. ") * 6
CONFIG = """
[[models]]
name = "scripted"
engine = "scripted"
slots = 2
script = "{script}"
[[hooks]]
class = "headrace.streams.redact:Redact"
patterns = ["card"]
"""
WITNESSES = 4
ROUND_S = 90.0


def round_of(seed: int, kills: int, folder: Path) -> list[str]:
    """One server's life with ``kills`` deaths; returns the faults."""
    chance = random.Random(seed)
    script = folder / "script.json"
    script.write_text(json.dumps(SCRIPT), encoding="utf-8")
    server = Server(folder, CONFIG.format(script=script))
    server.start()
    witnesses = [_witness(server, number, chance) for number in range(WITNESSES)]
    try:
        for _ in range(kills):
            _one_kill(server, chance)
        for witness in witnesses:
            witness.wait(ROUND_S)
        return [fault for witness in witnesses for fault in faults(witness, server, EXPECTED)]
    finally:
        for witness in witnesses:
            witness.stop()
        server.kill()


def _one_kill(server: Server, chance: random.Random) -> None:
    if chance.random() < 0.4:  # exactly between an append and its send
        server.kill()
        server.start(falls_after=chance.randint(1, 60))
        _wait_dead(server)
    else:
        time.sleep(chance.uniform(0.0, 0.35))
        server.kill()
    server.start()


def _wait_dead(server: Server) -> None:
    """It falls by itself at its append; where the work is done before, it is killed."""
    deadline = time.monotonic() + 3.0
    while server.process is not None and server.process.poll() is None:
        if time.monotonic() > deadline:
            server.kill()
        time.sleep(0.005)


def _witness(server: Server, number: int, chance: random.Random) -> Witness:
    form = "native" if number % 2 else "openai"
    plug = chance.randint(1, 10**6) if number >= 2 else 0
    body: dict[str, object] = {"stream": True, "max_tokens": 1000}
    if form == "native":
        body["prompt"] = "mill"
    else:
        body |= {"model": "scripted", "messages": [{"role": "user", "content": "mill"}]}
    return Witness(server, f"witness{number}", form, body, plug)


def campaign(kills: int, seed: int, per_round: int = 4) -> list[str]:
    """All rounds; prints each round's seed and what it found."""
    found: list[str] = []
    for number in range((kills + per_round - 1) // per_round):
        round_seed = seed * 100_003 + number
        deaths = min(per_round, kills - number * per_round)
        with tempfile.TemporaryDirectory(prefix="headrace-kill-") as folder:
            wrong = round_of(round_seed, deaths, Path(folder))
        print(f"seed {round_seed}: {deaths} kills, {len(wrong)} faults", flush=True)
        found += [f"seed {round_seed}: {fault}" for fault in wrong]
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randint(1, 10**6))
    arguments = parser.parse_args()
    found = campaign(arguments.kills, arguments.seed)
    print("\n".join(found) or f"{arguments.kills} kills, nothing lost, nothing twice")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
