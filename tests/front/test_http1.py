from __future__ import annotations

import asyncio
import logging

import pytest

GET = b"GET /hello HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_request_reaches_the_handler_with_all_its_parts(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            await client.ask(
                b"POST /a%20b/%C3%A9?x=%20&y HTTP/1.1\r\nHost: h\r\nX-Two: 1\r\nx-two: 2\r\n"
                b"Content-Length: 4\r\n\r\nbody"
            )
            await client.close()
        exchange = handler.seen[0]
        assert (exchange.head.method, exchange.head.path, exchange.head.query) == (
            "POST",
            "/a b/é",
            "x=%20&y",
        )
        assert exchange.body == b"body"
        assert exchange.head.headers == ((b"host", b"h"), (b"x-two", b"1"), (b"x-two", b"2"))
        assert exchange.scheme == "http"
        assert exchange.peer.startswith("127.0.0.1:")

    wire.run(main())


def test_a_connection_serves_one_request_after_the_other(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            for number in range(3):
                answer = await client.ask(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % number)
                assert (answer.status, answer.body) == (200, b"GET /%d " % number)
                assert answer.header(b"server") == b"headrace"
                assert answer.header(b"date").endswith(b"GMT")
                assert answer.header(b"connection") is None
            assert front.connections == 1
            await client.close()

    wire.run(main())


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"GET http://other:80/x?y", "/x", "y"),
        (b"GET HTTP://other?y", "/", "y"),
        (b"OPTIONS *", "*", ""),
        (b"GET /a//../b", "/a//../b", ""),
    ],
)
def test_every_form_of_target_is_understood(wire, target, path, query):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(target + b" HTTP/1.1\r\nHost: a\r\n\r\n")).status == 200
            await client.close()
        assert (handler.seen[0].head.path, handler.seen[0].head.query) == (path, query)

    wire.run(main())


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close, te\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
    ],
)
def test_a_client_that_wants_no_more_gets_a_closed_connection(wire, head):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            answer = await client.ask(head)
            assert (answer.status, answer.header(b"connection")) == (200, b"close")
            assert await client.rest() == b""
            # The parser that all connections share is none the worse for it.
            other = await wire.Client.open(front)
            assert (await other.ask(GET)).status == 200
            await other.close()

    wire.run(main())


