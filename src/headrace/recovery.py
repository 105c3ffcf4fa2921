"""What a crash left: which generations go on after a restart, and how the others end."""

from __future__ import annotations

import time

from headrace.domain.errors import MEANINGS, Code
from headrace.domain.event import Error
from headrace.streams.log import Log
from headrace.streams.store import Recovered
from headrace.tracing import Tracer


def lives_on(recovered: Recovered) -> bool:
    """Whether it may go on: it outlives its client, whose time to come back is not over."""
    leaving = recovered.header.caller.leaving
    if not leaving.durable:
        return False
    if leaving.grace_s is None or recovered.left_at is None:
        return True
    return time.time() - recovered.left_at <= leaving.grace_s


def left_at(recovered: Recovered) -> float:
    """When its client left, in ``time.monotonic`` seconds of this process."""
    away_s = time.time() - recovered.left_at if recovered.left_at is not None else 0.0
    return time.monotonic() - away_s


def interrupt(log: Log, message: str, tracer: Tracer | None) -> None:
    """End a log that nobody goes on with."""
    code = Code.INTERRUPTED
    seq = log.appended_seq + 1
    end = Error(seq, time.time(), code.value, message, MEANINGS[code].retryable)
    log.append([end])
    if tracer is not None:
        tracer.interrupted(log.header, end)
