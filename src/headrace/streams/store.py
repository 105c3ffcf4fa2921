"""The ``Store`` protocol: where logs outlive the process.

Order of truth (DESIGN §9): a batch of events is *visible* only after ``append`` has returned: it outlives the
process from then on, as far as this store's logs do.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, Protocol

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import End, Event
from headrace.domain.request import Caller, Request
from headrace.streams.bounds import PASSING_AT_MOST_S, PASSING_S


class LogHeader(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a log says about itself, written once, before its first event. ``created``: float Unix
    seconds. ``wire``: the format its first client reads (``openai-chat`` …) and that format's options,
    so that a resumed stream is byte for byte the same."""

    id: str
    created: float
    model: str
    request: Request
    caller: Caller
    wire: str = "native"
    wire_options: dict[str, Any] = {}

    @property
    def keep_s(self) -> float | None:
        """Seconds that it is kept after its end, if it is not to be kept as the store's bounds say: as long as its
        client may take to come back."""
        if self.request.keep:
            return None
        grace_s = self.caller.leaving.grace_s
        return PASSING_AT_MOST_S if grace_s is None else max(PASSING_S, grace_s)

    def is_of(self, tenant: str, session_id: str | None) -> bool:
        """Whether this is a log of that tenant and, if one is named, of that session."""
        caller = self.caller
        return caller.tenant == tenant and session_id in (None, caller.session_id)


class KeptLog(msgspec.Struct, frozen=True):
    """A log that the store has: its header, its newest stored event, and how it ended (None: not yet)."""

    header: LogHeader
    last_seq: int
    end: End | None


class Recovered(msgspec.Struct, frozen=True):
    """A generation without a terminal event, found at start: its header, its events and, for those
    that may go on, the raw engine deltas behind them. ``left_at``: when its last client had left."""

    header: LogHeader
    events: list[Event]
    raw: list[Delta]
    left_at: float | None


class Repeat(NamedTuple):
    """A tenant's idempotency key, the generation that has it, and when that was made (Unix seconds)."""

    tenant: str
    key: str
    id: str
    at: float


class LogWriter(Protocol):
    """Where the events of one log go, behind its first."""

    def append(self, events: Sequence[Event], raw: Sequence[Delta], end: End | None) -> None:
        """Append in order; ``end`` if the last is a terminal event. ``raw`` (empty for generations that never
        go on after a restart) is kept in a private column and dropped at the end. Raises ``STORE_FAILED`` or
        ``SHUTTING_DOWN``; nothing of this append is stored then, and the log takes no more."""

    def left(self, left_at: float | None) -> None:
        """Note when the last client left (None: one came back)."""


class Store(Protocol):
    """One implementation each: memory, SQLite. All calls on the event loop thread."""

    async def open(self) -> list[Recovered]:
        """Open or create; replay what a crash left. Raises ``STORE_FAILED`` naming the path."""

    def begin(
        self, header: LogHeader, events: Sequence[Event], raw: Sequence[Delta], end: End | None
    ) -> LogWriter | None:
        """A new log with its first events; all of it or nothing, as in :meth:`LogWriter.append`. None if they
        are all it will ever have, as of most answers without a stream."""

    def writer(self, id: str) -> LogWriter:
        """Of a log that :meth:`open` found unfinished."""

    async def find(self, id: str) -> KeptLog | None:
        """A kept log. None: never seen. Raises ``CURSOR_GONE`` if it was dropped by age, count or size."""

    def recent(self, id: str, after: int, limit_bytes: int) -> Sequence[Event]:
        """What memory has right after ``after``, about ``limit_bytes`` of it and at least one event; nothing
        if the next event is not in memory (then :meth:`read` may have it)."""

    async def read(self, id: str, after: int, limit_bytes: int) -> Sequence[Event]:
        """Stored events with ``seq > after``, at most about ``limit_bytes`` of them (at least one, if there
        is one). Raises ``CURSOR_GONE`` when events after the cursor are no longer kept."""

    async def list(self, tenant: str, session_id: str | None, limit: int) -> Sequence[LogHeader]:
        """A tenant's logs, newest first."""

    async def repeat(self, tenant: str, key: str) -> Repeat | None:
        """Which generation of this tenant has the idempotency key, of those made within a day."""

    async def delete(self, id: str) -> None:
        """Forget an ended log as if it had never been. Without effect where there is none. Raises
        ``STORE_FAILED``."""

    async def caught_up(self) -> None:
        """Wait until no more than a little is kept in memory because it is not yet where it stays. For what nobody
        waits for: to be asked before it begins. Raises ``STORE_FAILED`` if it cannot be brought there."""

    async def close(self) -> None:
        """Everything appended is durable; idempotent."""


class LeftEarly:
    """The writer of a log that its last client left before the first event: noted right behind that."""

    __slots__ = ("_left_at", "_store", "_writer", "header")

    def __init__(self, store: Store, header: LogHeader) -> None:
        self._store = store
        self.header = header
        self._left_at: float | None = None
        self._writer: LogWriter | None = None

    def append(self, events: Sequence[Event], raw: Sequence[Delta], end: End | None) -> None:
        if self._writer is not None:
            self._writer.append(events, raw, end)
            return
        self._writer = self._store.begin(self.header, events, raw, end)
        if self._writer is not None and self._left_at is not None:
            self._writer.left(self._left_at)

    def left(self, left_at: float | None) -> None:
        self._left_at = left_at
        if self._writer is not None:
            self._writer.left(left_at)
