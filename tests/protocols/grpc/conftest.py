"""What the tests of gRPC share: the port in front of scripted logs, and a client for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any

import grpc
import pytest

from headrace.domain.errors import HeadraceError
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.inference import SERVICE, Inference
from headrace.protocols.grpc.rpcs import Rpcs
from headrace.protocols.grpc.server import GrpcOptions, GrpcPort, fields_of
from headrace.protocols.grpc.stream import EventStreams
from headrace.protocols.grpc.web import Web


class Client:
    """The methods of the service by their names, as grpc's own generated stubs have them."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        for method in SERVICE.methods:
            kind = {
                (False, False): channel.unary_unary,
                (False, True): channel.unary_stream,
                (True, True): channel.stream_stream,
            }[method.client_streaming, method.server_streaming]
            made: Any = kind(
                f"/{SERVICE.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(pb, method.output_type.name).FromString,
            )
            setattr(self, method.name, made)


class Serving:
    """``streams``: what whoever stops the server closes. ``routes``: for the HTTP port."""

    def __init__(self, service: Any, **options: Any) -> None:
        self.streams = EventStreams()
        rpcs = Rpcs(service, Inference(service, self.streams).methods())
        self.routes = Web(rpcs).routes()
        self.port = GrpcPort(rpcs, GrpcOptions(**{"address": "127.0.0.1:0"} | options))


@contextlib.asynccontextmanager
async def talking(service: Any, **options: Any) -> AsyncIterator[tuple[Any, Serving]]:
    """A client of a service behind a real port, and the port."""
    serving = Serving(service, **options)
    await serving.port.start()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{serving.port.port}") as channel:
            yield Client(channel), serving
    finally:
        await serving.port.close()


async def refused(call: Any) -> grpc.aio.AioRpcError:
    """How a call failed."""
    try:
        if hasattr(call, "__aiter__"):
            async for _ in call:
                pass
        else:
            await call
    except grpc.aio.AioRpcError as error:
        return error
    raise AssertionError("it succeeded")


def trailers(error: grpc.aio.AioRpcError) -> dict[str, Any]:
    return dict(error.trailing_metadata())


def detail(error: grpc.aio.AioRpcError) -> pb.Error:
    """The detail of the status, as clients of google.rpc.Status find it."""
    status = pb.StatusDetails.FromString(trailers(error)["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    found = pb.Error()
    assert status.details[0].Unpack(found)
    return found


def fields(metadata: list[tuple[str, str | bytes]]) -> Any:
    """What a call with this metadata is understood by."""
    context: Any = SimpleNamespace(invocation_metadata=lambda: metadata)
    return fields_of(context)


class Rpc:
    """The names above, for tests: a conftest cannot be imported."""

    Client = Client
    Serving = Serving
    pb = pb
    Error = HeadraceError
    fields = staticmethod(fields)
    talking = staticmethod(talking)
    refused = staticmethod(refused)
    trailers = staticmethod(trailers)
    detail = staticmethod(detail)


@pytest.fixture(scope="session")
def rpc() -> type[Rpc]:
    return Rpc
