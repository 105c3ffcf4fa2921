from __future__ import annotations

import asyncio
import resource

from headrace.front.exchange import HIGH_WATER_BYTES

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
PIECE = b"x" * 16_000
TOTAL = 200 * 1000 * 1000


class Pump:
    """A handler that streams TOTAL bytes, as fast as it is let."""

    def __init__(self) -> None:
        self.sent = 0
        self.stops = 0
        self.done = asyncio.Event()
        self.stopped = asyncio.Event()

    def __call__(self, exchange):
        exchange.start(200, ())
        exchange.on_drain = lambda: self.go_on(exchange)
        self.go_on(exchange)

    def go_on(self, exchange):
        while self.sent < TOTAL:
            self.sent += len(PIECE)
            if not exchange.send(PIECE):
                self.stops += 1
                self.stopped.set()
                return
        exchange.end()
        self.done.set()


def peak_kib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def test_a_client_that_reads_nothing_holds_the_handler_back_until_it_reads(wire):
    async def main():
        pump = Pump()
        async with wire.serve(pump) as front:
            before = peak_kib()
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(GET)
            await wire.within(pump.stopped.wait())
            (connection,) = front._connections.open
            unsent = connection.transport.get_write_buffer_size()
            assert HIGH_WATER_BYTES < unsent <= HIGH_WATER_BYTES + 2 * len(PIECE)
            assert pump.sent < 10_000_000  # the rest of it is in the kernel's buffers
            client.writer.transport.resume_reading()
            _, headers = await client.head()
            assert dict(headers)[b"transfer-encoding"] == b"chunked"
            got = 0
            while piece := await client.chunk():
                got += len(piece)
                assert connection.transport.get_write_buffer_size() <= 2 * HIGH_WATER_BYTES
            assert got == pump.sent >= TOTAL
            assert pump.stops > 10
            assert pump.done.is_set()
            assert peak_kib() - before < 20_000
            await client.close()

    wire.run(main())


def test_answers_that_are_not_read_stop_the_next_requests(wire):
    async def main():
        answered = 0

        def handler(exchange):
            nonlocal answered
            answered += 1
            exchange.respond(200, (), b"x" * 100_000)

        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.writer.transport.pause_reading()
            client.send(GET * 1000)
            await wire.eventually(lambda: answered)
            (connection,) = front._connections.open

            async def settled():
                last = -1
                while last != answered:
                    last = answered
                    await asyncio.sleep(0.1)

            await wire.within(settled())
            assert answered < 500
            assert connection.transport.get_write_buffer_size() <= 300_000
            client.writer.transport.resume_reading()
            for _ in range(1000):
                assert len((await client.answer()).body) == 100_000
            await client.close()

    wire.run(main())
