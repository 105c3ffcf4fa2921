"""What a turn of the event loop sends goes out at its end, in order, and never waits longer."""

from __future__ import annotations

import asyncio

from headrace.front.outbox import DIRECT_WRITES, LARGE_BYTES, LONELY_TURNS, MOST_WRITES, Outbox


class Wire:
    """A transport that keeps what is written, for all of one test."""

    def __init__(self, sent: list[tuple[str, bytes]], name: str) -> None:
        self.sent = sent
        self.name = name
        self.closing = self.broken = self.aborted = False

    def abort(self) -> None:
        self.aborted = True

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("no write after write_eof")
        assert not self.closing, "a closing transport must not be written to"
        self.sent.append((self.name, data))

    def is_closing(self) -> bool:
        return self.closing


def run(test):
    async def main():
        sent: list[tuple[str, bytes]] = []
        await test(Outbox(), sent, lambda name: Wire(sent, name))

    asyncio.run(main())


def test_the_writes_of_a_turn_go_out_together_at_its_end_and_in_order():
    async def test(outbox, sent, wire):
        a, b = wire("a"), wire("b")
        outbox.write(a, b"1")
        outbox.write(b, b"2")
        outbox.write(a, b"3")
        assert sent == []
        await asyncio.sleep(0)
        assert sent == [("a", b"1"), ("b", b"2"), ("a", b"3")]

    run(test)


def test_a_long_turn_does_not_keep_its_writes():
    async def test(outbox, sent, wire):
        a = wire("a")
        for _ in range(MOST_WRITES):
            outbox.write(a, b"x")
        assert len(sent) == MOST_WRITES

    run(test)


def test_large_data_goes_out_at_once_behind_what_waits():
    async def test(outbox, sent, wire):
        a, large = wire("a"), b"x" * LARGE_BYTES
        outbox.write(a, b"before")
        outbox.write(a, large)
        assert sent == [("a", b"before"), ("a", large)]

    run(test)


def test_what_waits_for_a_transport_that_closes_is_dropped_and_nobody_else_s():
    async def test(outbox, sent, wire):
        a, b = wire("a"), wire("b")
        outbox.write(a, b"1")
        outbox.write(b, b"2")
        a.closing = True
        outbox.flush()
        assert sent == [("b", b"2")]

    run(test)


def test_where_turns_have_a_single_write_most_do_not_wait():
    async def test(outbox, sent, wire):
        a = wire("a")
        for _ in range(LONELY_TURNS):
            outbox.write(a, b"x")
            await asyncio.sleep(0)
        sent.clear()
        for number in range(DIRECT_WRITES):
            outbox.write(a, b"x")
            assert len(sent) == number + 1
        outbox.write(a, b"looks again whether this turn has more")
        outbox.write(a, b"it has")
        assert len(sent) == DIRECT_WRITES
        await asyncio.sleep(0)
        assert sent[-1] == ("a", b"it has")
        outbox.write(a, b"so the next turn waits")
        assert sent[-1] == ("a", b"it has")

    run(test)


def test_a_transport_that_cannot_be_written_to_costs_the_others_nothing():
    async def test(outbox, sent, wire):
        a, b, c = wire("a"), wire("b"), wire("c")
        b.broken = True
        for each in (a, b, c):
            outbox.write(each, b"x")
        outbox.flush()
        assert sent == [("a", b"x"), ("c", b"x")]
        assert b.aborted

    run(test)
