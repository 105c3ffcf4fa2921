"""The answer of one upstream request, on its way into a run.

Its last event ends it, or the end of the answer once a finish reason was seen; anything else is a
failure after which another replica may go on.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, Usage
from headrace.engines.fan import FanRun
from headrace.engines.faults import MAX_ERROR_BYTES, refused
from headrace.engines.pool import MAX_ANSWER_BYTES
from headrace.engines.response import Headers, too_large
from headrace.engines.sse import SseParser


class Fold(Protocol):
    """Makes deltas of an upstream's events."""

    @property
    def reasons(self) -> Mapping[int, FinishReason]:
        """Finish reasons seen so far, by choice."""

    def take(self, payload: bytes, deltas: list[Delta]) -> bool:
        """One event (or the whole answer); True: it was the last. Raises :class:`HeadraceError`."""

    def usage(self) -> Usage:
        """What was counted."""


class Stream:
    """The answer of one request, streamed (``live``) or whole, on its way into a run."""

    __slots__ = (
        "_fold",
        "_headers",
        "_live",
        "_on_end",
        "_on_failure",
        "_over",
        "_parts",
        "_run",
        "_size",
        "_sse",
        "_status",
    )

    def __init__(
        self,
        run: FanRun,
        fold: Fold,
        live: bool,
        on_failure: Callable[[HeadraceError], None],
        on_end: Callable[[], None] | None = None,
    ) -> None:
        """``on_failure`` is told before the run is; ``on_end`` instead of it, where it is given."""
        self._run = run
        self._fold = fold
        self._live = live
        self._on_failure = on_failure
        self._on_end = on_end
        self._sse = SseParser()
        self._parts: list[bytes] = []
        self._size = 0
        self._over = False
        self._status = 0
        self._headers: Headers = []

    def head(self, status: int, headers: Headers) -> None:
        self._status, self._headers = status, headers

    def body(self, data: bytes) -> None:
        if self._live and self._status == 200:
            self._events(data)
        else:
            self._gather(data)

    def end(self) -> None:
        if self._over or self._run.over:
            return
        whole = b"".join(self._parts)
        if self._status != 200:
            self.failed(refused(self._status, self._headers, whole))
        elif not self._live:
            self._whole(whole)
        elif self._fold.reasons:
            self._done()
        else:
            self.failed(_cut())

    def failed(self, error: HeadraceError) -> None:
        if not self._over:
            self._over = True
            self._on_failure(error)
            self._run.failed(error)

    def _events(self, data: bytes) -> None:
        """All events of one read: their deltas go on as one list."""
        run = self._run
        if self._over or run.over:
            return
        deltas: list[Delta] = []
        error: HeadraceError | None = None
        done = False
        try:
            take = self._fold.take
            for payload in self._sse.feed(data):
                if take(payload, deltas):
                    done = True
                    break
        except HeadraceError as caught:
            error = caught
        if deltas:
            run.deltas(deltas)
        if error is not None:
            self.failed(error)
        elif done:
            self._done()

    def _gather(self, data: bytes) -> None:
        bound = MAX_ANSWER_BYTES if self._status == 200 else MAX_ERROR_BYTES
        self._size += len(data)
        if self._size <= bound:
            self._parts.append(data)
        elif self._status == 200:
            self.failed(too_large(bound))

    def _whole(self, body: bytes) -> None:
        deltas: list[Delta] = []
        try:
            self._fold.take(body, deltas)
        except HeadraceError as error:
            self.failed(error)
            return
        if deltas:
            self._run.deltas(deltas)
        self._done()

    def _done(self) -> None:
        self._over = True
        if self._on_end is not None:
            self._on_end()
        else:
            self._run.stream_done(self._fold.reasons, self._fold.usage())


def _cut() -> HeadraceError:
    return HeadraceError(Code.ENGINE_FAILED, "The engine ended its stream without a reason.")
