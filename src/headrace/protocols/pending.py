"""What a handler leaves to be waited for, and how a call is answered when that fails."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, Protocol

from headrace.domain.errors import HeadraceError


class Pending(Protocol):
    """A coroutine, or something like it."""

    def __await__(self) -> Generator[Any, Any, None]: ...

    def close(self) -> None:
        """It is not waited for any more, or never was."""


class Answered(Protocol):
    """A call."""

    def fail(self, error: HeadraceError) -> None: ...

    def crash(self) -> None: ...


class Guarded:
    """``waiting``, which answers ``call`` with whatever it raises. Closing it closes that too: else a coroutine within
    one that was cancelled before its first step would be in the log as never awaited."""

    __slots__ = ("_call", "_waiting")

    def __init__(self, waiting: Pending, call: Answered) -> None:
        self._waiting = waiting
        self._call = call

    async def run(self) -> None:
        try:
            await self._waiting
        except HeadraceError as error:
            self._call.fail(error)
        except Exception:  # noqa: BLE001 - a boundary: every call gets an answer
            self._call.crash()

    def __await__(self) -> Generator[Any, Any, None]:
        return self.run().__await__()

    def close(self) -> None:
        self._waiting.close()
