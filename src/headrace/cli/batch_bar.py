"""How far a job is, on standard error: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from types import TracebackType
from typing import NamedTuple

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_S = 10.0
"""Between two lines."""


class Seen(NamedTuple):
    """A job as it was at a moment."""

    total: int = 0
    completed: int = 0
    failed: int = 0
    tokens: int = 0
    paused: str | None = None

    @property
    def done(self) -> int:
        return self.completed + self.failed


class Speed:
    """Rows and tokens a second, since the first look. What a run before had done is not counted."""

    def __init__(self) -> None:
        self._first: tuple[float, Seen] | None = None

    def of(self, seen: Seen, now: float) -> tuple[float, float]:
        """Nothing until it is known how many rows there are: what is there then may have been done before."""
        if not seen.total:
            return 0.0, 0.0
        if self._first is None:
            self._first = now, seen
        began, first = self._first
        took = max(now - began, 1e-3)
        return (seen.done - first.done) / took, (seen.tokens - first.tokens) / took


class Bar:
    """Inside ``with``, :meth:`show` what was seen last."""

    def __init__(self) -> None:
        self._speed = Speed()
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[speed]}"),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            disable=not sys.stderr.isatty(),
        )
        self._task = self._live.add_task("", total=None, speed="")
        self._told_at = 0.0

    def __enter__(self) -> Bar:
        self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        self._live.stop()

    def show(self, what: str, seen: Seen) -> None:
        now = time.monotonic()
        text = described(seen, *self._speed.of(seen, now)) if seen.total else ""
        self._live.update(
            self._task,
            description=what,
            total=seen.total or None,
            completed=seen.done,
            speed=text,
        )
        if self._live.disable and now - self._told_at >= LINE_S:
            self._told_at = now
            line = f"{what}: {seen.done} of {seen.total} rows, {text}" if text else what
            print(line, file=sys.stderr, flush=True)


def described(seen: Seen, rows_s: float, tokens_s: float) -> str:
    text = f"{rows_s:.1f} rows/s, {tokens_s:.0f} tokens/s, {seen.failed} failed"
    left = seen.total - seen.done
    if left and rows_s > 0:
        text += f", {timedelta(seconds=round(left / rows_s))} left"
    return f"{text}; paused: {seen.paused}" if seen.paused else text
