"""A process to be killed: appends to many logs and prints what its readers were shown.

``python -m tests.streams.writer DATABASE SEED [alike]``. One line for each event, written before anything else can
happen in the process: ``id seq text``. ``alike``: all records of the journal have one length and its files are
small, so that new frames come to lie exactly on those of before.
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import Sequence

import uvloop

from headrace.domain.delta import Delta
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Event, Token
from headrace.streams.hub import Hub
from headrace.streams.log import Log
from headrace.streams.sqlite import SqliteStore
from tests.streams.parts import finish, header

LOGS = 20


class Printer:
    """A reader whose every event is told to the parent at once."""

    def __init__(self, log: Log) -> None:
        self._log = log

    def events(self, events: Sequence[Event]) -> bool:
        lines = [f"{self._log.id} {event.seq} {text_of(event)}\n" for event in events]
        os.write(1, "".join(lines).encode())
        return True

    def lost(self, error: HeadraceError) -> None:
        raise error


def text_of(event: Event) -> str:
    return event.text if isinstance(event, Token) else "end"


async def main(path: str, seed: int, *, alike: bool) -> None:
    chance = random.Random(seed)
    store = SqliteStore(path, journal_bytes=4_000 if alike else 20_000)
    hub = Hub(store)
    logs = [hub.adopt(one.header, one.events) for one in await store.open()]
    while True:
        while len(logs) < LOGS:
            logs.append(hub.create(header(f"gen_{seed}_{chance.getrandbits(40):x}")))
            logs[-1].attach(Printer(logs[-1]))
        for log in chance.sample(logs, chance.randint(1, LOGS)):
            step(log, chance, alike=alike)
        logs = [log for log in logs if not log.ended]
        await asyncio.sleep(0)


def step(log: Log, chance: random.Random, *, alike: bool) -> None:
    if log.ended or (log.appended_seq > log.visible_seq):
        return
    first = log.appended_seq + 1
    count, longer = (1, 1) if alike else (chance.choice((1, 1, 1, 30)), 200)
    events: list[Event] = [
        Token(seq, 1.0, f"{chance.getrandbits(32):08x}" * chance.choice((1, 1, 1, longer)))
        for seq in range(first, first + count)
    ]
    log.append(events, [Delta(str(event.seq)) for event in events])
    if chance.random() < 0.05:
        log.append([finish(log.appended_seq + 1)])


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1], int(sys.argv[2]), alike="alike" in sys.argv[3:]))
