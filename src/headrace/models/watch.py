"""Progress of a download that does not tell: the size of the largest file in its folder."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from headrace.models.wanted import Report, Step

_PERIOD_S = 0.2


@contextmanager
def watched(folder: Path, total: int, report: Report) -> Iterator[None]:
    """Report how many bytes have arrived in ``folder`` while the body runs; ``total`` 0: not known."""
    over = threading.Event()

    def look() -> None:
        while not over.wait(_PERIOD_S):
            report(Step("download", largest(folder), total))

    thread = threading.Thread(target=look, name="watch-download", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


def largest(folder: Path) -> int:
    """Bytes of the largest file below ``folder``; files may come and go meanwhile."""
    return max((_size(path) for path in folder.rglob("*")), default=0)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size if path.is_file() else 0
    except OSError:
        return 0
