from __future__ import annotations

import asyncio

import pytest

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


def test_idle_connections_close_at_once_and_running_exchanges_end(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            idle, whole, stream, half = [await wire.Client.open(front) for _ in range(4)]
            whole.send(GET)
            await handler.until(lambda: len(handler.seen) == 1)
            stream.send(GET)
            await handler.until(lambda: len(handler.seen) == 2)
            handler.seen[1].start(200, ())
            half.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\na")
            await wire.eventually(lambda: front.arriving_bytes)
            closing = asyncio.create_task(front.close(wire.TIMEOUT_S))
            assert await wire.within(idle.rest()) == b""
            with pytest.raises(ConnectionRefusedError):
                await wire.Client.open(front)
            half.send(b"b")
            await handler.until(lambda: len(handler.seen) == 3)
            for exchange in (handler.seen[0], handler.seen[2]):
                exchange.respond(200, (), b"")
            for client in (whole, half):
                assert (await client.answer()).header(b"connection") == b"close"
                assert await client.rest() == b""
            handler.seen[1].send(b"to the end")
            assert not closing.done()
            handler.seen[1].end()
            assert (await stream.answer()).body == b"to the end"
            assert await stream.rest() == b""
            assert await closing
            assert handler.gone == []

    wire.run(main())


def test_what_does_not_end_in_time_is_broken_off(wire):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(GET)
            await handler.until(lambda: handler.seen)
            handler.seen[0].start(200, ())
            assert await front.close(0.05) is False
            assert (front.connections, front.exchanges) == (0, 0)
            assert len(handler.gone) == 1
            assert b"0\r\n\r\n" not in await client.rest()

    wire.run(main())


def test_closing_twice_does_no_harm(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            assert await front.close(1.0)
            assert await front.close(1.0)

    wire.run(main())
