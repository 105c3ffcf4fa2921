"""How a :class:`HeadraceError` is said as a gRPC status: number, message and trailing metadata.

https://grpc.io/docs/guides/status-codes/; the detail is packed as google.rpc.Status wants it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

from google.protobuf.any_pb2 import Any as Packed

from headrace.domain.errors import HeadraceError
from headrace.protocols.grpc import headrace_pb2 as pb

NAMES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND"),
    *("ALREADY_EXISTS", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION"),
    *("ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"),
    "UNAUTHENTICATED",
)
"""gRPC's, by number."""

Trailer = tuple[str, str | bytes]
"""A name in lower case; bytes only for names that end in ``-bin``."""


class Status(NamedTuple):
    """How a call ended. ``error``: None for a good end."""

    code: int = 0
    message: str = ""
    trailers: tuple[Trailer, ...] = ()
    error: HeadraceError | None = None


OK = Status()
_MESSAGE_BYTES = 1000
"""Of a message. It is in a status three times, and clients take 8 KiB of trailers; what a client sent may be in it."""


def status_of(error: HeadraceError, generation_id: str = "") -> Status:
    """The status of an error; ``generation_id``: of the generation it is about, where there is one."""
    code = error.meaning.grpc
    trailers: list[Trailer] = [
        ("headrace-code", error.code.value),
        ("x-should-retry", "true" if error.meaning.retryable else "false"),
    ]
    if error.retry_after_s is not None:
        trailers.append(("retry-after-ms", str(math.ceil(error.retry_after_s * 1000))))
    if generation_id:
        trailers.append(("x-generation-id", generation_id))
    message = _short(error.message)
    details = pb.StatusDetails(code=code, message=message, details=[packed(error)])
    trailers.append(("grpc-status-details-bin", details.SerializeToString()))
    return Status(code, message, tuple(trailers), error)


def packed(error: HeadraceError) -> Packed:
    """The error as a detail of a status."""
    detail = Packed()
    detail.Pack(error_message(error))
    return detail


def error_message(error: HeadraceError) -> pb.Error:
    return pb.Error(
        code=error.code.value,
        message=_short(error.message),
        retryable=error.meaning.retryable,
        param=_short(error.param or ""),
        retry_after_s=error.retry_after_s,
    )


def _short(text: str) -> str:
    data = text.encode()
    if len(data) <= _MESSAGE_BYTES:
        return text
    return data[:_MESSAGE_BYTES].decode(errors="ignore") + "…"
