from __future__ import annotations

import asyncio

import pytest

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
SLOW = {"idle_s": 60.0, "header_s": 60.0, "body_s": 60.0, "stall_s": 60.0, "linger_s": 60.0}


@pytest.mark.parametrize(
    ("status", "sent"),
    [
        (431, b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 100 + b"\r\n"),
        (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 65_000 + b"\r\n" + b"Y: z\r\n" * 200),
        (431, b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n"),
        (414, b"GET /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        (414, b"GET /" + b"a" * 17_000),
        (414, b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n"),
        (413, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n"),
        (
            413,
            b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nf4241\r\n",
        ),
        (413, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000001\r\n\r\n" + b"x" * 1_000_001),
    ],
)
def test_what_is_too_large_is_refused_in_a_way_that_the_client_sees(wire, status, sent):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, limits={"body_bytes": 1_000_000}) as front:
            client = await wire.Client.open(front)
            client.send(sent)
            answer = await wire.within(client.answer())
            assert (answer.status, answer.header(b"connection")) == (status, b"close")
            assert await wire.within(client.rest()) == b""
            await wire.eventually(lambda: not front.connections)
        assert handler.seen == []

    wire.run(main())


@pytest.mark.parametrize(
    ("sent", "path"),
    [
        (b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 1001\r\n\r\n", "/a"),
        (
            b"POST /a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n",
            "/a",
        ),
        (b"POST /a?b HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000 + b"\r\n\r\n", "/a"),
        (b"POST /a HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 70_000, "/a"),
        (b"POST /a HTTP/1.1\r\nbad\r\n\r\n", "/a"),
        (b"POST /a", None),
        (b"POST /" + b"a" * 17_000 + b" HTTP/1.1\r\nHost: a\r\n\r\n", None),
        (b"BREW /a HTTP/1.1\r\nHost: a\r\n\r\n", None),
    ],
)
def test_the_application_is_told_what_is_known_of_the_head_that_is_refused(wire, sent, path):
    async def main():
        told = []

        def refuse(status, message, head):
            told.append(head and head.path)
            return (), b""

        limits = {"body_bytes": 1000, "header_s": 0.2}
        async with wire.serve(wire.Recorder(), limits=limits, refuse=refuse) as front:
            client = await wire.Client.open(front)
            client.send(sent)
            await wire.within(client.rest())
        assert told == [path]

    wire.run(main())


def test_what_is_just_small_enough_is_taken(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, limits={"body_bytes": 1000}) as front:
            client = await wire.Client.open(front)
            head = b"POST /" + b"a" * 16_383 + b" HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n"
            head += b"X: y\r\n" * 97
            head += b"Y: " + b"z" * (65_536 - len(head) - 7) + b"\r\n\r\n"
            assert len(head) == 65_536
            assert (await client.ask(head + b"x" * 1000)).status == 200
            await client.close()
        assert len(handler.seen[0].head.headers) == 99  # and the length

    wire.run(main())


def test_a_client_that_goes_on_sending_a_refused_body_still_reads_the_refusal(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits={"body_bytes": 1000}) as front:
            client = await wire.Client.open(front)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 30000000\r\n\r\n")
            client.send(b"x" * 30_000_000)
            await wire.within(client.writer.drain())
            assert (await wire.within(client.answer())).status == 413
            assert await wire.within(client.rest()) == b""

    wire.run(main())


@pytest.mark.parametrize("sent", [b"", GET])
def test_an_idle_connection_is_closed_without_a_word(wire, sent):
    async def main():
        async with wire.serve(wire.Recorder(), limits=SLOW | {"idle_s": 0.1}) as front:
            client = await wire.Client.open(front)
            if sent:
                await client.ask(sent)
            assert await wire.within(client.rest()) == b""

    wire.run(main())


@pytest.mark.parametrize("sent", [b"G", GET[:-2], GET + b"GET", b"\r\n", b"PRI * HTTP/2.0\r\n\r\n"])
def test_headers_that_do_not_come_are_408(wire, sent):
    async def main():
        async with wire.serve(wire.Recorder(), limits=SLOW | {"header_s": 0.1}) as front:
            client = await wire.Client.open(front)
            client.send(sent)
            if sent.startswith(GET):
                await client.answer()
            answer = await wire.within(client.answer())
            assert (answer.status, answer.header(b"connection")) == (408, b"close")
            assert await client.rest() == b""

    wire.run(main())


def test_headers_that_trickle_are_408(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits=SLOW | {"header_s": 0.3}) as front:
            client = await wire.Client.open(front)
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: ")

            async def trickle():
                while True:
                    client.send(b"y")
                    await asyncio.sleep(0.02)

            slow = asyncio.create_task(trickle())
            assert (await wire.within(client.answer())).status == 408
            slow.cancel()
            await client.close()

    wire.run(main())


@pytest.mark.parametrize(
    "sent",
    [
        b"Content-Length: 3\r\n\r\nab",
        b"Content-Length: 3\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nab",
    ],
)
def test_a_body_that_stops_is_408(wire, sent):
    async def main():
        async with wire.serve(wire.Recorder(), limits=SLOW | {"body_s": 0.1}) as front:
            client = await wire.Client.open(front)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\n" + sent)
            assert (await wire.within(client.answer())).status == 408
            assert await client.rest() == b""

    wire.run(main())


def test_a_body_that_trickles_is_408(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits=SLOW | {"body_s": 0.3}) as front:
            client = await wire.Client.open(front)
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")

            async def trickle():
                while True:
                    client.send(b"y")
                    await asyncio.sleep(0.02)

            slow = asyncio.create_task(trickle())
            assert (await wire.within(client.answer())).status == 408
            slow.cancel()
            await client.close()

    wire.run(main())


def test_waiting_for_an_answer_has_no_limit_here(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        quick = dict.fromkeys(SLOW, 0.05)
        async with wire.serve(handler, limits=quick) as front:
            waiting, idle = await wire.Client.open(front), await wire.Client.open(front)
            waiting.send(GET)
            await handler.until(lambda: handler.seen)
            assert await wire.within(idle.rest()) == b""  # so that time has passed
            again = await wire.Client.open(front)
            assert await wire.within(again.rest()) == b""
            handler.seen[0].respond(200, (), b"at last")
            assert (await waiting.answer()).body == b"at last"
            await waiting.close()

    wire.run(main())


def test_a_client_that_takes_nothing_is_cut(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler, limits=SLOW | {"stall_s": 0.2}) as front:
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(GET)
            await handler.until(lambda: handler.seen)
            exchange = handler.seen[0]

            def fill():
                while exchange.send(b"x" * 60_000):
                    pass

            exchange.on_drain = fill
            exchange.start(200, ())
            fill()
            await handler.until(lambda: handler.gone)
            assert exchange.gone
            await wire.eventually(lambda: not front.connections)
            await client.close()

    wire.run(main())


def test_a_whole_answer_that_nobody_takes_is_cut_too(wire):
    async def main():
        async with wire.serve(
            lambda exchange: exchange.respond(200, (), b"x" * 20_000_000),
            limits=SLOW | {"stall_s": 0.2},
        ) as front:
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(GET)
            await wire.eventually(lambda: front.connections)
            await wire.eventually(lambda: not front.connections)
            await client.close()

    wire.run(main())


def test_one_connection_too_many_is_503_and_the_others_live_on(wire):
    async def main():
        def refuse(status, message, head):
            assert head is None
            return ((b"content-type", b"application/json"),), b'{"status": %d}' % status

        async with wire.serve(wire.Recorder(), limits={"connections": 2}, refuse=refuse) as front:
            clients = [await wire.Client.open(front) for _ in range(2)]
            for client in clients:
                await client.ask(GET)
            extra = await wire.Client.open(front)
            answer = await extra.ask(GET)
            assert (answer.status, answer.body) == (503, b'{"status": 503}')
            assert answer.header(b"content-type") == b"application/json"
            assert int(answer.header(b"retry-after")) > 0
            assert await extra.rest() == b""
            await clients.pop().close()
            await wire.eventually(lambda: front.connections == 1)
            again = await wire.Client.open(front)
            assert (await again.ask(GET)).status == 200
            for client in (*clients, again):
                await client.close()

    wire.run(main())


def test_many_connections_too_many_are_dropped_unheard(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits={"connections": 1}) as front:
            clients = [await wire.Client.open(front) for _ in range(40)]
            await wire.eventually(lambda: front.connections == 17)
            for client in clients[17:]:
                assert await wire.within(client.rest()) == b""
            for client in clients[:17]:
                await client.close()

    wire.run(main())


def test_bodies_that_arrive_together_are_bounded_together(wire):
    async def main():
        handler = wire.Recorder()
        limits = {"body_bytes": 200_000, "arriving_bytes": 250_000}
        async with wire.serve(handler, limits=limits) as front:
            head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n"
            clients = [await wire.Client.open(front) for _ in range(2)]
            clients[0].send(head + b"x" * 150_000)
            await wire.eventually(lambda: front.arriving_bytes == 150_000)
            clients[1].send(head + b"x" * 150_000)
            answer = await wire.within(clients[1].answer())
            assert (answer.status, answer.header(b"retry-after")) == (503, b"1")
            await wire.eventually(lambda: front.arriving_bytes == 150_000)
            clients[0].send(b"x" * 50_000)
            assert (await clients[0].answer()).status == 200
            assert front.arriving_bytes == 0
            for client in clients:
                await client.close()

    wire.run(main())
