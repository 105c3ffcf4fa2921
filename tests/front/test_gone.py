"""A client that leaves is noticed at once, whatever was going on, and nothing of it stays."""

from __future__ import annotations

import gc
import logging
import os

import pytest

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LEAVINGS = ["half_close", "reset", "close"]


async def leave(client, how):
    done = getattr(client, how)()
    if done is not None:
        await done


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_before_the_first_byte_of_the_answer_is_told_once(wire, how):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            await leave(client, how)
            await handler.until(lambda: handler.gone)
            exchange = handler.seen[0]
            assert exchange.gone
            exchange.start(200, ())  # does nothing now
            assert exchange.send(b"x")
            exchange.end()
            await wire.eventually(lambda: not front.connections)
            assert len(handler.gone) == 1
            await client.close()

    wire.run(main())


@pytest.mark.parametrize("how", LEAVINGS)
def test_leaving_in_the_middle_of_the_answer_is_told_once(wire, how):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            handler.seen[0].start(200, ())
            handler.seen[0].send(b"one")
            await client.head()
            await leave(client, how)
            await handler.until(lambda: handler.gone)
            await wire.eventually(lambda: not front.connections)
            assert len(handler.gone) == 1
            await client.close()

    wire.run(main())


@pytest.mark.parametrize("how", LEAVINGS)
@pytest.mark.parametrize(
    "sent", [b"", b"GE", GET[:-1], b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nab"]
)
def test_leaving_in_the_middle_of_a_request_leaves_nothing(wire, how, sent):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            await wire.eventually(lambda: front.connections)
            client.send(sent)
            await wire.eventually(lambda: not client.writer.transport.get_write_buffer_size())
            await leave(client, how)
            await wire.eventually(lambda: not front.connections)
            assert front.arriving_bytes == 0
            await client.close()
        assert handler.seen == []

    wire.run(main())


def test_a_half_closed_client_that_reads_nothing_is_gone_at_once(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(GET)
            await handler.until(lambda: handler.seen)
            exchange = handler.seen[0]
            exchange.on_drain = lambda: fill(exchange)
            exchange.start(200, ())
            fill(exchange)
            client.half_close()
            await handler.until(lambda: handler.gone)
            assert front.exchanges == 0
            client.reset()
            await client.close()

    wire.run(main())


def fill(exchange):
    while exchange.send(b"x" * 60_000):
        pass


def test_a_half_closed_client_still_gets_an_answer_that_is_ready_at_once(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            client.half_close()
            assert (await client.answer()).status == 200
            assert await client.rest() == b""

    wire.run(main())


@pytest.mark.parametrize("how", LEAVINGS)
def test_a_client_that_sent_much_ahead_and_left_is_noticed_too(wire, how):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler, limits={"idle_s": 0.1}) as front:  # a quick timer
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            (connection,) = front._connections.open
            client.send(GET * 2500)  # 90 kB
            await wire.eventually(lambda: not connection._reading)
            await leave(client, how)
            await handler.until(lambda: handler.gone)
            await wire.eventually(lambda: not front.connections)
            await client.close()

    wire.run(main())


@pytest.mark.parametrize("callback", ["on_gone", "on_drain"])
def test_a_callback_that_raises_is_logged_and_leaves_nothing_behind(wire, caplog, callback):
    def fails():
        raise LookupError("a mistake in a callback")

    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(GET)
            await handler.until(lambda: handler.seen)
            exchange = handler.seen[0]
            setattr(exchange, callback, fails)
            exchange.start(200, ())
            while exchange.send(b"x" * 60_000):
                pass
            if callback == "on_drain":
                client.writer.transport.resume_reading()
                while not caplog.records:
                    await client.reader.read(100_000)
            client.reset()
            await wire.eventually(lambda: not front.connections)
            assert front.exchanges == 0
            await client.close()

    with caplog.at_level(logging.ERROR, "headrace.front"):
        wire.run(main())
    assert len(caplog.records) == 1


@pytest.mark.parametrize("sent", [b"", GET, GET[:-3]])
def test_a_thousand_connections_that_come_and_go_leave_no_descriptor(wire, sent):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            before = len(os.listdir("/proc/self/fd"))
            for _ in range(10):
                clients = [await wire.Client.open(front) for _ in range(100)]
                for client in clients:
                    client.send(sent)
                await wire.eventually(lambda: front.connections == 100)
                for number, client in enumerate(clients):
                    await leave(client, LEAVINGS[number % 3])
                await wire.eventually(lambda: not front.connections)
                for client in clients:
                    await client.close()
            assert front.exchanges == 0
            gc.collect()
            await wire.eventually(lambda: len(os.listdir("/proc/self/fd")) <= before)
            if sent == GET:
                assert all(exchange.gone for exchange in handler.seen)
                assert len(handler.gone) == len(handler.seen)

    wire.run(main())
