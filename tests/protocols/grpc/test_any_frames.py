"""Whatever comes to the gRPC port, whole or in pieces, over HTTP/2 or not: it serves on, and nothing is left of it."""

from __future__ import annotations

import asyncio
import contextlib
import re
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    ResponseReceived,
    StreamEnded,
    StreamReset,
    TrailersReceived,
)
from h2.exceptions import ProtocolError
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import calm, examples
from tests.protocols.grpc.bodies import framed
from tests.protocols.grpc.place import MESSAGE_BYTES, PROPER, Place
from tests.protocols.grpc.shapes import METADATA, METHODS, PATH, damaged, message_bytes

from headrace.front.limits import Limits
from headrace.front.listen import FrontOptions, listen
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.wires import refusal

_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")


class Served:
    """A place and its port."""

    def __init__(self) -> None:
        self.place = Place()

    async def open(self) -> Served:
        await self.place.open()
        services = self.place.services
        options = FrontOptions(
            port=0,
            refuse=refusal,
            opens=services.wires.opens,
            limits=Limits(body_bytes=MESSAGE_BYTES),
        )
        self.front = await listen(services.alone(self.place.api.handle), options)
        self.channel = grpc.aio.insecure_channel(self.front.address)
        return self

    async def close(self) -> None:
        await self.channel.close()
        self.place.services.close()
        await self.front.close(1.0)

    async def judge(self) -> None:
        """It serves on, and of all before nothing is left."""
        infer = self.channel.unary_unary(PATH + "Infer")
        answer = await infer(pb.InferRequest(prompt="Hi").SerializeToString(), timeout=20)
        assert pb.InferResponse.FromString(answer).text
        async with asyncio.timeout(20):
            while len(self.place.streams) or self.place.house.in_use > self._durable():  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        await self.place.judge()

    def _durable(self) -> int:
        logs = self.place.house.hub.running()
        return sum(log.header.caller.leaving.durable for log in logs)


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner() as runner:
        yield runner.run


@pytest.fixture(scope="module")
def served(run: Any) -> Iterator[Served]:
    served = run(Served().open())
    yield served
    run(served.close())


def metadata_of(fields: tuple[tuple[bytes, bytes], ...]) -> list[tuple[str, str]]:
    """What of it grpc's own client sends."""
    found = [(name.decode(), value.decode("latin-1")) for name, value in fields]
    return [field for field in found if re.fullmatch(r"[\x20-\x7e]*", field[1])]


@examples(60)
@given(st.data())
def test_any_message_from_a_real_client(run: Any, served: Served, data: Any) -> None:
    name = data.draw(st.sampled_from(list(METHODS)))
    count = data.draw(st.integers(0, 3)) if name == "Converse" else 1
    sent = [data.draw(message_bytes(name)) for _ in range(count)]
    metadata = metadata_of(data.draw(METADATA))
    hangs_up = data.draw(st.booleans())

    async def main() -> None:
        place, channel = served.place, served.channel
        await place.refresh()
        says = [place.named(one) for one in sent]
        options: dict[str, Any] = {"metadata": metadata, "timeout": 0.1}
        call: Any
        if name == "Converse":
            call = channel.stream_stream(PATH + name)(iter(says), **options)
        else:
            call = channel.unary_stream(PATH + name)(says[0], **options)
        code = 0
        try:
            async for _ in call:
                if hangs_up:
                    call.cancel()
                    break
        except grpc.aio.AioRpcError as error:
            # Its own failure, of a write after the answer, may come before the answer's status.
            if not str(error.details()).startswith("Internal error from Core"):
                code = error.code().value[0]
        assert code in PROPER
        del call
        await served.judge()

    with calm():
        run(main())


