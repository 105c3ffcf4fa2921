"""The run that is one upstream request, as most are.

Run, call and answer are one object, and deltas go straight to the sink: a request costs what its own
bytes cost, not what a fan of several would (:mod:`headrace.engines.fan`).
"""

from __future__ import annotations

from typing import Protocol

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.domain.event import FinishReason
from headrace.engines.engine import Sink
from headrace.engines.plain import UNREADABLE, decode_plain_answer
from headrace.engines.response import Headers
from headrace.engines.stream import Stream


class Upstream(Protocol):
    """Whom the request went to."""

    def on_failure(self, error: HeadraceError) -> None:
        """A run failed. Told before its sink is."""


class SoloRun(Stream):
    """A run over ``choices`` choices, all from their beginning."""

    sink: Sink
    choices: int
    upstream: Upstream

    def cancel(self) -> None:
        if not self.over:
            Stream.cancel(self)

    def failed(self, error: HeadraceError) -> None:
        if not self.over:
            self.cancel()
            self.upstream.on_failure(error)
            self.sink.failed(error)

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        """Most answers that are not streamed are plain text, and need no fold."""
        if status != 200 or self.live or self.choices != 1:
            Stream.whole(self, status, headers, body)
            return
        try:
            answer = decode_plain_answer(body)
        except UNREADABLE:
            Stream.whole(self, status, headers, body)
            return
        (choice,) = answer.choices
        text, ids = choice.message.content, choice.token_ids
        deltas = [Delta(text or "", 0, ids or ())] if text or ids else []
        self.over = True
        self.sink.finished(Outcome((choice.finish_reason,), answer.usage.usage()), deltas)

    def _done(self, deltas: list[Delta]) -> None:
        if self.over:
            return
        self.over = True
        seen = self.fold.reasons
        reasons: tuple[FinishReason, ...]
        if self.choices == 1:
            reasons = (seen.get(0, "stop"),)
        else:
            reasons = tuple(seen.get(index, "stop") for index in range(self.choices))
        self.sink.finished(Outcome(reasons, self.fold.usage(), self.fold.stop), deltas)
