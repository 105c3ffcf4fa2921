"""The answer of one upstream request, on its way into a run.

Its last event ends it, or the end of the answer once a finish reason was seen; anything else is a
failure after which another replica may go on.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, Usage
from headrace.engines.faults import MAX_ERROR_BYTES, refused
from headrace.engines.pool import MAX_ANSWER_BYTES
from headrace.engines.response import Headers, too_large
from headrace.engines.sse import SseParser


class Fold(Protocol):
    """Makes deltas of an upstream's events."""

    @property
    def reasons(self) -> Mapping[int, FinishReason]:
        """Finish reasons seen so far, by choice."""

    def take(self, payloads: Sequence[bytes], deltas: list[Delta]) -> bool:
        """Events (or the whole answer); True: the last was among them. Raises
        :class:`HeadraceError`; ``deltas`` then has what came before."""

    def usage(self) -> Usage:
        """What was counted."""


class Stream(ABC):
    """The answer of one request, streamed (``_live``) or whole, on its way into a run: a sink for
    :meth:`~headrace.engines.pool.Pool.send`.

    Who inherits says where it goes, and sets the first four of these; the others are set by
    :meth:`head`, which comes first, so that no request pays for what its answer does not need.
    """

    __slots__ = (
        "_fold",
        "_give",
        "_headers",
        "_live",
        "_parts",
        "_size",
        "_sse",
        "_status",
        "over",
    )

    _fold: Fold
    _give: Callable[[list[Delta]], None]
    _live: bool
    over: bool
    _headers: Headers
    _parts: list[bytes]
    _size: int
    _sse: SseParser | None
    _status: int

    def head(self, status: int, headers: Headers) -> None:
        self._status = status
        if status == 200 and self._live:
            self._sse = SseParser()
        else:
            self._sse = None
            self._headers = headers
            self._parts = []
            self._size = 0

    def body(self, data: bytes) -> None:
        """All events of one read: their deltas go on as one list. Hot: one frame for all of it."""
        sse = self._sse
        if sse is None:
            self._gather(data)
            return
        if self.over:
            return
        deltas: list[Delta] = []
        try:
            done = self._fold.take(sse.feed(data), deltas)
        except HeadraceError as error:
            self._broken(deltas, error)
            return
        if done:
            self._done(deltas)
        elif deltas:
            self._give(deltas)

    def end(self) -> None:
        if self.over:
            return
        if self._sse is None:
            self._whole(b"".join(self._parts))
        elif self._fold.reasons:
            self._done([])
        else:
            self.failed(_cut())

    @abstractmethod
    def failed(self, error: HeadraceError) -> None:
        """There will be no more of it. Does nothing once it is over."""

    @abstractmethod
    def _done(self, deltas: list[Delta]) -> None:
        """It is complete with these; the run may be over already, if it was cancelled meanwhile."""

    def _broken(self, deltas: list[Delta], error: HeadraceError) -> None:
        if deltas:
            self._give(deltas)
        self.failed(error)

    def _gather(self, data: bytes) -> None:
        bound = MAX_ANSWER_BYTES if self._status == 200 else MAX_ERROR_BYTES
        self._size += len(data)
        if self._size <= bound:
            self._parts.append(data)
        elif self._status == 200:
            self.failed(too_large(bound))

    def _whole(self, body: bytes) -> None:
        if self._status != 200:
            self.failed(refused(self._status, self._headers, body))
            return
        deltas: list[Delta] = []
        try:
            self._fold.take((body,), deltas)
        except HeadraceError as error:
            self.failed(error)
            return
        self._done(deltas)


def _cut() -> HeadraceError:
    return HeadraceError(Code.ENGINE_FAILED, "The engine ended its stream without a reason.")
