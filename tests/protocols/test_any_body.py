"""Whatever body and head come to an endpoint of HTTP, in front of a whole service: the answer is proper, and
nothing is left of it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Coroutine, Iterator
from typing import Any

import pytest
import uvloop
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import calm, examples
from tests.protocols.grpc.place import Exchange, Place
from tests.protocols.grpc.shapes import ENDED, HANGS, METADATA, RUNNING, TEXTS, UNKNOWN_ID, damaged

from headrace.front.exchange import Head
from headrace.protocols.openapi.document import EXAMPLES, OPERATIONS

IMPROPER = {500, 502}
"""What only we or an engine could be to blame for."""
IDS = (ENDED, RUNNING, UNKNOWN_ID, "resp_" + RUNNING[4:], "msg_" + ENDED[4:], "none", "%ff", "a/b")
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from(
    [
        *("model", "messages", "input", "prompt", "content", "role", "type", "stream", "n", "stop"),
        *("max_tokens", "tools", "tool_choice", "response_format", "text", "background", "store"),
        *("instructions", "previous_response_id", "metadata", "system", "echo", "logprobs", "seed"),
        *(
            "tool_calls",
            "tool_call_id",
            "name",
            "stream_options",
            "thinking",
            "session_id",
            "token",
        ),
    ]
)
_HEADERS = st.sampled_from(
    [
        (b"accept", b"application/x-ndjson"),
        (b"accept", b"application/json;q=0, text/event-stream"),
        (b"accept", b"text/html"),
        (b"last-event-id", b"1"),
        (b"last-event-id", b"x"),
        (b"x-generation-id", ENDED.encode()),
        (b"x-generation-id", RUNNING.encode()),
        (b"content-type", b"text/plain"),
        (b"content-type", b"application/json; charset=latin-1"),
    ]
)
_QUERIES = st.sampled_from(
    [
        *("", "", "stream=true", "stream=true&starting_after=2", "starting_after=-1", "after=2"),
        *("after=99", "format=openai", "format=anthropic&after=1", "format=responses", "limit=0"),
        *(
            "format=none",
            "order=asc",
            "token=rt_x",
            "session_id=%00",
            "%ff=%",
            "a&" * 40,
            "model=m",
        ),
    ]
)


@st.composite
def changed(draw: st.DrawFn, value: Any) -> Any:
    """A value with some of what is in it another, more, or not there."""
    if isinstance(value, dict):
        made = {name: draw(changed(one)) for name, one in value.items() if draw(_MOSTLY)}
        if draw(_SELDOM):
            made[draw(NAMES | TEXTS)] = draw(VALUES)
        return made
    if isinstance(value, list) and value:
        return [draw(changed(one)) for one in value] * draw(st.sampled_from([1, 1, 1, 0, 2]))
    return draw(VALUES) if draw(_SELDOM) else value


_SELDOM = st.sampled_from([False] * 7 + [True])
_MOSTLY = st.sampled_from([True] * 15 + [False])


@st.composite
def requests(draw: st.DrawFn) -> tuple[Head, bytes]:
    """To any endpoint: from its example to rubbish."""
    operation = draw(st.sampled_from(OPERATIONS))
    head = Head(operation.method, operation.path, "", ())
    if "{id}" in operation.path:
        head.path = operation.path.replace("{id}", draw(st.sampled_from(IDS)))
    head.query = draw(_QUERIES)
    head.headers = (*draw(st.lists(_HEADERS, max_size=1)), *draw(METADATA))
    kind = operation.body
    if kind is None or kind is bytes:
        return head, draw(st.sampled_from([b"", b"", b"{}", b"x"]))
    one = EXAMPLES[(kind[0] if isinstance(kind, list) else kind).__name__]
    body = [one] * draw(st.integers(0, 2)) if isinstance(kind, list) else one
    text = json.dumps(draw(changed(body))).replace('"smollm2-135m"', '"m"').encode()
    if draw(st.booleans()):
        text = text.replace(b"The mill", HANGS.encode()).replace(b"Why is", HANGS.encode())
    return head, draw(damaged(text)) if draw(_SELDOM) else text


@pytest.fixture(scope="module")
def run() -> Iterator[Callable[[Coroutine[Any, Any, Any]], Any]]:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner.run


@pytest.fixture(scope="module")
def place(run: Any) -> Iterator[Place]:
    place = run(Place().open())
    yield place
    run(place.api.close())


def check(got: Exchange) -> None:
    """An answer is JSON, or a stream whose messages are and that has one end."""
    assert got.status not in IMPROPER, got.answer
    if got.content_type == "application/json":
        json.loads(got.answer)
    elif got.content_type.startswith("application/x-ndjson"):
        assert [json.loads(line) for line in got.answer.splitlines()]
    elif got.content_type.startswith("text/event-stream"):
        blocks = got.answer.decode().split("\n\n")
        assert blocks.pop() == ""
        for block in blocks:
            data = block.rpartition("data: ")[2]
            assert data == "[DONE]" or json.loads(data)


@examples(400)
@given(requests())
def test_any_request_has_a_proper_answer_and_leaves_nothing(
    run: Any, place: Place, asked: tuple[Head, bytes]
) -> None:
    async def main() -> None:
        await place.refresh()
        head, body = asked
        head.path = place.named(head.path.encode()).decode()
        head.headers = tuple((name, place.named(value)) for name, value in head.headers)
        got = await place.answer(Exchange(head, place.named(body)))
        if got.over:
            check(got)

    with calm():
        run(main())
