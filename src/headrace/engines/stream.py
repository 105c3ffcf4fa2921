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
from headrace.engines.response import Headers, Kept, ResponseSink, too_large
from headrace.engines.sse import CR, LF, SseParser


class Fold(Protocol):
    """Makes deltas of an upstream's events."""

    @property
    def reasons(self) -> Mapping[int, FinishReason]:
        """Finish reasons seen so far, by choice."""

    @property
    def stop(self) -> str | None:
        """The stop string that ended choice 0, if the upstream says that one did."""

    def take(self, payloads: Sequence[bytes], deltas: list[Delta]) -> bool:
        """Events (or the whole answer); True: the last was among them. Raises
        :class:`HeadraceError`; ``deltas`` then has what came before."""

    def usage(self) -> Usage:
        """What was counted."""


class Deltas(Protocol):
    """Where deltas go."""

    def deltas(self, deltas: list[Delta]) -> None:
        """New output, in order."""


class _Begun(ResponseSink, kw_only=True):
    """What the head of an answer made, as it is read: events, or an answer that is kept. So that no request
    pays for what its answer does not need."""

    _sse: SseParser | None = None
    _kept: Kept | None = None


class Stream(_Begun):
    """The answer of one request, streamed (``live``) or whole, folded and given to ``sink``. Who inherits
    says what its end means."""

    sink: Deltas
    fold: Fold
    live: bool

    def head(self, status: int, headers: Headers) -> None:
        if status == 200 and self.live:
            self._sse = SseParser()
        else:
            self._kept = Kept(status, headers)

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
                and data.startswith(b"data: ")
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
        kept = self._kept
        if self.over:
            return
        if kept is None:
            if self.fold.reasons:
                self._done([])
            else:
                self.failed(_cut())
        elif kept.status == 200:
            self.whole(200, kept.headers, kept.body)
        else:
            self.failed(refused(kept.status, kept.headers, kept.body))

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
        kept = self._kept
        if kept is not None and kept.status == 200:
            if not kept.add(data, MAX_ANSWER_BYTES):
                self.failed(too_large(MAX_ANSWER_BYTES))
        elif kept is not None:
            kept.add(data, MAX_ERROR_BYTES)


def _cut() -> HeadraceError:
    return HeadraceError(Code.ENGINE_FAILED, "The engine ended its stream without a reason.")
