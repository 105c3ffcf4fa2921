"""What the tests of gRPC share: the port in front of scripted logs, and a client for it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest

from headrace.domain.errors import HeadraceError
from headrace.front.limits import Limits
from headrace.front.listen import FrontOptions, listen
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.inference import SERVICE
from headrace.protocols.grpc.services import Services
from headrace.protocols.grpc.wires import refusal


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
    """A port with nothing but gRPC. ``routes``: for the HTTP port."""

    def __init__(self, service: Any, message_bytes: int = 16 * 1024 * 1024, **options: Any) -> None:
        self.services = Services(service, message_bytes)
        self.routes = self.services.wires.routes()
        self._api = Api(service, ApiOptions(), more=self.routes)
        self._options = FrontOptions(
            **{"port": 0} | options,
            refuse=refusal,
            opens=self.services.opens,
            limits=Limits(body_bytes=message_bytes),
        )

    async def start(self) -> None:
        handler = self.services.alone(self._api.handle)
        self._front = await listen(handler, self._options)
        self.address = self._front.address

    async def close(self) -> None:
        self.services.close()
        await self._front.close(1.0)
        await self._api.close()


@contextlib.asynccontextmanager
async def talking(service: Any, **options: Any) -> AsyncIterator[tuple[Any, Serving]]:
    """A client of a service behind a real port, and the port."""
    serving = Serving(service, **options)
    await serving.start()
    try:
        async with grpc.aio.insecure_channel(serving.address) as channel:
            yield Client(channel), serving
    finally:
        await serving.close()


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


class Rpc:
    """The names above, for tests: a conftest cannot be imported."""

    Client = Client
    Serving = Serving
    pb = pb
    Error = HeadraceError
    talking = staticmethod(talking)
    refused = staticmethod(refused)
    trailers = staticmethod(trailers)
    detail = staticmethod(detail)


@pytest.fixture(scope="session")
def rpc() -> type[Rpc]:
    return Rpc
