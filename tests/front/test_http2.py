"""HTTP/2 by hand: the h2 library on the client's side, frames of our own where it is too polite."""

from __future__ import annotations

import asyncio
import contextlib
import struct

import h2.config
import h2.connection
import h2.events
import h2.exceptions
import h2.settings
import pytest

from headrace.front.exchange import HIGH_WATER_BYTES

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
PIECE = b"x" * 16_000
TOTAL = 200 * 1000 * 1000


def frame(kind, flags, stream, payload=b""):
    return (
        struct.pack(">I", len(payload))[1:]
        + bytes((kind, flags))
        + struct.pack(">I", stream)
        + payload
    )


DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = (
    0,
    1,
    3,
    4,
    6,
    7,
    8,
    9,
)


class H2Client:
    """An HTTP/2 client whose frames arrive when asked for."""

    def __init__(self, client, within):
        self.client = client
        self.within = within
        self.h2 = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding="utf-8"))
        self.events = []
        self.credit = True

    @classmethod
    async def open(cls, wire, front, context=None, settings=None):
        self = cls(await wire.Client.open(front, context), wire.within)
        self.h2.initiate_connection()
        if settings:
            self.h2.update_settings(settings)
        self.flush()
        return self

    def flush(self):
        self.client.send(self.h2.data_to_send())

    def request(self, method="GET", path="/", *, body=b"", end=True, more=()):
        stream = self.h2.get_next_available_stream_id()
        headers = [(":method", method), (":path", path), (":scheme", "http"), (":authority", "a")]
        self.h2.send_headers(stream, headers + list(more), end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        self.flush()
        return stream

    async def read(self):
        """Read once. False: the server has closed."""
        data = await self.within(self.client.reader.read(65_536))
        if not data:
            return False
        for event in self.h2.receive_data(data):
            self.events.append(event)
            if self.credit and isinstance(event, h2.events.DataReceived):
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        self.flush()
        return True

    async def until(self, kind, stream=None):
        while True:
            for event in self.events:
                if isinstance(event, kind) and stream in (None, getattr(event, "stream_id", None)):
                    return event
            if not await self.read():
                raise EOFError(f"closed before {kind}: {self.events}")

    async def answer(self, stream):
        await self.until(h2.events.StreamEnded, stream)
        head = await self.until(h2.events.ResponseReceived, stream)
        body = b"".join(
            e.data
            for e in self.events
            if isinstance(e, h2.events.DataReceived) and e.stream_id == stream
        )
        return int(dict(head.headers)[":status"]), dict(head.headers), body

    async def closed(self):
        """The error code of the GOAWAY, after the server has closed; None without one."""
        data = await self.within(self.client.rest())
        code = None
        while data:
            end = 9 + int.from_bytes(data[:3])
            if data[3] == GOAWAY:
                code = int.from_bytes(data[13:17])
            data = data[end:]
        return code


def test_a_request_reaches_the_handler_as_over_http_1(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await H2Client.open(wire, front)
            stream = client.request(
                "POST", "/a%20b?x=1", body=b"hello", more=[("cookie", "a=1"), ("cookie", "b=2")]
            )
            status, headers, body = await client.answer(stream)
            assert (status, body) == (200, b"POST /a b hello")
            assert headers["server"] == "headrace"
            assert headers["content-length"] == "15"
            assert headers["date"].endswith("GMT")
            stream = client.request("HEAD", "/")
            status, headers, body = await client.answer(stream)
            assert (status, headers["content-length"], body) == (200, "7", b"")
            await client.client.close()
        exchange = handler.seen[0]
        assert (exchange.head.method, exchange.head.path, exchange.head.query) == (
            "POST",
            "/a b",
            "x=1",
        )
        assert exchange.head.headers == ((b"host", b"a"), (b"cookie", b"a=1; b=2"))
        assert exchange.peer.startswith("127.0.0.1:")

    wire.run(main())


@pytest.mark.parametrize("size", [1, 7])
def test_the_preface_may_come_in_pieces(wire, size):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = H2Client(await wire.Client.open(front), wire.within)
            client.h2.initiate_connection()
            data = client.h2.data_to_send()
            for at in range(0, len(data), size):
                client.client.send(data[at : at + size])
                await asyncio.sleep(0)
            assert (await client.answer(client.request()))[0] == 200
            await client.client.close()

    wire.run(main())


def test_streams_are_answered_as_they_are_ready(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await H2Client.open(wire, front)
            one, two = client.request(path="/1"), client.request(path="/2")
            await handler.until(lambda: len(handler.seen) == 2)
            assert front.exchanges == 2
            handler.seen[1].respond(200, (), b"two")
            assert (await client.answer(two))[2] == b"two"
            exchange = handler.seen[0]
            exchange.start(200, ())
            exchange.send(b"o")
            exchange.send(b"ne")
            exchange.end()
            exchange.send(b"late")
            assert (await client.answer(one))[2] == b"one"
            assert front.exchanges == 0
            assert handler.gone == []
            await client.client.close()

    wire.run(main())


def test_prepared_lines_of_an_answer_are_its_fields(wire):
    async def main():
        def handler(exchange):
            exchange.respond(200, b"content-type: text/plain\r\nx-a: 1: 2\r\n", b"body")

        async with wire.serve(handler) as front:
            client = await H2Client.open(wire, front)
            status, headers, body = await client.answer(client.request())
            assert (status, headers["content-type"], headers["x-a"]) == (200, "text/plain", "1: 2")
            assert body == b"body"
            await client.client.close()
            one = await wire.Client.open(front)
            answer = await one.ask(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (answer.header(b"x-a"), answer.body) == (b"1: 2", b"body")
            await one.close()

    wire.run(main())


def test_a_handler_that_raises_is_answered_500(wire):
    async def main():
        def fails(exchange):
            if exchange.head.path == "/late":
                exchange.start(200, ())
            raise LookupError("a mistake of ours")

        async with wire.serve(fails) as front:
            client = await H2Client.open(wire, front)
            assert (await client.answer(client.request()))[0] == 500
            stream = client.request(path="/late")
            assert await client.until(h2.events.StreamReset, stream)
            await client.client.close()

    wire.run(main())


class Pump:
    """A handler that streams ``total`` bytes, as fast as it is let."""

    def __init__(self, total=TOTAL):
        self.total = total
        self.sent = {}
        self.exchanges = []

    def __call__(self, exchange):
        self.exchanges.append(exchange)
        self.sent[exchange.head.path] = 0
        exchange.start(200, ())
        exchange.on_drain = lambda: self.go_on(exchange)
        self.go_on(exchange)

    def go_on(self, exchange):
        while self.sent[exchange.head.path] < self.total:
            self.sent[exchange.head.path] += len(PIECE)
            if not exchange.send(PIECE):
                return
        exchange.end()


def test_a_stream_that_is_not_read_holds_its_handler_back_and_no_other_stream(wire):
    async def main():
        pump = Pump(30_000_000)
        async with wire.serve(pump) as front:
            client = await H2Client.open(wire, front)
            client.credit = False
            stuck = client.request(path="/stuck")
            await wire.eventually(lambda: pump.sent)
            while (
                sum(len(e.data) for e in client.events if isinstance(e, h2.events.DataReceived))
                < 65_535
            ):
                await client.read()
            exchange = pump.exchanges[0]
            assert HIGH_WATER_BYTES < len(exchange.unsent) <= HIGH_WATER_BYTES + len(PIECE)
            assert pump.sent["/stuck"] <= 65_535 + HIGH_WATER_BYTES + 2 * len(PIECE)
            # The connection's window is used up as well: give that one back, not the stream's.
            client.h2.increment_flow_control_window(1_000_000_000)
            other = client.request(path="/other")
            client.flush()
            got = 0
            client.events.clear()
            while got < 30_000_000:
                for event in client.events:
                    if isinstance(event, h2.events.DataReceived):
                        assert event.stream_id == other
                        got += len(event.data)
                        with contextlib.suppress(h2.exceptions.StreamClosedError):
                            client.h2.increment_flow_control_window(len(event.data), other)
                client.events.clear()
                client.flush()
                if got < pump.total:
                    assert await client.read()
            # Now the first one is read on.
            client.h2.increment_flow_control_window(1_000_000_000, stuck)
            client.flush()
            await client.until(h2.events.StreamEnded, stuck)
            assert pump.sent["/stuck"] >= pump.total
            assert front.exchanges == 0
            await client.client.close()

    wire.run(main())


def test_a_connection_that_is_not_read_holds_all_its_streams_back(wire):
    async def main():
        pump = Pump()
        settings = {h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 2**31 - 1}
        async with wire.serve(pump) as front:
            client = await H2Client.open(wire, front, settings=settings)
            client.h2.increment_flow_control_window(2**31 - 1 - 65_535)
            client.client.writer.transport.pause_reading()
            for number in range(4):
                client.request(path=f"/{number}")
            await wire.eventually(
                lambda: (
                    len(pump.exchanges) == 4
                    and all(len(e.unsent) > HIGH_WATER_BYTES for e in pump.exchanges)
                )
            )
            (connection,) = front._connections.open
            assert connection.transport.get_write_buffer_size() < 2 * HIGH_WATER_BYTES
            assert sum(pump.sent.values()) < 15_000_000  # in the kernel's buffers, but for 0.5 MB
            client.client.writer.transport.resume_reading()
            got = 0
            while got < 20_000_000:
                assert await client.read()
                got += sum(
                    len(e.data) for e in client.events if isinstance(e, h2.events.DataReceived)
                )
                client.events.clear()
                assert all(len(e.unsent) <= HIGH_WATER_BYTES + len(PIECE) for e in pump.exchanges)
            await client.client.close()
            await wire.eventually(lambda: all(exchange.gone for exchange in pump.exchanges))

    wire.run(main())


@pytest.mark.parametrize("how", ["reset", "half_close", "close", "rst_stream"])
def test_leaving_is_told_once_to_every_exchange(wire, how):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await H2Client.open(wire, front)
            streams = [client.request() for _ in range(3)]
            await handler.until(lambda: len(handler.seen) == 3)
            handler.seen[0].start(200, ())
            if how == "rst_stream":
                for stream in streams:
                    client.h2.reset_stream(stream)
                client.flush()
            else:
                done = getattr(client.client, how)()
                if done is not None:
                    await done
            await handler.until(lambda: len(handler.gone) == 3)
            assert front.exchanges == 0
            handler.seen[0].send(b"x")
            handler.seen[1].respond(200, (), b"")
            if how == "rst_stream":
                assert front.connections == 1
                stream = client.request()
                await handler.until(lambda: len(handler.seen) == 4)
                handler.seen[3].respond(200, (), b"alive")
                assert (await client.answer(stream))[2] == b"alive"
            await client.client.close()
            await wire.eventually(lambda: not front.connections)

    wire.run(main())


def test_a_request_that_is_reset_in_the_same_read_does_no_harm(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await H2Client.open(wire, front)
            await client.until(h2.events.RemoteSettingsChanged)
            data = b""
            for _ in range(20):
                stream = client.h2.get_next_available_stream_id()
                fields = [
                    (":method", "GET"),
                    (":path", "/"),
                    (":scheme", "http"),
                    (":authority", "a"),
                ]
                client.h2.send_headers(stream, fields, end_stream=True)
                client.h2.reset_stream(stream)
                data += client.h2.data_to_send()
            client.client.send(data)
            assert (await client.answer(client.request()))[0] == 200
            await client.client.close()

    wire.run(main())


@pytest.mark.parametrize(
    ("status", "request_"),
    [
        (413, {"method": "POST", "end": False, "more": [("content-length", "1001")]}),
        (413, {"method": "POST", "body": b"x" * 1001}),
        (413, {"method": "POST", "body": b"x" * 1001, "end": False}),
        (431, {"more": [(f"x-{n}", "y") for n in range(101)]}),
        (414, {"path": "/" + "a" * 17_000}),
        (400, {"path": "/a b"}),
        (400, {"path": "/a#b"}),
        (400, {"path": "a"}),
        (400, {"more": [("content-length", "1x")]}),
        (501, {"method": "BREW"}),
    ],
)
def test_what_is_wrong_with_one_request_ends_that_stream_alone(wire, status, request_):
    async def main():
        handler = wire.Recorder()
        told = []

        def refuse(status, message, head):
            told.append(head and head.path)
            return (), b""

        async with wire.serve(handler, limits={"body_bytes": 1000}, refuse=refuse) as front:
            client = await H2Client.open(wire, front)
            client.h2.config.validate_outbound_headers = False
            client.h2.config.normalize_outbound_headers = False
            try:
                got = await client.answer(client.request(**request_))
            except EOFError:
                assert "1x" in str(request_)  # the library ends the connection for this one
                await client.client.close()
                return
            assert got[0] == status
            assert told == ["/" if status in (413, 431) else None]
            assert (await client.answer(client.request()))[0] == 200
            assert front.arriving_bytes == 0
            await client.client.close()
        assert len(handler.seen) == 1

    wire.run(main())


def test_a_client_that_expects_it_is_told_to_continue(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await H2Client.open(wire, front)
            stream = client.request("POST", end=False, more=[("expect", "100-continue")])
            await client.until(h2.events.InformationalResponseReceived, stream)
            client.h2.send_data(stream, b"hi", end_stream=True)
            client.flush()
            assert (await client.answer(stream))[2] == b"POST / hi"
            await client.client.close()

    wire.run(main())


def test_a_body_larger_than_the_windows_arrives_whole(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await H2Client.open(wire, front)
            stream = client.request("POST", end=False)
            left = 3_000_000
            while left:
                size = min(left, client.h2.local_flow_control_window(stream), 16_384)
                if not size:
                    await client.read()
                    continue
                client.h2.send_data(stream, b"x" * size, end_stream=size == left)
                left -= size
                client.flush()
            assert (await client.answer(stream))[0] == 200
            assert handler.seen[0].body == b"x" * 3_000_000
            await client.client.close()

    wire.run(main())


def test_more_streams_than_allowed_are_not_taken(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler, limits={"streams": 4}) as front:
            client = await H2Client.open(wire, front)
            await client.until(h2.events.RemoteSettingsChanged)
            assert client.h2.remote_settings.max_concurrent_streams == 4
            for _ in range(4):
                client.request()
            await handler.until(lambda: len(handler.seen) == 4)
            client.client.send(frame(HEADERS, 5, 9, b"\x82\x84\x86\x41\x01a"))
            assert await client.closed() is not None
            assert len(handler.seen) == len(handler.gone) == 4

    wire.run(main())


FLOODS = {
    "rapid resets": b"".join(
        frame(HEADERS, 5, 2 * n + 1, b"\x82\x84\x86\x41\x01a")
        + frame(RST_STREAM, 0, 2 * n + 1, b"\0\0\0\x08")
        for n in range(3000)
    ),
    "pings": frame(PING, 0, 0, b"12345678") * 5000,
    "settings": frame(SETTINGS, 0, 0) * 5000,
    "priorities": frame(2, 0, 1, b"\0\0\0\0\0") * 5000,
    "unknown frames": frame(77, 0, 0, b"x") * 5000,
    "empty data": frame(HEADERS, 4, 1, b"\x83\x84\x86\x41\x01a") + frame(DATA, 0, 1) * 5000,
    "padding alone": frame(HEADERS, 4, 1, b"\x83\x84\x86\x41\x01a")
    + frame(DATA, 8, 1, b"\1\0") * 5000,
    "window updates": frame(WINDOW_UPDATE, 0, 0, b"\0\0\0\1") * 10_000,
    "continuations": frame(HEADERS, 0, 1, b"\x82\x84\x86\x41\x01a")
    + frame(CONTINUATION, 0, 1) * 5000,
    "large continuations": frame(HEADERS, 0, 1, b"\x82\x84\x86\x41\x01a")
    + frame(CONTINUATION, 0, 1, b"\x40\x01a\x7f\xff\x7f" + b"b" * 16_000) * 100,
    "a header bomb": frame(
        HEADERS, 0, 1, b"\x82\x84\x86\x41\x01a\x40\x01a\x7f\xa1\x1e" + b"b" * 4000
    )
    + frame(CONTINUATION, 4, 1, b"\xbe" * 16_000),
    "a frame that is too large": frame(DATA, 0, 1, b"x" * 16_385),
    "data on no stream": frame(DATA, 0, 1, b"x"),
    "headers in capitals": frame(HEADERS, 5, 1, b"\x82\x84\x86\x41\x01a\x40\x01A\x01b"),
    "a connection header": frame(
        HEADERS, 5, 1, b"\x82\x84\x86\x41\x01a\x40\x0aconnection\x05close"
    ),
    "a coding": frame(HEADERS, 5, 1, b"\x82\x84\x86\x41\x01a\x40\x11transfer-encoding\x07chunked"),
    "a body that contradicts its length": frame(
        HEADERS, 4, 1, b"\x83\x84\x86\x41\x01a\x40\x0econtent-length\x013"
    )
    + frame(DATA, 1, 1, b"ab"),
    "rubbish": bytes(range(256)) * 100,
}


@pytest.mark.parametrize("name", FLOODS)
def test_floods_and_breaches_end_the_connection(wire, name):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = H2Client(await wire.Client.open(front), wire.within)
            client.h2.initiate_connection()
            client.client.send(PREFACE + frame(SETTINGS, 0, 0) + FLOODS[name])
            assert await client.closed() != 0
            await wire.eventually(lambda: not front.connections)
            other = await H2Client.open(wire, front)
            assert (await other.answer(other.request()))[0] == 200
            await other.client.close()
        assert len(handler.seen) < 1200

    wire.run(main())


@pytest.mark.parametrize("value", [b"a\0b", b"a\r\nb: c", b"a\nb"])
def test_line_breaks_and_nul_in_a_field_never_reach_the_handler(wire, value):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = H2Client(await wire.Client.open(front), wire.within)
            client.h2.initiate_connection()
            block = b"\x82\x84\x86\x41\x01a\x40\x01x" + bytes((len(value),)) + value
            client.client.send(PREFACE + frame(SETTINGS, 0, 0) + frame(HEADERS, 5, 1, block))
            client.h2.get_next_available_stream_id()
            head = None
            with contextlib.suppress(EOFError, h2.exceptions.ProtocolError):
                head = await client.until(h2.events.ResponseReceived)
            assert head is None or dict(head.headers)[":status"] == "400"
            await client.client.close()
        assert handler.seen == []

    wire.run(main())


def test_time_limits_hold_for_streams_too(wire):
    slow = {"idle_s": 60.0, "header_s": 60.0, "stall_s": 0.3, "body_s": 0.3}

    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler, limits=slow) as front:
            client = await H2Client.open(wire, front)
            client.credit = False
            body = client.request("POST", body=b"x", end=False)
            assert (await client.answer(body))[0] == 408
            stalled = client.request()
            await handler.until(lambda: handler.seen)
            handler.seen[0].start(200, ())
            handler.seen[0].send(b"x" * 100_000)
            await client.until(h2.events.StreamReset, stalled)
            assert len(handler.gone) == 1
            await client.client.close()

    wire.run(main())


def test_an_idle_connection_is_closed_though_it_pings(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits={"idle_s": 0.2}) as front:
            client = await H2Client.open(wire, front)
            await client.answer(client.request())

            async def ping():
                while True:
                    client.h2.ping(b"12345678")
                    client.flush()
                    await asyncio.sleep(0.02)

            pings = asyncio.create_task(ping())
            await client.until(h2.events.ConnectionTerminated)
            pings.cancel()
            await client.client.close()

    wire.run(main())


def test_closing_the_front_lets_streams_end_and_takes_no_new_ones(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            idle = await H2Client.open(wire, front)
            await idle.until(h2.events.RemoteSettingsChanged)
            client = await H2Client.open(wire, front)
            stream = client.request()
            await handler.until(lambda: handler.seen)
            closing = asyncio.create_task(front.close(30.0))
            assert await idle.closed() == 0
            # By hand, for the library obeys the GOAWAY: that stream goes on, another is refused.
            got = b""
            handler.seen[0].start(200, ())
            handler.seen[0].send(b"to the end")
            client.client.send(frame(HEADERS, 5, stream + 2, b"\x82\x84\x86\x41\x01a"))
            while (
                b"to the end" not in got
                or frame(RST_STREAM, 0, stream + 2, b"\0\0\0\x07") not in got
            ):
                got += await wire.within(client.client.reader.read(65_536))
            handler.seen[0].end()
            assert await wire.within(closing)
            assert frame(GOAWAY, 0, 0, struct.pack(">LL", stream, 0)) in got
            await client.client.rest()
        assert len(handler.seen) == 1

    wire.run(main())
