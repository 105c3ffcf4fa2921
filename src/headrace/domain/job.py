"""A job: a file of requests that runs without a client, and the files it reads and leaves."""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from headrace.domain.event import Usage

State = Literal[
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
]
"""As OpenAI names them: https://platform.openai.com/docs/guides/batch"""
OVER: frozenset[State] = frozenset(("failed", "completed", "expired", "cancelled"))

ENDPOINTS = ("/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings")
"""What a row may ask."""


class StoredFile(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A file of a tenant's. Times in float Unix seconds; ``bytes``: its length."""

    id: str
    tenant: str
    bytes: int
    created_at: float
    filename: str
    purpose: str
    expires_at: float | None = None


class LineError(msgspec.Struct, frozen=True, gc=False):
    """What is wrong with a job's input. ``line``: from 1, where one line is to blame."""

    code: str
    message: str
    param: str | None = None
    line: int | None = None


class Counts(msgspec.Struct, frozen=True, gc=False):
    """Rows of a job, and how many of them have an answer, or an error that stays one."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class Fingerprint(msgspec.Struct, frozen=True, gc=False):
    """What tells that a file is still the one that was looked at."""

    bytes: int
    mtime_ns: int


class Order(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What somebody wants done. ``window``: as the client wrote it, ``window_s`` the same in seconds.
    ``output_expires_s``: how long the files that it leaves are kept; None: as others."""

    tenant: str
    key_id: str
    endpoint: str
    input_file: str
    window: str
    window_s: float
    metadata: dict[str, str] | None = None
    output_expires_s: float | None = None


class Job(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A job as it is kept. ``at``: when it came into each state, float Unix seconds. ``ends_as``: what it will be
    when it is settled. ``output_file``, ``error_file``: their ids from the beginning; they are there, if they are
    not empty, when the job is over (``left``). ``seen``: the input as it was validated. ``paused``: why
    nothing goes on at the moment; not kept."""

    id: str
    order: Order
    created_at: float
    expires_at: float
    output_file: str
    error_file: str
    state: State = "validating"
    ends_as: State = "completed"
    at: dict[str, float] = {}
    model: str | None = None
    seen: Fingerprint | None = None
    counts: Counts = Counts()
    usage: Usage = Usage()
    errors: tuple[LineError, ...] = ()
    left: tuple[str, ...] = ()
    paused: str | None = None

    @property
    def over(self) -> bool:
        return self.state in OVER


class RowAsked(NamedTuple):
    """One row of a job, to be answered. ``body``: the JSON of the request. ``key``: what it is known by, so that it is
    computed once; ``group``: what all rows of its job are aborted by."""

    tenant: str
    key_id: str
    endpoint: str
    body: bytes
    key: str
    group: str


class RowAnswer(NamedTuple):
    """What a row got. ``body``: JSON in one line. ``usage``: None where nothing was computed."""

    status: int
    request_id: str
    body: bytes
    usage: Usage | None = None
