"""What a person types while an answer comes: each line is a hint for it."""

from __future__ import annotations

import os
import selectors
import sys
import threading
from collections.abc import Callable
from types import TracebackType

LINE_BYTES = 4096
"""What a terminal gives at once, a line at most."""


class Hints:
    """Between entering and leaving, lines of a terminal go to ``take``, on a thread of its own; those that it
    returns False for are ``left``. Where the input is no terminal nothing is read: it has the next question."""

    def __init__(self, take: Callable[[str], bool], source: int | None = None) -> None:
        """``source``: a terminal's file descriptor; None: the standard input."""
        self._take = take
        self._source = sys.stdin.fileno() if source is None else source
        self._thread: threading.Thread | None = None
        self._wake = self._woken = -1
        self.left: list[str] = []

    def __enter__(self) -> Hints:
        if os.isatty(self._source) and sys.platform != "win32":
            self._woken, self._wake = os.pipe()
            self._thread = threading.Thread(target=self._read, daemon=True)
            self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._thread is not None:
            os.write(self._wake, b".")
            self._thread.join()
            os.close(self._wake)
            os.close(self._woken)

    def _read(self) -> None:
        with selectors.DefaultSelector() as ready:
            ready.register(self._source, selectors.EVENT_READ)
            ready.register(self._woken, selectors.EVENT_READ)
            while all(key.fd == self._source for key, _ in ready.select()):
                line = os.read(self._source, LINE_BYTES).decode(errors="replace")
                if not line:  # Ctrl-D
                    return
                if line.strip() and not self._take(line.strip()):
                    self.left.append(line.strip())
