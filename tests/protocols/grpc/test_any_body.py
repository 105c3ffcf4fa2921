"""Whatever body comes to a method over HTTP, its client can read the answer, and nothing is left of it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.fuzzing import calm, examples
from tests.protocols.grpc.bodies import Asked, asked, body_of, in_json, kind_for, understood
from tests.protocols.grpc.place import PROPER, Place
from tests.protocols.grpc.shapes import METHODS, PATH, message

from headrace.front.exchange import Head

REFUSALS = {400, 404, 405, 413, 415}
"""Of HTTP itself: what is no call of a method."""


class Kept:
    """Implements ``Exchange``: keeps the answer."""

    def __init__(self, asked: Asked, body: bytes) -> None:
        kind = (b"content-type", asked.kind.encode())
        self.head = Head("POST", PATH + asked.method, "", (kind, *asked.headers))
        self.body = body
        self.on_gone: Callable[[], None] | None = None
        self.on_drain: Callable[[], None] | None = None
        self.gone = self.arrives = self.has_trailers = False
        self.status = 0
        self.content_type = ""
        self.answer = b""
        self.over = False

    def respond(self, status: int, headers: Any, body: bytes) -> None:
        self.start(status, headers)
        self.answer = body
        self.over = True

    def start(self, status: int, headers: Any) -> None:
        assert not self.status
        self.status = status
        self.content_type = dict(headers).get(b"content-type", b"").decode()

    def send(self, data: bytes) -> bool:
        assert self.status
        assert not self.over
        self.answer += data
        return True

    def end(self, trailers: Any = ()) -> None:
        assert self.status
        assert not self.over
        self.over = True

    def abort(self) -> None:
        raise AssertionError("the answer was broken off")

    def leave(self) -> None:
        self.gone = True
        on_gone, self.on_gone, self.on_drain = self.on_gone, None, None
        if on_gone is not None:
            on_gone()


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


@pytest.fixture(scope="module")
def place(run: Any) -> Iterator[Place]:
    place = run(Place().open())
    yield place
    run(place.api.close())


async def answered(place: Place, one: Asked) -> Kept:
    """What it was answered with, before its client left."""
    await place.refresh()
    exchange = Kept(one, place.named(one.body))
    place.api.handle(exchange)
    await place.settle()
    if not exchange.over:
        assert place.house.service.busy
    exchange.leave()
    await place.judge()
    assert sys.getrefcount(exchange) == 2, "somebody keeps the call"
    return exchange


@examples(400)
@given(asked())
def test_any_body_has_an_answer_that_its_client_can_read(
    run: Any, place: Place, one: Asked
) -> None:
    async def main() -> None:
        got = await answered(place, one)
        if got.over and got.status not in REFUSALS - {400}:
            assert understood(one, got.status, got.content_type, got.answer).code in PROPER

    with calm():
        run(main())


@examples(150)
@given(st.data())
def test_a_message_has_the_same_answer_over_any_wire(run: Any, place: Place, data: Any) -> None:
    name = data.draw(st.sampled_from([name for name in METHODS if name != "Converse"]))
    made = data.draw(message(name))
    kinds = data.draw(st.lists(kind_for(name), min_size=2, max_size=4, unique=True))
    assume(in_json(made) is not None)

    async def main() -> None:
        found = set()
        for kind in kinds:
            await place.refresh()
            known = type(made).FromString(place.named(made.SerializeToString()))
            one = Asked(name, kind, (), body_of(known, kind))
            got = await answered(place, one)
            if got.over:
                found.add(understood(one, got.status, got.content_type, got.answer).code)
            else:
                found.add(None)
        assert len(found) == 1

    run(main())
