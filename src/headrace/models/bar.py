"""How far a fetch is, on standard error: a bar on a terminal, a line per phase elsewhere."""

from __future__ import annotations

import sys
from types import TracebackType

from headrace.models.wanted import Phase, Step

_WORDS: dict[Phase, str] = {
    "waiting": "waiting for another process that fetches it",
    "download": "downloading",
    "verify": "checking",
    "vocabulary": "reading its vocabulary",
    "repack": "repacking for this machine",
}


class Bar:
    """A report (``bar(step)``) for one model, inside ``with``. Writes nothing if nothing had to be done."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._phase: Phase | None = None
        self._live = _LiveBar() if sys.stderr.isatty() else None

    def __enter__(self) -> Bar:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        at: TracebackType | None,
    ) -> None:
        if self._live:
            self._live.stop()

    def __call__(self, step: Step) -> None:
        text = f"{self._name}: {_WORDS[step.phase]}"
        if self._live:
            self._live.show(text, step, begins=step.phase != self._phase)
        elif step.phase != self._phase:
            print(text, file=sys.stderr, flush=True)  # noqa: T201 - this is what a bar is for
        self._phase = step.phase


class _LiveBar:
    """rich's progress bar; bytes are shown as such, tensors only as a share."""

    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            DownloadColumn,
            Progress,
            TextColumn,
            TransferSpeedColumn,
        )

        text = TextColumn("{task.description}")
        console = Console(stderr=True)
        columns = (text, BarColumn(), DownloadColumn(), TransferSpeedColumn())
        self._bytes = Progress(*columns, console=console, transient=True)
        self._share = Progress(text, BarColumn(), console=console, transient=True)
        self._shown = self._share

    def show(self, text: str, step: Step, *, begins: bool) -> None:
        if begins:
            self.stop()
            self._shown = self._bytes if step.phase in ("download", "verify") else self._share
            self._task = self._shown.add_task(text, total=None)
            self._shown.start()
        self._shown.update(self._task, completed=step.done, total=step.total or None)

    def stop(self) -> None:
        self._shown.stop()
        for task in self._shown.task_ids:
            self._shown.remove_task(task)
