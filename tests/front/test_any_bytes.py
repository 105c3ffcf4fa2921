"""However its bytes are split, a stream of requests is the same; whatever bytes come, the front lives on."""

from __future__ import annotations

import asyncio
import itertools

import pytest
import uvloop
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.front.body import ChunkedBody
from headrace.front.refusal import Refusal

TOKENS = st.text("abcXYZ019-_", min_size=1, max_size=12)
VALUES = st.text("ab c:;,=\t\xe9", max_size=12).map(str.strip)
BODIES = st.binary(max_size=60)


@pytest.fixture(scope="module")
def runner():
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        yield runner


@st.composite
def requests(draw):
    """A request's bytes, and what the handler must see of it."""
    path = "/" + draw(TOKENS)
    fields = draw(st.lists(st.tuples(TOKENS.map("x-".__add__), VALUES), max_size=4))
    head = "".join(f"{name}: {value}\r\n" for name, value in fields)
    body = draw(BODIES)
    kind = draw(st.sampled_from(["none", "sized", "chunked"]))
    method = "GET" if kind == "none" else "POST"
    data = f"{method} {path} HTTP/1.1\r\nHost: a\r\n{head}".encode("latin-1")
    if kind == "none":
        body = b""
        data += b"\r\n"
    elif kind == "sized":
        data += b"content-length: %d\r\n\r\n%b" % (len(body), body)
    else:
        data += b"transfer-encoding: chunked\r\n\r\n" + chunks(draw, body) + b"0\r\n\r\n"
    seen = [(name.lower().encode(), value.encode("latin-1")) for name, value in fields]
    return data, (method, path, seen, body)


def chunks(draw, body):
    out = b""
    while body:
        size = draw(st.integers(1, len(body)))
        out += b"%x\r\n%b\r\n" % (size, body[:size])
        body = body[size:]
    return out


def pieces(data, cuts):
    edges = [0, *sorted(cut % len(data) for cut in cuts), len(data)]
    return [data[a:b] for a, b in itertools.pairwise(edges) if a != b]


@settings(
    deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    st.lists(requests(), min_size=1, max_size=5),
    st.lists(st.integers(0, 10_000), max_size=30),
    st.booleans(),
)
def test_any_split_of_pipelined_requests_gives_the_same_exchanges(wire, runner, sent, cuts, hold):
    data = b"".join(request for request, _ in sent)

    async def main():
        handler = wire.Recorder(hold=hold)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            for piece in pieces(data, cuts):
                client.send(piece)
                await asyncio.sleep(0)
            for number in range(len(sent)):
                if hold:
                    await handler.until(lambda number=number: len(handler.seen) > number)
                    handler.seen[number].respond(200, (), b"%d" % number)
                assert (await wire.within(client.answer())).status == 200
            await client.close()
        got = [
            (
                exchange.head.method,
                exchange.head.path,
                [field for field in exchange.head.headers if field[0].startswith(b"x-")],
                exchange.body,
            )
            for exchange in handler.seen
        ]
        assert got == [expected for _, expected in sent]

    runner.run(main())


FRAGMENTS = st.sampled_from(
    [
        b"GET / HTTP/1.1\r\n",
        b"POST /x HTTP/1.1\r\nHost: a\r\n",
        b"Host: a\r\n",
        b"Content-Length: 3\r\n",
        b"Transfer-Encoding: chunked\r\n",
        b"Expect: 100-continue\r\n",
        b"Connection: close\r\n",
        b"\r\n",
        b"\n",
        b"\0",
        b"3\r\nabc\r\n",
        b"0\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\0\0\0\x04\0\0\0\0\0",
    ]
)
RUBBISH = st.lists(st.one_of(FRAGMENTS, st.binary(max_size=30)), max_size=12)


@settings(
    deadline=None, max_examples=300, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(RUBBISH, st.lists(st.integers(0, 10_000), max_size=8))
def test_no_bytes_raise_hang_or_leak(wire, runner, sent, cuts):
    data = b"".join(sent) or b"x"

    async def main():
        errors = []
        asyncio.get_running_loop().set_exception_handler(lambda _, context: errors.append(context))
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            for piece in pieces(data, cuts):
                client.send(piece)
                await asyncio.sleep(0)
            if not client.writer.is_closing():
                client.half_close()
            got = await wire.within(client.rest())
            if got.startswith(b"HTTP/1.1"):
                assert got[9:10] in b"1245"
            await wire.eventually(lambda: not front.connections)
        assert errors == []

    runner.run(main())


@given(st.binary(max_size=200), st.lists(st.integers(0, 10_000), max_size=20), st.data())
def test_a_chunked_body_survives_any_split(body, cuts, data):
    sent = chunks(data.draw, body) + b"0\r\nA: b\r\n\r\n" + b"the next request"
    chunked = ChunkedBody(1000)
    rest = None
    for piece in pieces(sent, cuts):
        if rest is not None:
            rest += piece
        else:
            rest = chunked.feed(piece)
    assert bytes(chunked.content) == body
    assert rest == b"the next request"


@given(st.binary(max_size=300), st.lists(st.integers(0, 10_000), max_size=8))
def test_a_split_never_makes_a_bad_body_good(data, cuts):
    def outcome(parts):
        chunked = ChunkedBody(1000)
        rest = None
        for part in parts:
            try:
                rest = chunked.feed(part) if rest is None else rest + part
            except Refusal as refusal:
                return refusal.status
        return bytes(chunked.content), rest

    sent = data or b"x"
    assert outcome([sent]) == outcome(pieces(sent, cuts))
