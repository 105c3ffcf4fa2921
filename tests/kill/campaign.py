"""A campaign of random kills: seeds printed, every fault named.

A round is one server's life, with witnesses (independent client processes) that read its answers. Each
kill is drawn from the round's seed: who (``KINDS``) and in which state of an answer (``STATES``). The server
is started again, the engine by its supervisor, a killed client's successor reads on from the last event that
was written down; sometimes the server is killed between the two. At the end every witness must have had
every event of its log exactly once, and the text must be that of an answer which nobody disturbed.

usage: python -m tests.kill.campaign --kills 200 [--seed 1] | --round SEED
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from tests.kill.arena import Answer, Server, Witness, faults
from tests.kill.moments import CARRIED_OUT, ORDER, Order, engine_of
from tests.kill.scenes import Embedded, Scene, Scripted

KINDS = ("server", "engine", "client")
STATES = ("queued", "prefill", "decode", "utf8", "redaction", "append")
"""Of the answer that the kill aims at: ``utf8`` in the middle of a character, ``redaction`` while a card
number is held back, ``append`` when events have reached the operating system and no reader yet."""
CELLS = [(kind, state) for kind in KINDS for state in STATES]

Tally = Counter[tuple[str, str]]

PER_ROUND = 4
EMBEDDED = 1 / 3
"""Share of the rounds with the embedded model in its real llama.cpp process; the others are scripted."""
ROUND_S = 600.0
MOMENT_S = 60.0
TRIES = 5
"""Answers begun to bring one kill about: some are over too early, or find no queue."""


class Round:
    """One server's life. ``tally``: the kills that happened."""

    def __init__(self, scene: Scene, folder: Path, chance: random.Random) -> None:
        self.scene = scene
        self.chance = chance
        self.server = Server(folder, scene.config(folder))
        self.witnesses: list[Witness] = []
        self.tally: Tally = Counter()
        self.between = 0
        """Servers killed between a client's death and its successor."""

    def play(self, plan: Sequence[tuple[str, str]]) -> list[str]:
        """Carry the plan out; returns the faults."""
        self.server.start()
        try:
            expected = self.scene.expected(self.server)
            self.begin(plug=self.chance.randint(1, 10**6))
            for kind, state in plan:
                self.bring_about(kind, state)
            for witness in self.witnesses:
                witness.wait(ROUND_S)
            return [fault for witness in self.witnesses for fault in self.judge(witness, expected)]
        finally:
            for witness in self.witnesses:
                witness.kill()
            self.server.kill()

    def judge(self, witness: Witness, expected: Answer) -> list[str]:
        if witness.state == "over":
            return faults(witness, self.server, expected)
        return [f"{witness.path.name}: not over in {ROUND_S:g} s; last {witness.rows()[-1:]}"]

    def bring_about(self, kind: str, state: str) -> None:
        for _ in range(TRIES):
            if state in ("queued", "prefill"):
                happened = self.kill_when_seen(kind, state)
            elif (kind, state) == ("client", "utf8"):
                happened = self.kill_torn_client()
            else:
                happened = self.kill_by_order(kind, state)
            if happened:
                self.tally[kind, state] += 1
                return

    def begin(self, state: str = "", plug: int = 0) -> Witness:
        """A new answer and who reads it. The states that only events show need a form that shows them."""
        shown = state in ("queued", "prefill")
        form = "native" if shown or self.chance.random() < 0.5 else "openai"
        body = self.scene.body(form, state, self.chance)
        witness = Witness(self.server, f"witness{len(self.witnesses)}", form, body, plug)
        self.witnesses.append(witness)
        return witness

    def kill_when_seen(self, kind: str, state: str) -> bool:
        """Kill from outside while the witness's last event shows the state."""
        witness = self.begin(state)
        deadline = time.monotonic() + MOMENT_S
        while (seen := witness.state) != state:
            if seen in ("decode", "over") or time.monotonic() > deadline:
                return False
            if state == "queued" and seen == "prefill":
                return False
            time.sleep(0.001)
        time.sleep(self.chance.uniform(0.0, self.scene.patience_s))
        engine = engine_of(self.server.pid) if kind == "engine" else 0
        if witness.state != state or (kind == "engine" and not engine):
            return False  # too late
        if kind == "client":
            witness.kill()
        elif kind == "server":
            self.server.kill()
        else:
            self.scene.kill_engine(engine)
        self.go_on(kind, witness)
        return True

    def kill_torn_client(self) -> bool:
        witness = self.begin()
        if not self.named(witness):
            return False
        torn = witness.tear(MOMENT_S)
        witness.kill()  # in any case: it may stop a moment later, for ever
        self.go_on("client", witness)
        return torn

    def kill_by_order(self, kind: str, state: str) -> bool:
        """Have the server do it, at the very moment."""
        witness = self.begin()
        generation = self.named(witness)
        if not generation:
            return False
        after = self.chance.randint(1, self.scene.moments[state])
        pause_ms = self.chance.choice((0.0, 0.0, 2.0, 4.0))
        folder = self.server.folder
        done = folder / CARRIED_OUT
        done.unlink(missing_ok=True)
        Order(kind, state, generation, after, witness.pid, pause_ms).write(folder / ORDER)
        deadline = time.monotonic() + MOMENT_S
        while not done.exists() and witness.alive and time.monotonic() < deadline:
            time.sleep(0.001)
        (folder / ORDER).unlink(missing_ok=True)
        if not done.exists():
            return False
        self.wait_dead(kind, witness)
        self.go_on(kind, witness)
        return True

    def named(self, witness: Witness) -> str | None:
        """The witness's generation, as soon as it has been told."""
        deadline = time.monotonic() + MOMENT_S
        while (generation := witness.generation) is None and time.monotonic() < deadline:
            time.sleep(0.001)
        return generation

    def wait_dead(self, kind: str, witness: Witness) -> None:
        while (kind == "server" and self.server.alive) or (kind == "client" and witness.alive):
            time.sleep(0.001)

    def go_on(self, kind: str, witness: Witness) -> None:
        if kind == "server":
            self.server.kill()
            self.server.start()
        elif kind == "client":
            if self.chance.random() < 0.35:
                self.server.kill()
                self.server.start()
                self.between += 1
            witness.succeed()


