"""gRPC, gRPC-Web and Connect: the methods, answered through an exchange of HTTP.

A route for each method; which protocol a request speaks, its content type says. gRPC needs the trailers of
HTTP/2. Clients whose requests cannot be streamed (browsers) use all but ``Converse``; one that sends all its
messages at once may use that too. https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md,
https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-WEB.md, https://connectrpc.com/docs/protocol
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from math import inf

from headrace.domain.errors import MEANINGS, Code, HeadraceError
from headrace.protocols.allowances import Named, openai_allowance
from headrace.protocols.call import Call
from headrace.protocols.errors import Header, error_headers
from headrace.protocols.exchange import Head
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.codec import CODECS
from headrace.protocols.grpc.compression import ACCEPTED
from headrace.protocols.grpc.connect_query import read_query
from headrace.protocols.grpc.framing import (
    CONNECT_MANNER,
    ConnectStream,
    ConnectUnary,
    Framing,
    Grpc,
    GrpcWeb,
    GrpcWebText,
    status_fields,
)
from headrace.protocols.grpc.incoming import Incoming
from headrace.protocols.grpc.rpcs import Method, Rpcs
from headrace.protocols.grpc.status import Status, status_of
from headrace.protocols.hosts import check_host
from headrace.protocols.pending import Pending
from headrace.protocols.port import Service
from headrace.protocols.router import Route

_TIMEOUT = re.compile(r"(\d{1,8})([HMSmun])")
_SECONDS = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}
_CONNECT_TIMEOUT = re.compile(r"\d{1,10}")
GRPC = b"application/grpc"
_INTERNAL = 13
KEYLESS_BYTES = 64 * 1024
"""Of a message in the course of a call that anybody may make."""

_FRAMINGS: dict[str, tuple[type[Framing], str]] = {
    "application/grpc": (Grpc, "proto"),
    "application/grpc+proto": (Grpc, "proto"),
    "application/grpc+json": (Grpc, "json"),
    "application/grpc-web": (GrpcWeb, "proto"),
    "application/grpc-web+proto": (GrpcWeb, "proto"),
    "application/grpc-web+json": (GrpcWeb, "json"),
    "application/grpc-web-text": (GrpcWebText, "proto"),
    "application/grpc-web-text+proto": (GrpcWebText, "proto"),
    "application/connect+proto": (ConnectStream, "proto"),
    "application/connect+json": (ConnectStream, "json"),
    "application/proto": (ConnectUnary, "proto"),
    "application/json": (ConnectUnary, "json"),
}


LEEWAY_S = 0.02
"""A client's clock of a call began before ours: at its deadline it leaves, and may be here first."""


