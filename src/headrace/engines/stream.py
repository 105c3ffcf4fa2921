"""The answer of one upstream request, on its way into a run.

Its last event ends it, or the end of the answer once a finish reason was seen; anything else is a
failure after which another replica may go on.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, Usage
from headrace.engines.faults import MAX_ERROR_BYTES, refused
from headrace.engines.pool import MAX_ANSWER_BYTES
from headrace.engines.response import Gathering, Headers, ResponseSink, too_large
from headrace.engines.sse import CR, LF, SseParser


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


class Deltas(Protocol):
    """Where deltas go."""

    def deltas(self, deltas: list[Delta]) -> None:
        """New output, in order."""


class _Reading(Gathering, kw_only=True):
    """The parser of an answer that turned out to be a stream."""

    _sse: SseParser | None = None


class Stream(_Reading):
    """The answer of one request, streamed (``live``) or whole, folded and given to ``sink``. Who inherits
    says what its end means."""

    sink: Deltas
    fold: Fold
    live: bool

    def head(self, status: int, headers: Headers) -> None:
        if status == 200 and self.live:
            self._sse = SseParser()
        else:
            Gathering.head(self, status, headers)

    def body(self, data: bytes) -> None:
        """All events of one read: their deltas go on as one list. Hot: one frame for all of it."""
        sse = self._sse
        if sse is None or self.over:
            self._keep(data)
            return
        deltas: list[Delta] = []
        try:
            # What nearly every read is, one event and all of it, needs no parser. (A longer one than
            # the parser takes never comes with one read.)
            if (
                sse.between
                and data[:6] == b"data: "
                and data.find(b"\n") == len(data) - 2
                and data[-1] == LF
                and CR not in data
            ):
                done = self.fold.take((data[6:-2],), deltas)
            else:
                done = self.fold.take(sse.feed(data), deltas)
        except HeadraceError as error:
            self._broken(deltas, error)
            return
        if done:
            self._done(deltas)
        elif deltas:
            self.sink.deltas(deltas)

    def end(self) -> None:
        if self.over:
            return
        if self._sse is not None:
            if self.fold.reasons:
                self._done([])
            else:
                self.failed(_cut())
        elif self._status == 200:
            self.whole(200, {}, b"".join(self._parts))
        else:
            self.failed(refused(self._status, self._headers, b"".join(self._parts)))

    def whole(self, status: int, headers: Headers, body: bytes) -> None:
        if self.live or status != 200:
            ResponseSink.whole(self, status, headers, body)
            return
        deltas: list[Delta] = []
        try:
            self.fold.take((body,), deltas)
        except HeadraceError as error:
            self.failed(error)
        else:
            self._done(deltas)

    def _done(self, deltas: list[Delta]) -> None:
        """It is complete with these; the run may be over already, if it was cancelled meanwhile."""
        raise NotImplementedError

    def _broken(self, deltas: list[Delta], error: HeadraceError) -> None:
        if deltas:
            self.sink.deltas(deltas)
        self.failed(error)

    def _keep(self, data: bytes) -> None:
        """Body that is no stream: an answer, or the words of a refusal as far as they are read."""
        accepted = self._status == 200
        bound = MAX_ANSWER_BYTES if accepted else MAX_ERROR_BYTES
        if not self._gather(data, bound) and accepted:
            self.failed(too_large(bound))


def _cut() -> HeadraceError:
    return HeadraceError(Code.ENGINE_FAILED, "The engine ended its stream without a reason.")
