"""Messages of a call whose client streams, however their bytes come."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.codec import CODECS
from headrace.protocols.grpc.framing import Grpc
from headrace.protocols.grpc.incoming import Incoming
from headrace.protocols.grpc.rpcs import Method

LIMIT = 1000
METHOD = Method("/x", pb.ConverseRequest, pb.Event, streams=True, safe=False)


class Exchange:
    """The arriving side. ``taken``: what there was credit for."""

    def __init__(self) -> None:
        self.on_data: Any = None
        self.taken = 0

    def take(self, size: int) -> None:
        self.taken += size


def incoming() -> tuple[Exchange, Incoming]:
    exchange = Exchange()
    framing = Grpc(CODECS["proto"], METHOD, "application/grpc")
    return exchange, Incoming(exchange, framing, {}, LIMIT)  # type: ignore[arg-type]


def envelope(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


@pytest.mark.parametrize("size", [1, 3, 7, 1000])
def test_messages_are_whole_however_they_are_cut(kit: Any, size: int) -> None:
    messages = [b"", b"a" * 10, b"b" * LIMIT, b"", b"c"]
    data = b"".join(map(envelope, messages))

    async def main() -> None:
        exchange, reader = incoming()

        async def send() -> None:
            for at in range(0, len(data), size):
                exchange.on_data(data[at : at + size])
                await asyncio.sleep(0)
            exchange.on_data(b"")

        sending = asyncio.create_task(send())
        found = []
        while (message := await reader.following()) is not None:
            found.append(message)
        await sending
        assert found == messages
        assert exchange.taken == len(data)

    kit.run(main())


def test_nothing_is_taken_before_it_is_asked_for(kit: Any) -> None:
    async def main() -> None:
        exchange, reader = incoming()
        two = envelope(b"a") + envelope(b"b")
        exchange.on_data(two)
        assert await reader.following() == b"a"
        assert await reader.following() == b"b"
        assert exchange.taken == 0
        waits = asyncio.create_task(reader.following())
        await asyncio.sleep(0)
        assert exchange.taken == len(two)
        reader.close()
        assert await waits is None

    kit.run(main())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (envelope(b"x" * (LIMIT + 1)), Code.BODY_TOO_LARGE),
        (b"\0\0\0\xff\xff", Code.BODY_TOO_LARGE),
        (b"\0\0\0", Code.INVALID_REQUEST),
        (envelope(b"abc")[:-1], Code.INVALID_REQUEST),
        (b"\x01\0\0\0\x01a", Code.INVALID_REQUEST),
    ],
)
def test_what_is_no_message_is_refused(kit: Any, data: bytes, code: Code) -> None:
    async def main() -> None:
        exchange, reader = incoming()
        exchange.on_data(data)
        exchange.on_data(b"")
        with pytest.raises(HeadraceError) as raised:
            await reader.following()
        assert raised.value.code == code

    kit.run(main())