class Wires:
    """The methods as routes of the HTTP API. They are ``open`` there: a wrong key is a status of gRPC, not of HTTP.
    ``message_bytes``: the largest message of a call whose client streams, and of one that came compressed."""

    def __init__(self, rpcs: Rpcs, service: Service, message_bytes: int = 16 * 1024 * 1024) -> None:
        self._rpcs = rpcs
        self._service = service
        self._message_bytes = message_bytes

    def routes(self) -> Sequence[Route]:
        found = []
        for path, method in self._rpcs.methods.items():
            posted = partial(self._post, method)
            found.append(Route("POST", path, posted, open=True, manner=CONNECT_MANNER))
            if method.safe:
                got = partial(self._get, method)
                found.append(Route("GET", path, got, open=True, manner=CONNECT_MANNER))
        return found

    def opens(self, head: Head) -> bool:
        """Whether such a request is a call whose client streams: its messages are taken as they come."""
        method = self._rpcs.methods.get(head.path)
        if method is None or method.open is None:
            return False
        kind = dict(head.headers).get(b"content-type", b"")
        return kind == GRPC or kind.startswith((GRPC + b"+", GRPC + b";"))

    def _post(self, method: Method, call: Call, _: str) -> Pending | None:
        content_type = (call.header(b"content-type") or "").partition(";")[0].strip().lower()
        kind, codec = _FRAMINGS.get(content_type, (None, ""))
        if kind is None or kind.streams not in (None, method.streams or method.open is not None):
            raise HeadraceError(
                Code.UNSUPPORTED_MEDIA_TYPE,
                f"{content_type or 'No content type'} is none for {method.path}: gRPC, gRPC-Web and"
                " Connect are spoken here.",
            )
        exchange = call.exchange
        if kind is Grpc and not exchange.has_trailers:
            said = "gRPC needs HTTP/2; over HTTP/1.1 there are gRPC-Web and Connect."
            raise HeadraceError(Code.UNSUPPORTED_MEDIA_TYPE, said)
        framing = kind(CODECS[codec], method, content_type)
        return self._answer(method, call, framing, exchange.body, call.terms.fields)

    def _get(self, method: Method, call: Call, _: str) -> Pending | None:
        """Connect's other form of a call that changes nothing: its message is in the query."""
        said = read_query(call.exchange.head.query)
        framing = ConnectUnary(CODECS[said.codec], method, f"application/{said.codec}")
        return self._answer(method, call, framing, said.message, said.fields)

    def _answer(
        self,
        method: Method,
        call: Call,
        framing: Framing,
        body: bytes,
        fields: Mapping[bytes, bytes],
    ) -> Pending | None:
        exchange = call.exchange
        reply = WireReply(call, method.streams or framing.in_pieces, framing)
        rpc = self._rpcs.begun(
            method, call.terms, call.request_id, reply, framing.system, exchange.certificate
        )
        try:
            if call.terms.foreign is not None and not method.keyless:
                check_host(call, self._service)
            reply.limit(_timeout_s(rpc))
            if rpc.header(b"connect-protocol-version") not in (None, "1"):
                said = "`connect-protocol-version` must be 1."
                raise HeadraceError(Code.INVALID_REQUEST, said)
            if exchange.arrives:
                limit = KEYLESS_BYTES if method.keyless else self._message_bytes
                reply.incoming = Incoming(exchange, framing, fields, limit)
                return self._rpcs.converse(rpc, method, reply.incoming.following)
            messages = framing.messages(body, fields, self._message_bytes)
            if method.open is not None:
                return self._rpcs.converse(rpc, method, _one_by_one(messages))
            if len(messages) != 1:
                said = f"{method.path} takes one message; {len(messages)} came."
                raise HeadraceError(Code.INVALID_REQUEST, said)
        except HeadraceError as error:
            rpc.fail(error)
            return None
        return self._rpcs.ask(rpc, method, messages[0])


def refusal(status: int, message: str, head: Head | None) -> tuple[Sequence[Header], bytes]:
    """Headers and body for what the front of the gRPC port itself refuses; ``status`` is that of HTTP."""
    code = next((row.grpc for row in MEANINGS.values() if row.http == status), _INTERNAL)
    return [(b"content-type", GRPC), *status_fields(Status(code, message))], b""


