"""Whatever message comes, and however it was damaged: the call has a proper status, and nothing is left of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import calm, examples
from tests.protocols.grpc.place import PROPER, Place
from tests.protocols.grpc.shapes import METADATA, METHODS, PATH, message_bytes

from headrace.front.exchange import Head
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.rpcs import Method
from headrace.protocols.grpc.status import Status
from headrace.protocols.grpc.tracing import GRPC
from headrace.protocols.terms import Terms

TRAILERS_BYTES = 8 * 1024
"""What clients of gRPC take at least."""


class Kept:
    """Implements ``Reply``: keeps what was sent. ``room``: messages after which its client reads no more."""

    late = False

    def __init__(self, room: int) -> None:
        self.room = room
        self.sent: list[bytes] = []
        self.started = 0
        self.status: Status | None = None
        self.on_gone: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None

    def watch(self, on_gone: Callable[[], None], on_drain: Callable[[], None] | None) -> None:
        if self.status is not None:
            on_gone()
        else:
            self.on_gone, self.on_drain = on_gone, on_drain

    def start(self, request_id: str, generation_id: str) -> None:
        self.started += 1

    def send(self, messages: Sequence[bytes]) -> bool:
        if self.status is None:
            assert self.started == 1
            self.sent += messages
        return len(self.sent) != self.room

    def end(self, status: Status) -> None:
        if self.status is None:
            self.status = status._replace(error=None)  # it holds frames, and these hold this
            self.leave()

    def drain(self) -> None:
        self.room = 0
        if self.on_drain is not None:
            self.on_drain()

    def leave(self) -> None:
        """Its client is gone, or it is over."""
        on_gone, self.on_gone, self.on_drain = self.on_gone, None, None
        if on_gone is not None:
            on_gone()


def begun(place: Place, method: Method, metadata: Any, reply: Kept) -> RpcCall:
    terms = Terms(Head("POST", method.path, "", metadata))
    return place.rpcs.begun(method, terms, "req_1", reply, GRPC)


async def judge(place: Place, reply: Kept) -> None:
    """After a call: it has a proper status, or its client leaves now; then nothing is left of it."""
    await place.settle()
    reply.drain()
    await place.settle()
    if reply.status is None:
        assert place.house.service.busy
        reply.leave()
    else:
        assert reply.status.code in PROPER
        assert size_of(reply.status) < TRAILERS_BYTES
    await place.judge()
    assert sys.getrefcount(reply) == 3, (
        "somebody keeps the call"
    )  # we, who called us, and who counts


def size_of(status: Status) -> int:
    """Bytes of a status on the wire, as HTTP/2 counts them, at worst."""
    trailers = sum(len(name) + 32 + len(value) * 4 / 3 for name, value in status.trailers)
    return int(trailers) + 3 * len(status.message.encode())


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


@pytest.fixture(scope="module")
def place(run: Any) -> Place:
    return run(Place().open())


@examples(250)
@given(st.data())
def test_any_message_has_a_proper_status_and_leaves_nothing(
    run: Any, place: Place, data: Any
) -> None:
    name = data.draw(st.sampled_from([name for name in METHODS if name != "Converse"]))
    sent = data.draw(message_bytes(name))
    metadata = data.draw(METADATA)
    room = data.draw(st.integers(0, 3))

    async def main() -> None:
        await place.refresh()
        reply = Kept(room)
        method = place.rpcs.methods[PATH + name]
        call = begun(place, method, metadata, reply)
        waiting = place.rpcs.ask(call, method, place.named(sent))
        if waiting is not None:
            await waiting
        del call, waiting
        await judge(place, reply)

    with calm():
        run(main())


@examples(200)
@given(st.lists(message_bytes("Converse"), max_size=5), METADATA, st.integers(0, 3), st.booleans())
def test_any_conversation_has_a_proper_status_and_leaves_nothing(
    run: Any, place: Place, says: list[bytes], metadata: Any, room: int, closes: bool
) -> None:
    async def main() -> None:
        await place.refresh()
        reply = Kept(room)
        rest = iter(says)
        method = place.rpcs.methods[PATH + "Converse"]

        async def following() -> bytes | None:
            said = next(rest, None)
            if said is None and not closes:
                await asyncio.Event().wait()
            await asyncio.sleep(0)
            return said and place.named(said)

        call = begun(place, method, metadata, reply)
        talk = asyncio.ensure_future(place.rpcs.converse(call, method, following))
        await place.settle()
        talk.cancel()
        await asyncio.wait([talk])
        del call, talk
        await judge(place, reply)

    with calm():
        run(main())