def test_the_last_answer_arrives_whole_though_the_client_sends_on(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n" + GET * 50_000)
            await handler.until(lambda: handler.seen)
            (connection,) = front._connections.open
            await wire.eventually(lambda: not connection._reading)
            # Enough to wait in the kernel, where a close with unread input would throw it away.
            handler.seen[0].respond(200, (), b"x" * 180_000)
            await wire.eventually(lambda: not connection.transport.get_write_buffer_size())
            client.writer.transport.resume_reading()
            assert len((await wire.within(client.answer())).body) == 180_000
            assert await wire.within(client.rest()) == b""
        assert len(handler.seen) == 1

    wire.run(main())


def test_http_1_0_may_keep_its_connection(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            for _ in range(2):
                answer = await client.ask(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
                assert answer.header(b"connection") == b"keep-alive"
            await client.close()

    wire.run(main())


def test_a_streamed_answer_to_http_1_0_ends_with_the_connection(wire):
    def stream(exchange):
        exchange.start(200, ())
        exchange.send(b"one ")
        exchange.send(b"two")
        exchange.end()

    async def main():
        async with wire.serve(stream) as front:
            client = await wire.Client.open(front)
            client.send(b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
            _, headers = await client.head()
            assert dict(headers)[b"connection"] == b"close"
            assert b"transfer-encoding" not in dict(headers)
            assert await client.rest() == b"one two"

    wire.run(main())


def test_head_gets_the_head_of_the_answer_alone(wire):
    def either(exchange):
        if exchange.head.path == "/whole":
            exchange.respond(200, (), b"hello")
        else:
            exchange.start(200, ())
            exchange.send(b"hello")
            exchange.end()

    async def main():
        async with wire.serve(either) as front:
            client = await wire.Client.open(front)
            client.send(b"HEAD /whole HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer(to_head=True)).header(b"content-length") == b"5"
            client.send(b"HEAD /stream HTTP/1.1\r\nHost: a\r\n\r\n")
            assert (await client.answer(to_head=True)).status == 200
            assert (await client.ask(b"GET /whole HTTP/1.1\r\nHost: a\r\n\r\n")).body == b"hello"
            await client.close()

    wire.run(main())


def test_statuses_without_body_have_no_length(wire):
    async def main():
        async with wire.serve(lambda exchange: exchange.respond(204, (), b"")) as front:
            client = await wire.Client.open(front)
            answer = await client.ask(GET)
            assert answer.header(b"content-length") is None
            assert (await client.ask(GET)).status == 204
            await client.close()

    wire.run(main())


def test_a_streamed_answer_arrives_piece_by_piece(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            exchange = handler.seen[0]
            exchange.start(200, ((b"content-type", b"text/event-stream"),))
            status, headers = await client.head()
            assert (status, dict(headers)[b"transfer-encoding"]) == (200, b"chunked")
            for piece in (b"a", b"b" * 70_000, b"c"):
                exchange.send(piece)
                assert await client.chunk() == piece
            exchange.send(b"")  # is not the end
            exchange.send(b"d")
            assert await client.chunk() == b"d"
            exchange.end()
            assert await client.chunk() == b""
            assert handler.gone == []
            client.send(GET)
            await handler.until(lambda: len(handler.seen) == 2)
            handler.seen[1].respond(200, (), b"")
            await client.answer()
            await client.close()

    wire.run(main())


def test_pipelined_requests_are_answered_in_order_one_at_a_time(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(b"".join(b"GET /%d HTTP/1.1\r\nHost: a\r\n\r\n" % n for n in range(3)))
            for number in range(3):
                await handler.until(lambda number=number: len(handler.seen) > number)
                assert len(handler.seen) == number + 1
                assert front.exchanges == 1
                handler.seen[number].respond(200, (), b"%d" % number)
                assert (await client.answer()).body == b"%d" % number
            await client.close()

    wire.run(main())


def test_late_calls_of_an_answered_exchange_do_not_touch_the_next(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET + GET)
            await handler.until(lambda: handler.seen)
            first = handler.seen[0]
            first.respond(200, (), b"first")
            second = handler.seen[1]
            first.respond(500, (), b"late")
            first.start(500, ())
            assert first.send(b"late")
            first.end()
            first.abort()
            second.respond(200, (), b"second")
            assert (await client.answer()).body == b"first"
            assert (await client.answer()).body == b"second"
            assert not first.gone
            await client.close()

    wire.run(main())


def test_a_thousand_pipelined_requests_do_not_starve_another_connection(wire):
    async def main():
        order = []

        def handler(exchange):
            order.append(exchange.head.path)
            exchange.respond(200, (), b"")

        async with wire.serve(handler) as front:
            greedy, modest = await wire.Client.open(front), await wire.Client.open(front)
            greedy.send(b"GET /g HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
            modest.send(b"GET /m HTTP/1.1\r\nHost: a\r\n\r\n")
            for _ in range(1000):
                await greedy.answer()
            await modest.answer()
            assert order.index("/m") < 999
            assert order.count("/g") == 1000
            await greedy.close()
            await modest.close()

    wire.run(main())


def test_what_a_client_sends_ahead_is_bounded(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            ahead = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 60000\r\n\r\n" + b"x" * 60_000
            client.send(ahead * 400)  # 24 MB

            async def stuck():
                size = -1
                while size != client.writer.transport.get_write_buffer_size():
                    size = client.writer.transport.get_write_buffer_size()
                    await asyncio.sleep(0.2)
                return size

            assert await stuck() > 8_000_000  # it is not read, so the kernel's buffers are full
            handler.hold = False
            handler.seen[0].respond(200, (), b"")
            for _ in range(401):
                assert (await client.answer()).status == 200
            await client.close()

    wire.run(main())


@pytest.mark.parametrize(
    "chunks",
    [
        b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n",
        b"B\r\nhello world\r\n0\r\nX-Trailer: 1\r\n\r\n",
        b"0000b;name=value\r\nhello world\r\n00\r\n\r\n",
    ],
)
def test_a_chunked_body_is_put_together(wire, chunks):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
            assert (await client.ask(head + chunks)).body == b"POST / hello world"
            client.send(head)
            for at in range(len(chunks)):
                client.send(chunks[at : at + 1])
                await asyncio.sleep(0)
            assert (await client.answer()).body == b"POST / hello world"
            await client.close()

    wire.run(main())


def test_a_client_that_expects_it_is_told_to_continue(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            client.send(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nExpect: 100-continue\r\n\r\n"
            )
            assert (await client.answer()).status == 100
            assert (await client.ask(b"hi")).body == b"POST / hi"
            await client.close()

    wire.run(main())


def test_a_body_that_would_be_too_long_is_refused_before_it_is_sent(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits={"body_bytes": 10}) as front:
            client = await wire.Client.open(front)
            answer = await client.ask(
                b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\nExpect: 100-continue\r\n\r\n"
            )
            assert (answer.status, answer.header(b"connection")) == (413, b"close")
            assert await client.rest() == b""

    wire.run(main())


def test_an_offer_to_upgrade_is_not_taken_up(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            for _ in range(2):
                answer = await client.ask(
                    b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
                    b"Content-Length: 2\r\n\r\nhi"
                )
                assert (answer.status, answer.body) == (200, b"POST / hi")
            await client.close()

    wire.run(main())


def test_empty_lines_before_a_request_are_ignored(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(b"\r\n\r\n" + GET)).status == 200
            client.send(b"\r")
            await asyncio.sleep(0.01)
            assert (await client.ask(b"\n" + GET)).status == 200
            await client.close()

    wire.run(main())


def test_a_handler_that_raises_is_answered_500_and_logged_once(wire, caplog):
    def fails(exchange):
        if exchange.head.path == "/late":
            exchange.start(200, ())
        raise LookupError("a mistake of ours")

    async def main():
        refused = []

        def refuse(status, message, head):
            refused.append((status, message, head.path))
            return ((b"content-type", b"application/json"),), b"{}"

        async with wire.serve(fails, refuse=refuse) as front:
            client = await wire.Client.open(front)
            answer = await client.ask(GET)
            assert (answer.status, answer.body) == (500, b"{}")
            assert answer.header(b"content-type") == b"application/json"
            assert (await client.ask(GET)).status == 500  # the connection lives on
            client.send(b"GET /late HTTP/1.1\r\nHost: a\r\n\r\n")
            await client.head()
            assert await client.rest() == b""
            assert refused == [(500, "internal error", "/hello")] * 2

    with caplog.at_level(logging.ERROR, "headrace.front"):
        wire.run(main())
    assert len(caplog.records) == 3


@pytest.mark.parametrize("value", [b"a\r\nset-cookie: b", b"a\nb", b"a\rb", b"a\0b"])
def test_a_header_of_the_answer_cannot_break_out_of_its_line(wire, value):
    async def main():
        async with wire.serve(
            lambda exchange: exchange.respond(200, ((b"x", value),), b"")
        ) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(GET)).status == 500
            await client.close()

    wire.run(main())


def test_abort_breaks_the_connection_without_a_word_to_the_handler(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            handler.seen[0].start(200, ())
            handler.seen[0].abort()
            assert b"0\r\n\r\n" not in await client.rest()
            await wire.eventually(lambda: not front.connections)
            assert handler.gone == []

    wire.run(main())
