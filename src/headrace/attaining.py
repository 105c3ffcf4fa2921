"""Which generations keep the targets that they have: their tenant's, or those that their request brings.

A target is of an answer that somebody can see come: one that is streamed, or may outlive its client. Of others nobody
knows when the first token was there. What goes on after a restart of the server is not judged: its times are lost.
"""

from __future__ import annotations

import time
from math import inf

from headrace.domain.errors import MEANINGS, Code, HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.request import Caller, Request, Urgency
from headrace.flow import Flow
from headrace.streams.generation import Generation
from headrace.streams.generation_port import Meter

NONE = Urgency()
FAILURES: frozenset[str] = frozenset(
    code
    for code, meaning in MEANINGS.items()
    if meaning.http >= 500 or code is Code.QUEUE_TIMEOUT  # a 408 that is not the client's
)
"""Errors that break a promise. The others are clients' doing: mistakes, limits, leaving."""
FAILED_ENDS = FAILURES | {Code.RATE_LIMITED}
"""The same of what was let in: past the client's own limits, so that only an upstream's are left."""


class Watched:
    """Stands in front of a generation's meter and notes when its first token comes; others do not pass here."""

    __slots__ = ("_first_at", "_first_s", "_meter", "_targets", "tokens")

    def __init__(self, meter: Meter, targets: Urgency) -> None:
        self.tokens = meter.tokens
        self._meter = meter
        self._targets = targets
        self._first_s: float | None = None
        self._first_at = 0.0

    def first_token(self, after_s: float) -> None:
        self._first_at = time.time()
        self._first_s = after_s
        self._meter.first_token(after_s)

    def ended(self, generation: Generation, end: Finish | Error) -> None:
        """Count which targets it kept."""
        first_s = self._first_s
        tpot_s: float | None = None
        if isinstance(end, Error):
            if end.code not in FAILED_ENDS:
                return
            first_s, tpot_s = inf if first_s is None else first_s, inf
        elif first_s is not None:
            tpot_s = self._tpot_s(generation, end)
        caller, request = generation.caller, generation.request
        _count(generation.flow, request, caller, self._targets, first_s, tpot_s)

    def _tpot_s(self, generation: Generation, end: Finish) -> float | None:
        """(last token - first token) / (output tokens - 1) of a choice, as vLLM has it; None: it has one token."""
        more = end.usage.completion_tokens / generation.request.choices - 1
        return (generation.last_token_at - self._first_at) / more if more > 0 else None


def watch(generation: Generation, promised: Urgency | None) -> None:
    """Judge a generation that begins by its targets, if it has any. ``promised``: those of its tenant."""
    targets = _targets(generation.request, generation.caller, promised)
    if targets is not None:
        generation.watched = generation.meter = Watched(generation.meter, targets)


def refused(
    flow: Flow, request: Request, caller: Caller, promised: Urgency | None, error: HeadraceError
) -> None:
    """A request did not become a generation: count the targets that it missed by that, if it is our doing."""
    targets = _targets(request, caller, promised)
    if targets is not None and error.code in FAILURES:
        _count(flow, request, caller, targets, inf, inf)


def _targets(request: Request, caller: Caller, promised: Urgency | None) -> Urgency | None:
    """What it is judged by: each target its own or, without one, its tenant's."""
    if not (request.stream or caller.leaving.durable):
        return None
    asked, promised = caller.urgency or NONE, promised or NONE
    if asked.spare:
        return None  # nobody was promised anything for it
    ttft_s = promised.ttft_s if asked.ttft_s is None else asked.ttft_s
    tpot_s = promised.tpot_s if asked.tpot_s is None else asked.tpot_s
    return None if ttft_s is tpot_s is None else Urgency(ttft_s, tpot_s)


def _count(
    flow: Flow,
    request: Request,
    caller: Caller,
    targets: Urgency,
    first_s: float | None,
    tpot_s: float | None,
) -> None:
    """``None``: that cannot be said."""
    meter = flow.meters[request.kind]
    for target, wanted_s, took_s in (
        ("ttft", targets.ttft_s, first_s),
        ("tpot", targets.tpot_s, tpot_s),
    ):
        if wanted_s is not None and took_s is not None:
            meter.target(caller.tenant, target, took_s <= wanted_s)
