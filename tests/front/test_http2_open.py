"""Requests over HTTP/2 that are handled before their body has come, and answers with trailers."""

from __future__ import annotations

import asyncio

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import pytest

WINDOW = 256 * 1024


class Client:
    """One connection; ``events`` by their kinds."""

    def __init__(self, client, within):
        self.client = client
        self.within = within
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.h2.initiate_connection()
        self.events = []

    @classmethod
    async def open(cls, wire, front):
        self = cls(await wire.Client.open(front), wire.within)
        self.flush()
        await self.until(h2.events.WindowUpdated)  # the server's settings are here as well
        return self

    def flush(self):
        self.client.send(self.h2.data_to_send())

    def begin(self, path="/"):
        stream = self.h2.get_next_available_stream_id()
        fields = [(":method", "POST"), (":path", path), (":scheme", "http"), (":authority", "a")]
        self.h2.send_headers(stream, fields)
        self.flush()
        return stream

    def send(self, stream, data, *, last=False):
        """As much of it as may be sent; the rest."""
        while data and (room := min(self.h2.local_flow_control_window(stream), 16_384)):
            self.h2.send_data(stream, data[:room])
            data = data[room:]
        if last and not data:
            self.h2.end_stream(stream)
        self.flush()
        return data

    async def until(self, kind, stream=None):
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    self.events.remove(event)
                    return event
            data = await self.within(self.client.reader.read(65_536))
            assert data, self.events
            self.events += self.h2.receive_data(data)
            self.flush()


class Taker:
    """A handler that keeps what arrives; ``takes``: gives credit for it at once."""

    def __init__(self, *, takes):
        self.takes = takes
        self.exchange = None
        self.pieces = []
        self.gone = False
        self.changed = asyncio.Event()

    def __call__(self, exchange):
        assert exchange.arrives == (exchange.head.path != "/whole")
        assert exchange.body == b""
        self.exchange = exchange
        self.pieces = []
        exchange.on_data = self.received
        exchange.on_gone = self.left
        self.changed.set()

    def received(self, data):
        self.pieces.append(data)
        if self.takes:
            self.exchange.take(len(data))
        self.changed.set()

    def left(self):
        self.gone = True
        self.changed.set()

    async def until(self, wire, condition):
        while not condition():
            self.changed.clear()
            await wire.within(self.changed.wait())


def opens(head):
    return head.path != "/whole"


def test_a_body_comes_in_pieces_and_trailers_follow_the_answer(wire):
    async def main():
        taker = Taker(takes=True)
        async with wire.serve(taker, opens=opens) as front:
            client = await Client.open(wire, front)
            stream = client.begin()
            await taker.until(wire, lambda: taker.exchange is not None)
            client.send(stream, b"one")
            await taker.until(wire, lambda: taker.pieces)
            taker.exchange.start(200, ((b"content-type", b"text/plain"),))
            taker.exchange.send(b"first")
            assert (await client.until(h2.events.DataReceived, stream)).data == b"first"
            client.send(stream, b"two", last=True)
            await taker.until(wire, lambda: taker.pieces == [b"one", b"two", b""])
            assert not taker.exchange.arrives
            taker.exchange.end(((b"grpc-status", b"0"), (b"x-a", b"b")))
            trailers = await client.until(h2.events.TrailersReceived, stream)
            assert list(trailers.headers) == [("grpc-status", "0"), ("x-a", "b")]
            assert await client.until(h2.events.StreamEnded, stream)
            assert front.exchanges == 0
            assert not taker.gone
            await client.client.close()

    wire.run(main())


def test_trailers_wait_for_a_body_that_is_held_back(wire):
    async def main():
        taker = Taker(takes=True)
        async with wire.serve(taker, opens=opens) as front:
            client = await Client.open(wire, front)
            stream = client.begin()
            await taker.until(wire, lambda: taker.exchange is not None)
            taker.exchange.start(200, ())
            taker.exchange.send(b"x" * 100_000)
            taker.exchange.end(((b"grpc-status", b"0"),))
            got = 0
            while got < 65_535:
                got += len((await client.until(h2.events.DataReceived, stream)).data)
            kinds = {type(event) for event in client.events}
            assert not kinds & {h2.events.DataReceived, h2.events.TrailersReceived}
            client.h2.acknowledge_received_data(got, stream)
            client.flush()
            while got < 100_000:
                got += len((await client.until(h2.events.DataReceived, stream)).data)
            assert await client.until(h2.events.TrailersReceived, stream)
            await client.client.close()

    wire.run(main())


def test_a_client_sends_no_more_than_was_taken(wire):
    async def main():
        taker = Taker(takes=False)
        async with wire.serve(taker, opens=opens) as front:
            client = await Client.open(wire, front)
            stream = client.begin()
            rest = client.send(stream, b"x" * (WINDOW + 1000))
            assert len(rest) == 1000
            await taker.until(wire, lambda: sum(map(len, taker.pieces)) == WINDOW)
            taker.exchange.take(WINDOW)
            await client.until(h2.events.WindowUpdated, stream)
            assert not client.send(stream, rest, last=True)
            await taker.until(wire, lambda: taker.pieces[-1] == b"")
            assert sum(map(len, taker.pieces)) == WINDOW + 1000
            taker.exchange.respond(200, (), b"")
            await client.until(h2.events.StreamEnded, stream)
            await client.client.close()

    wire.run(main())


@pytest.mark.parametrize("how", ["answered", "reset"])
def test_what_nobody_takes_any_more_is_no_loss_for_the_connection(wire, how):
    """More streams than the connection's window has room for, one after the other."""

    async def main():
        taker = Taker(takes=False)
        async with wire.serve(taker, opens=opens) as front:
            client = await Client.open(wire, front)
            for number in range(8):
                stream = client.begin(f"/{number}")
                await taker.until(
                    wire, lambda n=number: taker.exchange and taker.exchange.head.path == f"/{n}"
                )
                data = b"x" * WINDOW
                while data := client.send(stream, data):
                    await client.until(h2.events.WindowUpdated)
                await taker.until(wire, lambda: sum(map(len, taker.pieces)) == WINDOW)
                if how == "answered":
                    taker.exchange.respond(200, (), b"enough")
                    reset = await client.until(h2.events.StreamReset, stream)
                    assert reset.error_code == h2.errors.ErrorCodes.NO_ERROR
                    assert not taker.gone
                else:
                    client.h2.reset_stream(stream)
                    client.flush()
                    await taker.until(wire, lambda: taker.gone)
                    taker.gone = False
            assert front.exchanges == 0
            await client.client.close()

    wire.run(main())


def test_other_requests_are_handled_when_they_are_complete(wire):
    async def main():
        bodies = []

        def handler(exchange):
            assert not exchange.arrives
            bodies.append(exchange.body)
            exchange.respond(200, (), b"")

        async with wire.serve(handler, opens=opens) as front:
            client = await Client.open(wire, front)
            stream = client.begin("/whole")
            client.send(stream, b"hello", last=True)
            await client.until(h2.events.StreamEnded, stream)
            one = await wire.Client.open(front)
            request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
            assert (await one.ask(request)).status == 200
            assert bodies == [b"hello", b"hi"]
            await one.close()
            await client.client.close()

    wire.run(main())