class Raw:
    """A client of HTTP/2 that may send anything in DATA frames."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer
        self.http2 = H2Connection(H2Configuration(header_encoding=None))
        self.status: int | None = None
        self.over = False

    @classmethod
    async def open(cls, port: int) -> Raw:
        raw = cls(*await asyncio.open_connection("127.0.0.1", port))
        raw.http2.initiate_connection()
        raw.flush()
        return raw

    def flush(self) -> None:
        self.writer.write(self.http2.data_to_send())

    def begin(self, path: str, fields: tuple[tuple[bytes, bytes], ...]) -> None:
        head = [
            (b":method", b"POST"),
            (b":scheme", b"http"),
            (b":path", path.encode()),
            (b":authority", b"x"),
            (b"te", b"trailers"),
            (b"content-type", b"application/grpc"),
            *fields,
        ]
        self.http2.send_headers(1, head)
        self.flush()

    def send(self, data: bytes, *, last: bool) -> None:
        try:
            self.http2.send_data(1, data, end_stream=last)
        except ProtocolError:
            return  # it has been reset, or the window is full
        self.flush()

    async def end(self) -> None:
        """Read until the call is over for this client."""
        async with asyncio.timeout(20):
            while not self.over:
                data = await self.reader.read(65536)
                if not data:
                    return
                try:
                    for event in self.http2.receive_data(data):
                        self._take(event)
                except ProtocolError:
                    return  # the connection is over, and the server said more
                self.flush()

    def _take(self, event: Event) -> None:
        match event:
            case ResponseReceived(headers=headers) | TrailersReceived(headers=headers):
                found = dict(headers or ()).get(b"grpc-status")
                self.status = self.status if found is None else int(found)
            case DataReceived(flow_controlled_length=size, stream_id=stream):
                self.http2.acknowledge_received_data(size or 0, stream or 0)
            case StreamEnded() | StreamReset() | ConnectionTerminated():
                self.over = True

    async def close(self) -> None:
        self.writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


_NAMES = st.sampled_from(["", "headrace.v1.InferenceService", "headrace.v1.Event", "none"])
_ASKED = st.sampled_from(["host", "list_services", "file_by_filename", "file_containing_symbol"])
_OTHERS: dict[str, st.SearchStrategy[Any]] = {
    "/grpc.health.v1.Health/Check": st.builds(health_pb2.HealthCheckRequest, service=_NAMES),
    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo": st.builds(
        lambda asked, name: reflection_pb2.ServerReflectionRequest(**{asked: name}), _ASKED, _NAMES
    ),
    PATH + "Nothing": st.builds(pb.InferRequest, prompt=_NAMES),
}
PATHS = {PATH + name: message_bytes(name) for name in METHODS}
for _path, _messages in _OTHERS.items():
    _whole = _messages.map(lambda made: made.SerializeToString())
    PATHS[_path] = _whole | _whole.flatmap(damaged) | st.binary(max_size=30)


@st.composite
def pieces(draw: st.DrawFn, path: str) -> list[bytes]:
    """A call's messages in their envelopes, damaged, and split anywhere."""
    count = draw(st.sampled_from([1, 1, 1, 0, 2, 3]))
    body = b"".join(draw(framed(draw(PATHS[path]))) for _ in range(count))
    if draw(st.booleans()):
        body = draw(damaged(body))
    cuts = sorted(draw(st.lists(st.integers(0, len(body)), max_size=4)))
    edges = zip([0, *cuts], [*cuts, len(body)], strict=True)
    return [body[start:end] for start, end in edges]


@examples(60)
@given(st.data())
def test_any_frames_over_http2(run: Any, served: Served, data: Any) -> None:
    path = data.draw(st.sampled_from(list(PATHS)))
    sent = data.draw(pieces(path))
    encoding = data.draw(st.sampled_from([(), ((b"grpc-encoding", b"gzip"),)]))
    timeout = data.draw(st.sampled_from([b"40m", b"0n", b"200m", b"soon"]))
    metadata = (*data.draw(METADATA), *encoding, (b"grpc-timeout", timeout))
    leaves = data.draw(st.sampled_from(["never", "never", "early", "half"]))

    async def main() -> None:
        await served.place.refresh()
        raw = await Raw.open(served.front.port)
        try:
            await talk(raw)
        finally:
            await raw.close()
        await served.judge()

    async def talk(raw: Raw) -> None:
        try:
            raw.begin(path, metadata)
        except ProtocolError:
            return  # no client can send this
        for at, piece in enumerate(map(served.place.named, sent)):
            raw.send(piece, last=at == len(sent) - 1 and leaves != "half")
            await asyncio.sleep(0)
        if leaves == "never":
            await raw.end()
            # A field with a control character in it is no header: the stream is reset.
            fields = b"".join(value for _, value in metadata)
            assert raw.status in PROPER or (raw.status is None and _CONTROL.search(fields))

    with calm():
        run(main())
