"""What an engine process does about its parent: it hears it, tells it one line, and ends with it.

It must not outlive its parent: the kernel kills it with the parent (Linux), and the end of standard
input, which only a living parent holds open, ends it everywhere else.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import threading
from typing import Any

_PR_SET_PDEATHSIG = 1
PARENT_GONE = 3
"""Exit status of a child that found its parent gone."""


def take_over_stdout() -> int:
    """Keep standard output for the one line; whatever C++ prints there goes to standard error."""
    control = os.dup(1)
    os.dup2(2, 1)
    return control


def say(control: int, value: dict[str, Any]) -> None:
    """The one line: ``{"port": N}``, or ``{"error": why}``."""
    os.write(control, json.dumps(value).encode() + b"\n")


def end_with(parent: int) -> None:
    """See to it that this process ends when ``parent``, a process id, is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the server's to handle
    if sys.platform == "linux":
        libc = ctypes.CDLL(None, use_errno=True)
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:  # it died before the line above
        os._exit(PARENT_GONE)
    threading.Thread(target=_exit_at_eof, name="parent-watch", daemon=True).start()


def _exit_at_eof() -> None:
    while sys.stdin.buffer.readline():
        """The parent says nothing more; its end says enough."""
    os._exit(PARENT_GONE)
