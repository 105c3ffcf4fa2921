"""Requests over HTTP/1.1 whose body is handed on as it comes."""

from __future__ import annotations

import asyncio

import pytest

from headrace.front.streamed import WINDOW_BYTES

OK = ((b"content-type", b"text/plain"),)


class Taker:
    """A handler that keeps what arrives. ``takes``: it is done with each piece at once."""

    def __init__(self, *, takes=True):
        self.takes = takes
        self.exchanges = []
        self.body = b""
        self.over = self.gone = False
        self.changed = asyncio.Event()

    def __call__(self, exchange):
        self.exchanges.append(exchange)
        self.body = exchange.body
        self.over = not exchange.arrives
        exchange.on_data = self.received
        exchange.on_gone = self.left
        self.changed.set()

    @property
    def exchange(self):
        return self.exchanges[-1]

    def received(self, data):
        self.body += data
        self.over = not data
        if self.takes and data:
            self.exchange.take(len(data))
        self.changed.set()

    def left(self):
        self.gone = True
        self.changed.set()

    async def until(self, wire, condition):
        while not condition():
            self.changed.clear()
            await wire.within(self.changed.wait())


def uploads(head):
    return head.path == "/up"


def head(framing, path=b"/up"):
    return b"POST %b HTTP/1.1\r\nhost: a\r\n%b\r\n\r\n" % (path, framing)


CHUNKS = b"3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("framing", "body"),
    [(b"content-length: 6", b"onetwo"), (b"transfer-encoding: chunked", CHUNKS)],
)
def test_a_body_comes_in_pieces_and_the_connection_goes_on(wire, framing, body):
    async def main():
        taker = Taker()
        async with wire.serve(taker, uploads=uploads, limits={"body_bytes": 2}) as front:
            client = await wire.Client.open(front)
            client.send(head(framing))
            await taker.until(wire, lambda: taker.exchanges)
            assert taker.exchange.arrives
            for at in range(len(body)):
                client.send(body[at : at + 1])
                await asyncio.sleep(0)
            client.send(head(b"content-length: 0"))  # the next request, sent ahead
            await taker.until(wire, lambda: taker.over)
            assert taker.body == b"onetwo"
            taker.exchange.respond(200, OK, b"first")
            answer = await wire.within(client.answer())
            assert (answer.body, answer.header(b"connection")) == (b"first", None)
            await taker.until(wire, lambda: len(taker.exchanges) == 2)
            taker.exchange.respond(200, OK, b"second")
            assert (await wire.within(client.answer())).body == b"second"
            await client.close()

    wire.run(main())


def test_no_more_comes_than_is_taken(wire):
    async def main():
        taker = Taker(takes=False)
        size = 20 * WINDOW_BYTES
        async with wire.serve(taker, uploads=uploads) as front:
            client = await wire.Client.open(front)
            client.send(head(b"content-length: %d" % size))
            sending = asyncio.create_task(drained(client, b"x" * size))
            await taker.until(wire, lambda: len(taker.body) >= WINDOW_BYTES)
            for _ in range(100):
                await asyncio.sleep(0)
            assert len(taker.body) < 3 * WINDOW_BYTES
            assert front.arriving_bytes == len(taker.body)
            taker.takes = True
            taker.exchange.take(len(taker.body))
            await taker.until(wire, lambda: taker.over)
            assert len(taker.body) == size
            await sending
            taker.exchange.respond(200, OK, b"")
            await wire.within(client.answer())
            await client.close()

    wire.run(main())


async def drained(client, data):
    client.send(data)
    await client.writer.drain()


def test_an_answer_before_the_end_closes_the_connection(wire):
    async def main():
        taker = Taker()
        async with wire.serve(taker, uploads=uploads) as front:
            client = await wire.Client.open(front)
            client.send(head(b"content-length: 1000000") + b"some")
            await taker.until(wire, lambda: taker.body)
            taker.exchange.respond(400, OK, b"no")
            answer = await wire.within(client.answer())
            assert (answer.status, answer.header(b"connection")) == (400, b"close")
            client.send(b"what is still sent is thrown away")
            assert await wire.within(client.rest()) == b""
            assert not taker.gone

    wire.run(main())


def test_a_client_that_leaves_or_breaks_the_framing_is_told_of(wire):
    async def main():
        for rest, status in ((b"zz\r\n", 400), (None, 0)):
            taker = Taker()
            async with wire.serve(taker, uploads=uploads) as front:
                client = await wire.Client.open(front)
                client.send(head(b"transfer-encoding: chunked") + b"3\r\none\r\n")
                await taker.until(wire, lambda: taker.body == b"one")  # noqa: B023
                if rest is None:
                    await client.close()
                else:
                    client.send(rest)
                    assert (await wire.within(client.answer())).status == status
                await taker.until(wire, lambda: taker.gone)  # noqa: B023
                if rest is not None:
                    await client.close()

    wire.run(main())


def test_who_waits_is_told_to_go_on(wire):
    async def main():
        taker = Taker()
        async with wire.serve(taker, uploads=uploads) as front:
            client = await wire.Client.open(front)
            client.send(head(b"content-length: 3\r\nexpect: 100-continue"))
            assert (await wire.within(client.answer())).status == 100
            client.send(b"one")
            await taker.until(wire, lambda: taker.over)
            taker.exchange.respond(200, OK, b"")
            assert (await wire.within(client.answer())).status == 200
            await client.close()

    wire.run(main())


def test_who_sends_nothing_more_is_refused(wire):
    async def main():
        taker = Taker()
        async with wire.serve(taker, uploads=uploads, limits={"body_s": 0.05}) as front:
            client = await wire.Client.open(front)
            client.send(head(b"content-length: 3") + b"o")
            assert (await wire.within(client.answer())).status == 408
            assert taker.gone
            await client.close()

    wire.run(main())


def test_a_body_that_is_there_at_once_is_not_taken_apart(wire):
    async def main():
        taker = Taker()
        async with wire.serve(taker, uploads=uploads) as front:
            client = await wire.Client.open(front)
            client.send(head(b"content-length: 3") + b"one")
            await taker.until(wire, lambda: taker.exchanges)
            assert (taker.body, taker.exchange.arrives) == (b"one", False)
            taker.exchange.respond(200, OK, b"")
            await wire.within(client.answer())
            await client.close()

    wire.run(main())
