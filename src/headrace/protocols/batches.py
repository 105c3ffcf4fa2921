"""``/v1/batches``: jobs as OpenAI shows them.

https://platform.openai.com/docs/api-reference/batch
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.job import ENDPOINTS, Job, LineError, Order
from headrace.protocols.accept import require_json
from headrace.protocols.body import Body, refuse, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.files import expires_s, require
from headrace.protocols.jobs_port import Jobs
from headrace.protocols.listing import asked_limit, page
from headrace.protocols.router import Route

PATH = "/v1/batches"
MAX_LISTED = 100
MOST_WINDOW_S = 2_592_000.0
_WINDOW = re.compile(r"(\d{1,7})([smhd])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400}


class ExpiresAfter(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    anchor: Literal["created_at"]
    seconds: int


class BatchBody(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``POST /v1/batches``. ``completion_window``: ``24h`` as at OpenAI, or any other time up to 30 days, as
    ``90m`` or ``3d``."""

    input_file_id: Annotated[str, Meta(min_length=1, max_length=64)]
    endpoint: Annotated[str, Meta(max_length=64)]
    completion_window: Annotated[str, Meta(max_length=16)]
    metadata: (
        dict[Annotated[str, Meta(max_length=64)], Annotated[str, Meta(max_length=512)]] | None
    ) = None
    output_expires_after: ExpiresAfter | None = None


class BatchErrors(msgspec.Struct, frozen=True, gc=False):
    data: tuple[LineError, ...]
    object: Literal["list"] = "list"


class RequestCounts(msgspec.Struct, frozen=True, gc=False):
    total: int
    completed: int
    failed: int


class InputDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True, gc=False):
    reasoning_tokens: int = 0


class BatchUsage(msgspec.Struct, frozen=True, gc=False):
    """Of the rows so far."""

    input_tokens: int
    output_tokens: int
    total_tokens: int
    input_tokens_details: InputDetails = InputDetails()
    output_tokens_details: OutputDetails = OutputDetails()


class BatchObject(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """A job as OpenAI shows it. Times in Unix seconds. ``paused``: why nothing goes on at the moment, as a full disk;
    our own."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    completion_window: str
    status: str
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None
    expires_at: int
    finalizing_at: int | None
    completed_at: int | None
    failed_at: int | None
    expired_at: int | None
    cancelling_at: int | None
    cancelled_at: int | None
    request_counts: RequestCounts
    usage: BatchUsage
    metadata: dict[str, str] | None
    paused: str | None


class BatchList(msgspec.Struct, frozen=True, gc=False):
    """A page of them, newest first."""

    data: list[BatchObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


_body = Body(BatchBody)


class BatchEndpoints:
    """``jobs``: None where nothing is kept, and there are no jobs."""

    def __init__(self, jobs: Jobs | None) -> None:
        self._jobs = jobs

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", PATH, self.create),
            Route("GET", PATH, self.list),
            Route("GET", PATH + "/{batch}", self.state),
            Route("POST", PATH + "/{batch}/cancel", self.cancel),
        )

    async def create(self, call: Call, _: str) -> None:
        jobs = require(self._jobs)
        body = _body.decode_closed(require_json_body(call))
        require_json(call.header(b"accept"))
        try:
            job = await jobs.create(_order(body, call))
        except HeadraceError as error:
            if error.code is not Code.NOT_FOUND:
                raise
            raise refuse("input_file_id", f"names no file: {body.input_file_id!r}") from None
        call.json(batch_object(job))

    async def list(self, call: Call, _: str) -> None:
        query = call.query()
        limit = asked_limit(query, MAX_LISTED)
        jobs = require(self._jobs)
        found = await jobs.list(call.tenant, query.get("after"), limit + 1)
        batches = [batch_object(job) for job in found]
        call.json(BatchList(*page(batches, [job.id for job in found], limit)))

    async def state(self, call: Call, id: str) -> None:
        call.json(batch_object(await require(self._jobs).find(id, call.tenant)))

    async def cancel(self, call: Call, id: str) -> None:
        call.json(batch_object(await require(self._jobs).cancel(id, call.tenant)))


def _order(body: BatchBody, call: Call) -> Order:
    """Raises ``INVALID_REQUEST``."""
    if body.endpoint not in ENDPOINTS:
        raise refuse("endpoint", f"must be one of {', '.join(ENDPOINTS)}")
    if body.metadata is not None and len(body.metadata) > 16:
        raise refuse("metadata", "has more than 16 entries")
    kept = body.output_expires_after
    return Order(
        tenant=call.tenant,
        key_id=call.key_id,
        endpoint=body.endpoint,
        input_file=body.input_file_id,
        window=body.completion_window,
        window_s=_window_s(body.completion_window),
        metadata=body.metadata,
        output_expires_s=None if kept is None else expires_s(kept.seconds),
    )


def _window_s(text: str) -> float:
    found = _WINDOW.fullmatch(text)
    seconds = float(int(found[1]) * _SECONDS[found[2]]) if found else 0.0
    if not 0 < seconds <= MOST_WINDOW_S:
        raise refuse("completion_window", "must be like 24h, 90m or 3d, and at most 30d")
    return seconds


def batch_object(job: Job) -> BatchObject:
    counts, usage, order = job.counts, job.usage, job.order

    def at(state: Any) -> int | None:
        return int(job.at[state]) if state in job.at else None

    return BatchObject(
        id=job.id,
        endpoint=order.endpoint,
        model=job.model,
        errors=BatchErrors(job.errors) if job.errors else None,
        input_file_id=order.input_file,
        completion_window=order.window,
        status=job.state,
        output_file_id=job.output_file if job.output_file in job.left else None,
        error_file_id=job.error_file if job.error_file in job.left else None,
        created_at=int(job.created_at),
        in_progress_at=at("in_progress"),
        expires_at=int(job.expires_at),
        finalizing_at=at("finalizing"),
        completed_at=at("completed"),
        failed_at=at("failed"),
        expired_at=at("expired"),
        cancelling_at=at("cancelling"),
        cancelled_at=at("cancelled"),
        request_counts=RequestCounts(counts.total, counts.completed, counts.failed),
        usage=BatchUsage(usage.prompt_tokens, usage.completion_tokens, usage.total_tokens),
        metadata=order.metadata,
        paused=job.paused,
    )
