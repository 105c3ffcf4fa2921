"""The gRPC port: :mod:`grpc.aio` in front of the methods, with health and reflection.

Flow control: a call keeps what is not yet sent, up to ``HIGH_WATER_BYTES``; ``context.write`` returns when HTTP/2
has taken a message, and one message of a call is under way at a time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import grpc
import msgspec
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import aio as health
from grpc_reflection.v1alpha import reflection

from headrace.protocols.grpc.call import HIGH_WATER_BYTES, LOW_WATER_BYTES
from headrace.protocols.grpc.rpcs import Fields, Method, Rpcs
from headrace.protocols.grpc.status import OK, Status

_CODES = {code.value[0]: code for code in grpc.StatusCode}
_KEEPALIVE = (
    ("grpc.keepalive_time_ms", 60_000),  # a client that lost its power is noticed in 80 s
    ("grpc.keepalive_timeout_ms", 20_000),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),  # as often as clients may ask
)
_STOP_S = 1.0
"""For what is being sent when the port closes."""
_EARLY_S = 0.1
"""So much earlier a client may give up than its deadline passes here: its clock began before the call came."""

Context = grpc.aio.ServicerContext[bytes, bytes]


class GrpcOptions(msgspec.Struct, frozen=True, kw_only=True):
    """``address``: ``host:port`` (0 takes a free port) or ``unix:PATH``. ``certificate``, ``key``: PEM files."""

    address: str
    certificate: str | None = None
    key: str | None = None
    message_bytes: int = 16 * 1024 * 1024
    calls: int = 10_000


class GrpcPort:
    """Open from :meth:`start` to :meth:`close`."""

    def __init__(self, rpcs: Rpcs, options: GrpcOptions) -> None:
        self._rpcs = rpcs
        self._options = options
        self._health = health.HealthServicer()
        self._names = ["", *{method.split("/")[1] for method in rpcs.methods}]
        self._ready: bool | None = None
        self._server: grpc.aio.Server | None = None
        self.port = 0
        """As bound; 0 for a unix socket."""

    async def start(self) -> None:
        """Raises ``OSError`` for an address or a certificate that cannot be used."""
        options = self._options
        server = grpc.aio.server(
            options=[
                *_KEEPALIVE,
                ("grpc.so_reuseport", 0),  # or a port that is taken would be shared
                ("grpc.max_receive_message_length", options.message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", 64 * 1024),
            ],
            maximum_concurrent_rpcs=options.calls,
        )
        server.add_generic_rpc_handlers((_Handlers(self._rpcs),))
        health_pb2_grpc.add_HealthServicer_to_server(self._health, server)
        names = [*self._names[1:], health_pb2.DESCRIPTOR.services_by_name["Health"].full_name]
        reflection.enable_server_reflection([*names, reflection.SERVICE_NAME], server)
        try:
            self.port = self._bind(server)
        except OSError:
            await server.stop(None)
            raise
        self._server = server
        await self.look(False)
        await server.start()

    async def look(self, ready: bool) -> None:
        """Whether some model can serve: what the health service says from now on."""
        if ready == self._ready:
            return
        self._ready = ready
        state = health_pb2.HealthCheckResponse.ServingStatus
        for name in self._names:
            await self._health.set(name, state.SERVING if ready else state.NOT_SERVING)

    async def leave(self) -> None:
        """Say that this server is about to stop, so that nobody sends it more."""
        await self._health.enter_graceful_shutdown()

    async def close(self) -> None:
        """Take nothing more, and break what does not end now; idempotent."""
        server, self._server = self._server, None
        if server is not None:
            await server.stop(_STOP_S)

    def _bind(self, server: grpc.aio.Server) -> int:
        options = self._options
        try:
            if options.certificate is None:
                return server.add_insecure_port(options.address)
            chain = Path(options.certificate).read_bytes()
            key = Path(options.key or options.certificate).read_bytes()
            return server.add_secure_port(
                options.address, grpc.ssl_server_credentials([(key, chain)])
            )
        except RuntimeError as error:
            raise OSError(f"cannot serve gRPC on {options.address}: {error}") from None


class _Handlers(grpc.GenericRpcHandler):
    """The methods as grpc wants them, with messages as bytes. A method with one answer is one that streams, to
    grpc: on the wire they are the same."""

    def __init__(self, rpcs: Rpcs) -> None:
        self._handlers: dict[str, Any] = {}
        for path, method in rpcs.methods.items():
            if method.open is not None:
                converse: Any = partial(_converse, rpcs, method)
                self._handlers[path] = grpc.stream_stream_rpc_method_handler(converse)
            else:
                answer: Any = partial(_answer, rpcs, method)
                self._handlers[path] = grpc.unary_stream_rpc_method_handler(answer)

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._handlers.get(details.method)


async def _answer(rpcs: Rpcs, method: Method, message: bytes, context: Context) -> None:
    reply = AioReply(context)
    call = rpcs.call(method, fields_of(context), reply)
    try:
        waiting = rpcs.ask(call, method, message)
        if waiting is not None:
            await waiting
        await reply.run()
    finally:
        reply.gone()


async def _converse(
    rpcs: Rpcs, method: Method, messages: AsyncIterator[bytes], context: Context
) -> None:
    reply = AioReply(context)
    call = rpcs.call(method, fields_of(context), reply)

    async def following() -> bytes | None:
        return await anext(messages, None)

    listening = asyncio.create_task(rpcs.converse(call, method, following))
    try:
        await reply.run()
    finally:
        listening.cancel()
        reply.gone()


def fields_of(context: Context) -> Fields:
    """The metadata of a call as the headers of HTTP are."""
    return tuple(
        (name.encode("latin-1"), value if isinstance(value, bytes) else value.encode("latin-1"))
        for name, value in context.invocation_metadata() or ()
    )


class AioReply:
    """Implements ``Reply``. Others put in what is to be sent; :meth:`run`, in the task of the call, sends it."""

    __slots__ = (
        "_blocked",
        "_bytes",
        "_context",
        "_messages",
        "_metadata",
        "_on_drain",
        "_on_gone",
        "_over",
        "_status",
        "_wake",
    )

    def __init__(self, context: Context) -> None:
        self._context = context
        self._messages: deque[bytes] = deque()  # bounded: whoever puts in obeys `send`
        self._bytes = 0
        self._blocked = False
        self._metadata: tuple[tuple[str, str], ...] = ()
        self._status: Status | None = None
        self._over = False
        self._wake: asyncio.Future[None] | None = None
        self._on_gone: Callable[[], None] | None = None
        self._on_drain: Callable[[], None] | None = None

    @property
    def late(self) -> bool:
        left_s: Any = self._context.time_remaining()  # None without a deadline
        return left_s is not None and left_s <= _EARLY_S

    def watch(self, on_gone: Callable[[], None], on_drain: Callable[[], None] | None) -> None:
        if self._over or self._status is not None:
            on_gone()
        else:
            self._on_gone, self._on_drain = on_gone, on_drain

    def start(self, request_id: str, generation_id: str) -> None:
        self._metadata = (("x-request-id", request_id),)
        if generation_id:
            self._metadata += (("x-generation-id", generation_id),)
        self._awake()

    def send(self, message: bytes) -> bool:
        if self._over or self._status is not None:
            return True
        self._messages.append(message)
        self._bytes += len(message)
        if self._wake is not None:
            self._awake()
        if self._bytes > HIGH_WATER_BYTES:
            self._blocked = True
            return False
        return True

    def end(self, status: Status) -> None:
        if self._status is None:
            self._status = status
            self._tell()
            self._awake()

    def gone(self) -> None:
        """The call is over, for whatever reason."""
        self._over = True
        self._messages.clear()
        self._tell()

    def _tell(self) -> None:
        on_gone = self._on_gone
        self._on_gone = self._on_drain = None
        if on_gone is not None:
            on_gone()

    async def run(self) -> None:
        """Send until the end has been sent."""
        context, messages = self._context, self._messages
        loop = asyncio.get_running_loop()
        while True:
            if self._metadata:
                metadata, self._metadata = self._metadata, ()
                await context.send_initial_metadata(metadata)
            while messages:
                message = messages.popleft()
                await context.write(message)
                self._bytes -= len(message)
                if self._blocked and self._bytes < LOW_WATER_BYTES:
                    self._blocked = False
                    if self._on_drain is not None:
                        self._on_drain()
            if self._status is not None:
                self._finish(self._status)
                self._status = OK  # an error holds frames, and these hold this: no cycle is left
                return
            self._wake = loop.create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def _finish(self, status: Status) -> None:
        if status is not OK:
            self._context.set_code(_CODES[status.code])
            self._context.set_details(status.message)
            self._context.set_trailing_metadata(status.trailers)

    def _awake(self) -> None:
        wake = self._wake
        if wake is not None and not wake.done():
            wake.set_result(None)