class WireReply:
    """Implements ``Reply`` on an exchange. An answer of one message is sent whole, with its status."""

    __slots__ = (
        "_call",
        "_due",
        "_framing",
        "_named",
        "_on_gone",
        "_over",
        "_parts",
        "_streams",
        "_timer",
        "_under_way",
        "incoming",
    )

    def __init__(self, call: Call, streams: bool, framing: Framing) -> None:
        self._call = call
        self._streams = streams
        self._framing = framing
        self._parts: list[bytes] = []
        self._named: list[Header] = []
        self._under_way = False
        self._over = False
        self._due = inf
        self._timer: asyncio.TimerHandle | None = None
        self._on_gone: Callable[[], None] | None = None
        self.incoming: Incoming | None = None
        """What the client sends, if that comes in the course of the call."""

    def limit(self, timeout_s: float | None) -> None:
        """End the call after so many seconds. Raises ``GENERATION_TIMEOUT`` if there are none."""
        if timeout_s is not None and timeout_s <= 0:
            raise _too_late()
        if timeout_s is not None:
            loop = asyncio.get_running_loop()
            self._due = loop.time() + timeout_s
            self._timer = loop.call_at(self._due, self._deadline_passed)

    @property
    def late(self) -> bool:
        return asyncio.get_running_loop().time() >= self._due - LEEWAY_S

    def watch(self, on_gone: Callable[[], None], on_drain: Callable[[], None] | None) -> None:
        if self._over:
            on_gone()
            return
        exchange = self._call.exchange
        self._on_gone = on_gone
        exchange.on_gone = self._left
        exchange.on_drain = on_drain
        if exchange.gone:
            self._left()

    def start(self, request_id: str, generation_id: str, left: Sequence[Named]) -> None:
        named = self._named = [(self._framing.accepts, ACCEPTED), *_fields(left)]
        if generation_id:
            named.append((b"x-generation-id", generation_id.encode()))
        if self._streams and not self._over and not self._under_way:
            self._under_way = True
            call = self._call
            headers = [(b"content-type", self._framing.content_type.encode()), *named]
            headers += [(b"x-request-id", request_id.encode()), *call.terms.common]
            headers += self._framing.more_headers
            call.exchange.start(200, headers)

    def send(self, messages: Sequence[bytes]) -> bool:
        if self._over:
            return True
        frame = self._framing.message
        data = b"".join([frame(message) for message in messages])
        if self._under_way:
            return self._call.exchange.send(data)
        self._parts.append(data)
        return True

    def end(self, status: Status) -> None:
        if self._over:
            return
        self._left()
        data = self._framing.end(status)
        call = self._call
        if self._under_way:
            call.exchange.send(data)
            call.exchange.end(self._framing.trailers(status))
            return
        http, kind = self._framing.head(status)
        headers = [(b"content-type", kind.encode()), *self._named]
        if status.error is not None:
            headers += error_headers(status.error)
            if (left := status.error.allowance) is not None:
                headers += _fields(openai_allowance(left))
            self._parts.clear()
        call.respond(http, headers, b"".join([*self._parts, data]))

    def _left(self) -> None:
        """The call is over, for whatever reason."""
        on_gone, self._on_gone = self._on_gone, None
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self.incoming is not None:
            self.incoming.close()
        if on_gone is not None:
            on_gone()

    def _deadline_passed(self) -> None:
        if self._streams and not self._under_way:
            self.start(self._call.request_id, "", ())
        self.end(status_of(_too_late()))


def _fields(named: Sequence[Named]) -> list[Header]:
    return [(name.encode(), value.encode()) for name, value in named]


def _too_late() -> HeadraceError:
    return HeadraceError(Code.GENERATION_TIMEOUT, "The deadline of the call has passed.")


def _one_by_one(messages: list[bytes]) -> Callable[[], Awaitable[bytes | None]]:
    rest = iter(messages)

    async def following() -> bytes | None:
        return next(rest, None)

    return following


def _timeout_s(call: RpcCall) -> float | None:
    """The time that a client gives; None without a limit. Raises ``INVALID_REQUEST``."""
    asked = call.header(b"grpc-timeout")
    if asked is not None:
        found = _TIMEOUT.fullmatch(asked)
        if found is None:
            raise HeadraceError(Code.INVALID_REQUEST, "`grpc-timeout` must be like 100m or 5S.")
        return int(found[1]) * _SECONDS[found[2]]
    asked = call.header(b"connect-timeout-ms")
    if asked is not None:
        if _CONNECT_TIMEOUT.fullmatch(asked) is None:
            raise HeadraceError(
                Code.INVALID_REQUEST, "`connect-timeout-ms` must be a whole number."
            )
        return int(asked) / 1000
    return None
