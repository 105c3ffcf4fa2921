"""One run that is several upstream streams: its choices are computed side by side.

The run finishes when all its streams have, and fails with the first that does; then the others are
cancelled, since an answer with a missing choice is none.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import HeadraceError
from headrace.domain.event import FinishReason, Usage
from headrace.engines.engine import Run, Sink
from headrace.engines.gather import Gather
from headrace.engines.response import Headers
from headrace.engines.stream import Stream


class FanRun:
    """A run over ``streams`` upstream streams and ``choices`` choices."""

    __slots__ = (
        *("_cached", "_calls", "_completion", "_left", "_on_over", "_progress", "_prompt"),
        *("_reasons", "_sink", "_stop", "over"),
    )

    def __init__(
        self,
        sink: Sink,
        choices: int,
        streams: int,
        on_over: Callable[[FanRun], None] | None = None,
    ) -> None:
        """``on_over`` is called once, when the run ends in whatever way."""
        self._sink = sink
        self._on_over = on_over
        self._calls: list[Run] = []
        self._left = streams
        self._reasons: list[FinishReason] = ["stop"] * choices
        self._stop: str | None = None
        self._prompt = self._completion = self._cached = 0
        self._progress: dict[int, tuple[int, int]] = {}
        self.over = False

    def adopt(self, call: Run) -> None:
        """A stream's call, to be cancelled with the run."""
        if self.over:
            call.cancel()
        else:
            self._calls.append(call)

    def cancel(self) -> None:
        self._end()
        calls, self._calls = self._calls, []
        for call in calls:
            call.cancel()

    def deltas(self, deltas: list[Delta]) -> None:
        if not self.over:
            self._sink.deltas(deltas)

    def prefill(self, stream: int, done: int, total: int) -> None:
        """Progress of one stream; the sink is told the sum of all."""
        if not self.over:
            progress = self._progress
            progress[stream] = (done, total)
            self._sink.prefill(
                sum(done for done, _ in progress.values()),
                sum(total for _, total in progress.values()),
            )

    def stream_done(
        self, reasons: Mapping[int, FinishReason], usage: Usage, stop: str | None = None
    ) -> None:
        """One stream ended well, with the reasons of its choices. ``stop``: the stop string of choice 0."""
        if self.over:
            return
        self._stop = self._stop or stop
        for index, reason in reasons.items():
            self._reasons[index] = reason
        self._prompt += usage.prompt_tokens
        self._completion += usage.completion_tokens
        self._cached += usage.cached_tokens
        self._left -= 1
        if not self._left:
            self._end()
            self._calls.clear()
            usage = Usage(self._prompt, self._completion, self._cached)
            self._sink.finished(Outcome(tuple(self._reasons), usage, self._stop))

    def failed(self, error: HeadraceError) -> None:
        if not self.over:
            self.cancel()
            self._sink.failed(error)

    def _end(self) -> None:
        if not self.over:
            self.over = True
            if self._on_over is not None:
                self._on_over(self)


class Gathering:
    """A run as a streamed answer sees it whose deltas nobody wants one by one: :meth:`tell` gives them to the
    run, put together."""

    __slots__ = ("_gather", "_run", "deltas", "failed")

    def __init__(self, run: FanRun) -> None:
        self._run = run
        self._gather = Gather()
        self.deltas = self._gather.take
        self.failed = run.failed

    @property
    def over(self) -> bool:
        return self._run.over

    def tell(self) -> None:
        """The answer is complete."""
        if deltas := self._gather.whole():
            self._run.deltas(deltas)

    def stream_done(
        self, reasons: Mapping[int, FinishReason], usage: Usage, stop: str | None = None
    ) -> None:
        self.tell()
        self._run.stream_done(reasons, usage, stop)


class FanStream(Stream):
    """One stream of a :class:`FanRun`, which is its sink. ``on_failure`` is told before the run is;
    ``on_end`` instead of it, where it is given; ``on_head`` that the answer begins."""

    sink: FanRun | Gathering
    on_failure: Callable[[HeadraceError], None]
    on_end: Callable[[], None] | None = None
    on_head: Callable[[], None] | None = None

    def head(self, status: int, headers: Headers) -> None:
        Stream.head(self, status, headers)
        if self.on_head is not None:
            self.on_head()

    def body(self, data: bytes) -> None:
        if not self.sink.over:
            Stream.body(self, data)  # super() is an object more, for every event

    def end(self) -> None:
        if not self.sink.over:
            Stream.end(self)

    def failed(self, error: HeadraceError) -> None:
        if not self.over:
            self.over = True
            self.on_failure(error)
            self.sink.failed(error)

    def _done(self, deltas: list[Delta]) -> None:
        if deltas:
            self.sink.deltas(deltas)
        self.over = True
        if self.on_end is not None:
            self.on_end()
        else:
            fold = self.fold
            self.sink.stream_done(fold.reasons, fold.usage(), fold.stop)
