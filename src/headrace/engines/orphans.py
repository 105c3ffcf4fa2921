"""No engine process outlives its server: each carries a tag that names its owner, and whoever starts
next ends those whose owner is dead.

By tag and never by process group, so that nothing else is hit. Only engines of the same state folder
and the same process-id namespace are looked at: elsewhere a process id means another process.
"""

from __future__ import annotations

import contextlib
import os
import signal
from pathlib import Path

import msgspec

TAG = "HEADRACE_ENGINE"
"""Name of the environment variable in every engine process."""

_START_TIME = 19
"""Field of ``/proc/PID/stat`` after the command's name, from 0: clock ticks since boot (proc(5): 22)."""


class Owner(msgspec.Struct, frozen=True):
    """A server process: ``state`` names its state folder, ``started`` tells it from a later process
    with the same id, ``namespace`` is the one its id means something in."""

    state: str
    pid: int
    started: int
    namespace: str

    @classmethod
    def this_process(cls, state: str) -> Owner:
        """The owner that this process is, for the state folder ``state`` (any text)."""
        pid = os.getpid()
        return cls(state.encode().hex(), pid, started_at(pid) or 0, _namespace())

    @property
    def tag(self) -> str:
        """The value of :data:`TAG`."""
        return f"{self.state}/{self.namespace}/{self.pid}/{self.started}"

    def alive(self) -> bool:
        """Whether that very process still runs."""
        return started_at(self.pid) == self.started


def end_orphans(state: str) -> list[int]:
    """Kill the engines of dead servers with this state folder; their process ids. Empty without
    ``/proc``: there the end of an engine's standard input must do."""
    ours = Owner.this_process(state)
    ended = []
    for pid in _processes():
        owner = owner_of(pid)
        if owner is None or (owner.state, owner.namespace) != (ours.state, ours.namespace):
            continue
        if not owner.alive():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
                ended.append(pid)
    return ended


def owner_of(pid: int) -> Owner | None:
    """Who started this engine process; None if it is none (or not ours to look at)."""
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes()
    except OSError:
        return None
    prefix = f"{TAG}=".encode()
    found = (one for one in environment.split(b"\0") if one.startswith(prefix))
    parts = next(found, b"").removeprefix(prefix).decode(errors="replace").split("/")
    if len(parts) != 4 or not (parts[2].isdigit() and parts[3].isdigit()):
        return None
    return Owner(parts[0], int(parts[2]), int(parts[3]), parts[1])


def started_at(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if there is no such process (a zombie
    is none)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = stat.rpartition(")")[2].split()
    return None if fields[0] in "ZX" else int(fields[_START_TIME])


def _processes() -> list[int]:
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdigit()]
    except OSError:
        return []


def _namespace() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return "none"
