"""Whatever body comes to a method over HTTP, its client can read the answer, and nothing is left of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import assume, given
from hypothesis import strategies as st
from tests.fuzzing import calm, examples
from tests.protocols.grpc.bodies import Asked, asked, body_of, in_json, kind_for, understood
from tests.protocols.grpc.place import PROPER, Exchange, Place
from tests.protocols.grpc.shapes import METADATA, METHODS, PATH, message

from headrace.front.exchange import Head

REFUSALS = {400, 404, 405, 413, 415}
"""Of HTTP itself: what is no call of a method."""


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


@pytest.fixture(scope="module")
def place(run: Any) -> Iterator[Place]:
    place = run(Place().open())
    yield place
    run(place.api.close())


async def answered(place: Place, one: Asked) -> Exchange:
    kind = (b"content-type", one.kind.encode())
    head = Head("POST", PATH + one.method, "", (kind, *one.headers))
    return await place.answer(Exchange(head, place.named(one.body)))


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


_QUERY: dict[str, st.SearchStrategy[str]] = {
    "connect": st.sampled_from(["v1", "v2", ""]),
    "encoding": st.sampled_from(["proto", "json", "json", "text"]),
    "message": st.sampled_from(["{}", "%7B%22model%22:%22m%22%7D", "", "eyJtb2RlbCI6Im0ifQ", "%ff"])
    | st.text('{}"%aE=+&', max_size=12),
    "base64": st.sampled_from(["1", "0", "yes"]),
    "compression": st.sampled_from(["identity", "gzip", "br", ""]),
}
QUERIES = st.lists(st.sampled_from(list(_QUERY)), max_size=6).flatmap(
    lambda names: st.tuples(*[_QUERY[name].map(f"{name}={{}}".format) for name in names])
)


@examples(150)
@given(QUERIES, METADATA)
def test_any_query_of_a_call_by_get_has_an_answer_that_its_client_can_read(
    run: Any, place: Place, query: tuple[str, ...], metadata: Any
) -> None:
    async def main() -> None:
        await place.refresh()
        head = Head("GET", PATH + "GetModelInfo", "&".join(query), metadata)
        got = await place.answer(Exchange(head, b""))
        assert got.over
        if got.status != 200:
            assert json.loads(got.answer)["code"] not in ("internal", "unknown")

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