def plan_of(chance: random.Random, scene: Scene, kills: int) -> list[tuple[str, str]]:
    weights = [scene.weights.get(kind, 0.0) for kind, _ in CELLS]
    return chance.choices(CELLS, weights, k=kills)


def play(seed: int, kills: int) -> tuple[list[str], Round]:
    """One round; prints its seed and what it found."""
    chance = random.Random(seed)
    scene = Embedded() if chance.random() < EMBEDDED else Scripted()
    with tempfile.TemporaryDirectory(prefix="headrace-kill-") as folder:
        one = Round(scene, Path(folder), chance)
        found = one.play(plan_of(chance, scene, kills))
    did = ", ".join(f"{kind} in {state}" for kind, state in one.tally.elements())
    print(f"seed {seed} ({scene.name}): {did or 'no kill'}; {len(found)} faults")
    print("".join(f"  {fault}\n" for fault in found), end="", flush=True)
    return [f"seed {seed}: {fault}" for fault in found], one


def campaign(kills: int, seed: int, per_round: int = PER_ROUND) -> tuple[list[str], Tally]:
    """Rounds until so many kills have happened."""
    found: list[str] = []
    tally: Tally = Counter()
    between = number = 0
    while tally.total() < kills and number < kills:
        wrong, one = play(seed * 100_003 + number, min(per_round, kills - tally.total()))
        number += 1
        found += wrong
        tally += one.tally
        between += one.between
    print(f"{tally.total()} kills; servers killed before a dead client's successor came: {between}")
    return found, tally


def table(tally: Tally) -> str:
    """How often each kind was killed in each state."""
    rows = [["killed", *STATES]]
    rows += [[kind, *(str(tally[kind, state]) for state in STATES)] for kind in KINDS]
    return "\n".join(" ".join(f"{cell:>10}" for cell in row) for row in rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=random.SystemRandom().randint(1, 10**6))
    parser.add_argument("--round", type=int, help="play the round of this seed only, once more")
    arguments = parser.parse_args()
    if arguments.round is not None:
        return 1 if play(arguments.round, PER_ROUND)[0] else 0
    print(f"seed of the campaign: {arguments.seed}", flush=True)
    found, tally = campaign(arguments.kills, arguments.seed)
    print(table(tally))
    missing = [
        f"no {kind} was killed in {state}" for kind, state in CELLS if not tally[kind, state]
    ]
    print("\n".join(found + missing) or "nothing lost, nothing twice")
    return 1 if found or missing else 0


if __name__ == "__main__":
    sys.exit(main())
