"""A server that takes and gives tensors as base64 in JSON, as peers without a binary form do: on our own front, and
with the fastest JSON there is, so that the format is all that differs. Run by ``benchmarks.tensors``."""

from __future__ import annotations

import asyncio
import sys
from base64 import b64decode, b64encode

import msgspec
import numpy as np
import uvloop

from headrace.front.exchange import Exchange
from headrace.front.limits import Limits
from headrace.front.listen import FrontOptions, listen


class Body(msgspec.Struct):
    shape: list[int]
    data: str


_decode = msgspec.json.Decoder(Body).decode
_encode = msgspec.json.Encoder().encode


def answer(exchange: Exchange) -> None:
    """The same tensor, from memory of its own."""
    if exchange.head.method == "GET":
        exchange.respond(200, (), b"")
        return
    body = _decode(exchange.body)
    array = np.frombuffer(b64decode(body.data), np.float32).reshape(body.shape)
    given = Body(body.shape, b64encode(array.tobytes()).decode())
    exchange.respond(200, ((b"content-type", b"application/json"),), _encode(given))


async def main(port: int) -> None:
    await listen(answer, FrontOptions(port=port, limits=Limits(body_bytes=1 << 30)))
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(int(sys.argv[1])))
