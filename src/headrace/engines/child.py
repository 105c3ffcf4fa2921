"""One life of an engine process: from its start to its exit, on the event loop and without a task.

The process is told what to do by one line on its standard input, which then stays open: its end means
that this server is gone. It says that it serves by one line on its standard output.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, cast

import msgspec

MAX_SAID_BYTES = 64 * 1024
"""Of a process's one line."""


class Said(msgspec.Struct, frozen=True):
    """A process's one line: where it serves, or why it cannot."""

    port: int = 0
    error: str = ""


class Parent(Protocol):
    """Who is told about a process."""

    def serving(self, child: Child, port: int) -> None: ...

    def wrote(self, data: bytes) -> None: ...

    def exited(self, child: Child, why: str) -> None:
        """It is gone and all it wrote has been told."""


class Command(msgspec.Struct, frozen=True):
    """What is started: its arguments, its environment, the line it is told."""

    arguments: Sequence[str]
    environment: Mapping[str, str]
    told: bytes


class Child(asyncio.SubprocessProtocol):
    """One process. ``gone`` is set when it has exited; ``refused``: it said itself that it cannot serve."""

    def __init__(self, parent: Parent) -> None:
        self._parent = parent
        self._transport: asyncio.SubprocessTransport | None = None
        self._said = b""
        self._error = ""
        self.refused = False
        self._exited = False
        self._open_pipes = {1, 2}
        self.gone = asyncio.Event()

    async def start(self, command: Command) -> None:
        """Start it. Raises :class:`OSError` if that is impossible."""
        loop = asyncio.get_running_loop()
        await loop.subprocess_exec(lambda: self, *command.arguments, env=dict(command.environment))
        transport = self._transport
        if transport is not None:
            stdin = cast(asyncio.WriteTransport, transport.get_pipe_transport(0))
            stdin.write(command.told + b"\n")

    @property
    def pid(self) -> int:
        """Process id; 0 before the start."""
        return (self._transport.get_pid() or 0) if self._transport is not None else 0

    @property
    def exited(self) -> bool:
        """Whether its process id may be another's by now."""
        return self._exited

    def terminate(self) -> None:
        """Ask it to end (SIGTERM), also if it stands still, when it would not hear that."""
        self._signal(signal.SIGTERM)
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it (SIGKILL)."""
        self._signal(signal.SIGKILL)

    def _signal(self, number: int) -> None:
        if self._transport is not None and not self._exited:
            with contextlib.suppress(ProcessLookupError):
                self._transport.send_signal(number)

    # What the loop calls.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)

    def pipe_data_received(self, fd: int, data: bytes | str) -> None:
        assert isinstance(data, bytes)
        if fd == 2:
            self._parent.wrote(data)
        else:
            self._hear(data)

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        self._open_pipes.discard(fd)
        self._maybe_gone()

    def process_exited(self) -> None:
        self._exited = True
        self._maybe_gone()

    def _hear(self, data: bytes) -> None:
        self._said = (self._said + data)[:MAX_SAID_BYTES]
        line, ended, _ = self._said.partition(b"\n")
        if not ended:
            return
        try:
            said = msgspec.json.decode(line, type=Said)
        except msgspec.DecodeError:
            said = Said(error="it said something else than where it serves")
        if said.port:
            self._parent.serving(self, said.port)
        else:
            self._error, self.refused = said.error or "it said nothing", True

    def _maybe_gone(self) -> None:
        if self._exited and not self._open_pipes and not self.gone.is_set():
            self.gone.set()
            self._parent.exited(self, self._error or self._status())
            self._close()

    def _status(self) -> str:
        code: Any = self._transport.get_returncode() if self._transport is not None else None
        if code is not None and code < 0:
            return f"it was ended by signal {-code}"
        return f"it ended with status {code}"

    def _close(self) -> None:
        if self._transport is not None:
            self._transport.close()
