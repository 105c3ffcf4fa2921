"""A request whose head is that of an earlier one, but for its length, is taken by a short way: nothing shows it."""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

HEADS = [
    b"POST /a HTTP/1.1\r\nHost: h\r\nContent-Length: %b\r\n\r\n",
    b"POST /a HTTP/1.1\r\nHost: h\r\ncontent-length: %b\r\nX-A: 1\r\n\r\n",
    b"POST /a HTTP/1.1\r\nContent-Length: %b\r\nHost: h\r\nX-A: 2\r\n\r\n",
    b"PUT /b HTTP/1.1\r\nHost: h\r\nContent-Length:%b\r\n\r\n",
    b"POST /k HTTP/1.0\r\nConnection: keep-alive\r\nContent-Length: %b\r\n\r\n",
]
BODIES = [b"", b"x", b"\r\n\r\n", b"7\r\n\r\nbody", b"y" * 11, b"z" * 900, b"0\r\n\r\n"]
LENGTHS = [b"%d", b"0%d", b"%010d", b"%011d"]
requests = st.tuples(st.sampled_from(HEADS), st.sampled_from(LENGTHS), st.sampled_from(BODIES))


def as_seen(exchange):
    head = exchange.head
    return head.method, head.path, head.headers, head.http10, exchange.body


@settings(
    deadline=None, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(st.lists(requests, min_size=2, max_size=8))
def test_a_request_is_the_same_after_any_others(wire, sent):
    async def main():
        together, alone = wire.Recorder(), wire.Recorder()
        async with wire.serve(together) as front, wire.serve(alone) as other:
            client = await wire.Client.open(front)
            for head, length, body in sent:
                data = head % (length % len(body)) + body
                new = await wire.Client.open(other)
                answer, expected = await client.ask(data), await new.ask(data)
                assert (answer.status, answer.body) == (expected.status, expected.body)
                names = [name for name, _ in answer.headers]
                assert names == [name for name, _ in expected.headers]
                await new.close()
            await client.close()
        assert list(map(as_seen, together.seen)) == list(map(as_seen, alone.seen))

    wire.run(main())


def test_the_requests_share_what_is_known_of_their_head(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            one, two = await wire.Client.open(front), await wire.Client.open(front)
            for client in (one, two, one):
                for body in (b"a", b"four"):
                    await client.ask(HEADS[0] % b"%d" % len(body) + body)
            await one.ask(HEADS[1] % b"1" + b"a")
            await one.close()
            await two.close()
        first = handler.seen[0].head
        assert [exchange.head is first for exchange in handler.seen] == [True] * 6 + [False]

    wire.run(main())


@pytest.mark.parametrize(
    ("second", "status"),
    [
        (b"6", 413),  # larger than allowed
        (b"5, 5", 400),
        (b"+5", 400),
        (b"5\r\nTransfer-Encoding: chunked", 400),
        (b"5\r\nContent-Length: 4", 400),
    ],
)
def test_what_is_refused_is_refused_after_a_good_one_too(wire, second, status):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, limits={"body_bytes": 5}) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(HEADS[0] % b"5" + b"12345")).status == 200
            assert (await client.ask(HEADS[0] % second + b"123456")).status == status
            await client.close()
        assert len(handler.seen) == 1

    wire.run(main())


def test_more_or_less_than_one_request_in_a_read_is_taken_apart(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            one = HEADS[0] % b"5" + b"12345"
            assert (await client.ask(one)).status == 200
            client.send(one + one + one[:-2])
            for _ in range(2):
                assert (await client.answer()).status == 200
            assert (await client.ask(b"45" + one[:20])).status == 200
            assert (await client.ask(one[20:])).status == 200
            await client.close()
        assert [exchange.body for exchange in handler.seen] == [b"12345"] * 5

    wire.run(main())


def test_a_head_longer_than_allowed_by_its_digits_alone_is_refused(wire):
    async def main():
        limit = len(HEADS[0] % b"5")
        async with wire.serve(wire.Recorder(), limits={"header_bytes": limit}) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(HEADS[0] % b"5" + b"12345")).status == 200
            assert (await client.ask(HEADS[0] % b"11" + b"12345678901")).status == 431
            await client.close()

    wire.run(main())


@pytest.mark.parametrize(
    "first", [b"\x001\r\n\r\nx", b"\x000\r\n\r\n", b"1\r\n\r\nx", b"0\r\n\r\n"]
)
def test_what_is_no_request_is_none_before_the_first_one_either(wire, first):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(first)).status == 400
            await client.close()
        assert handler.seen == []

    wire.run(main())
