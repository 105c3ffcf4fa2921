"""Long bodies that are put where they stay, beside others that come as they always do."""

from __future__ import annotations

import asyncio
import errno
import gc
import mmap
import os
from functools import partial
from pathlib import Path
from typing import Any, cast

import pytest

from headrace.front.exchange import Exchange
from headrace.front.http1_exchange import Http1Exchange
from headrace.front.limits import Limits
from headrace.front.listen import Front, FrontOptions, listen
from headrace.front.mapped_body import FEW, HUGE_PAGE_BYTES, LARGE_BYTES, MappedBody

LONG = os.urandom(3 * LARGE_BYTES + 5)
LENGTH = b"content-length: %d\r\n" % len(LONG)
FIRST = b"POST /v2/models/m HTTP/1.1\r\nhost: h\r\n" + LENGTH + b"\r\n"


class Kept:
    """A handler that keeps bodies, and answers with two parts: how long one was, and the body itself."""

    def __init__(self) -> None:
        self.bodies: list[Any] = []

    def __call__(self, exchange: Exchange) -> None:
        self.bodies.append(exchange.body)
        said = b"%d " % len(exchange.body)
        exchange.respond_parts(200, [], [said, memoryview(exchange.body)])


async def opened(handler: Any, **limits: Any) -> Front:
    options = FrontOptions(
        port=0, maps=lambda head: head.path.startswith("/v2/"), limits=Limits(**limits)
    )
    return await listen(handler, options)


async def connected(front: Front) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", front.port, limit=1 << 24)


async def answer(reader: asyncio.StreamReader) -> bytes:
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    assert head.startswith(b"http/1.1 200")
    return await reader.readexactly(size)


def test_a_long_body_is_a_view_and_what_follows_it_is_the_next_request(wire: Any) -> None:
    async def main() -> None:
        kept = Kept()
        front = await opened(kept)
        reader, writer = await connected(front)
        for first in (100, len(LONG)):  # of the body, in one piece with its head
            writer.write(FIRST + LONG[:first])
            await asyncio.sleep(0)
            writer.write(LONG[first:] + FIRST.replace(LENGTH, b"content-length: 2\r\n") + b"hi")
            assert await answer(reader) == b"%d %b" % (len(LONG), LONG)
            assert await answer(reader) == b"2 hi"
        assert [type(body) for body in kept.bodies] == [memoryview, bytes] * 2
        assert front.arriving_bytes == 0
        writer.close()
        await front.close(0)

    wire.run(main())


def test_elsewhere_it_is_bytes(wire: Any) -> None:
    async def main() -> None:
        kept = Kept()
        front = await opened(kept)
        reader, writer = await connected(front)
        writer.write(FIRST.replace(b"/v2/", b"/v1/") + LONG)
        assert await answer(reader) == b"%d %b" % (len(LONG), LONG)
        assert [type(body) for body in kept.bodies] == [bytes]
        writer.close()
        await front.close(0)

    wire.run(main())


def test_a_client_that_leaves_in_the_middle_leaves_nothing(wire: Any) -> None:
    async def main() -> None:
        kept = Kept()
        front = await opened(kept)
        for abrupt in (False, True):
            reader, writer = await connected(front)
            writer.write(FIRST + LONG[:LARGE_BYTES])
            await wire.eventually(lambda: front.arriving_bytes >= LARGE_BYTES)
            if abrupt:
                writer.transport.abort()
            else:
                writer.write_eof()
                assert await reader.read() == b""
            await wire.eventually(lambda: not front.arriving_bytes and not front.connections)
            writer.close()
        assert not kept.bodies
        await front.close(0)

    wire.run(main())


def bodies() -> int:
    """That there are."""
    return sum(isinstance(one, MappedBody) for one in gc.get_objects())


def test_an_idle_connection_does_not_keep_the_memory_of_a_body_that_was_answered(wire: Any) -> None:
    def handler(exchange: Exchange) -> None:
        exchange.respond(200, [], b"done")

    async def main() -> None:
        async with wire.serve(handler, maps=lambda _: True) as front:
            reader, writer = await connected(front)
            writer.write(FIRST + LONG[:LARGE_BYTES])
            await wire.eventually(lambda: front.arriving_bytes >= LARGE_BYTES)
            writer.write(LONG[LARGE_BYTES:])
            assert await answer(reader) == b"done"
            kept, there = bodies(), front.connections
            writer.close()
        assert (kept, there) == (0, 1)

    wire.run(main())


def test_one_that_leaves_in_the_middle_and_takes_no_answers_does_not_keep_its_memory(
    wire: Any,
) -> None:
    """Until its answers are sent, or not taken for long, its connection stays."""
    asked: list[Http1Exchange] = []

    def handler(exchange: Exchange) -> None:
        asked.append(cast(Http1Exchange, exchange))
        exchange.respond(200, [], b"a" * 40_000)

    def reached(count: int) -> bool:
        return len(asked) == count

    def unsent() -> int:
        size: int = asked[-1].connection.transport.get_write_buffer_size()
        return size

    async def main() -> None:
        async with wire.serve(handler, maps=lambda _: True) as front:
            _, writer = await asyncio.open_connection("127.0.0.1", front.port, limit=1024)
            while not asked or not unsent():
                count = len(asked) + 1
                writer.write(b"GET / HTTP/1.1\r\nhost: h\r\n\r\n")
                await wire.eventually(partial(reached, count))
            writer.write(FIRST + LONG[:LARGE_BYTES])
            await wire.eventually(lambda: front.arriving_bytes >= LARGE_BYTES)
            writer.write_eof()
            await wire.eventually(lambda: not front.arriving_bytes)
            kept, there = bodies(), front.connections
            writer.transport.abort()
        assert (kept, there) == (0, 1)

    wire.run(main())


@pytest.mark.parametrize("limit", ["arriving_bytes", "body_s"])
def test_one_that_is_refused_can_be_read_while_its_client_still_sends(
    wire: Any, limit: str
) -> None:
    async def main() -> None:
        value = LARGE_BYTES if limit == "arriving_bytes" else 0.0
        front = await opened(Kept(), **{limit: value})
        reader, writer = await connected(front)
        writer.write(FIRST + LONG[: 2 * LARGE_BYTES])
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503" if limit == "arriving_bytes" else b"HTTP/1.1 408")
        writer.write(LONG[2 * LARGE_BYTES :])
        await reader.read()
        assert front.arriving_bytes == 0
        writer.close()
        await front.close(0)

    wire.run(main())


def test_bodies_of_a_byte_take_no_more_memory_than_a_page_each_but_the_first_few(wire: Any) -> None:
    """Else what arrives would take a million times what is counted of it."""
    first = FIRST.replace(LENGTH, b"content-length: %d\r\n" % (8 * HUGE_PAGE_BYTES))
    pages = Path("/proc/self/statm")

    def resident() -> int:
        return int(pages.read_text().split()[1]) * mmap.PAGESIZE

    async def main() -> None:
        front = await opened(Kept())
        writers = []

        async def more(count: int) -> int:
            before = resident()
            for _ in range(count):
                _, writer = await connected(front)
                writer.write(first + b"1")
                writers.append(writer)
            await wire.eventually(lambda: front.arriving_bytes == len(writers))
            return resident() - before

        assert await more(FEW) < (FEW + 8) * HUGE_PAGE_BYTES
        assert await more(2 * FEW) < FEW * HUGE_PAGE_BYTES // 4
        for writer in writers:
            writer.close()
        await wire.eventually(lambda: not front.arriving_bytes)
        await front.close(0)

    wire.run(main())


@pytest.mark.parametrize("huge", [True, False])
def test_what_was_put_there_is_there_whatever_its_pages_are(huge: bool) -> None:
    body = MappedBody(8 * HUGE_PAGE_BYTES, huge=huge)
    assert body.feed(b"1") is None
    more = os.urandom(HUGE_PAGE_BYTES)
    for _ in range(7):
        assert body.feed(more) is None
    assert body.feed(more) == more[-1:]
    assert body.content == b"1" + more * 7 + more[:-1]


def test_where_there_is_no_memory_for_one_it_is_refused(
    wire: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none(*_: object) -> None:
        raise OSError(errno.ENOMEM, "no memory")

    async def main() -> None:
        front = await opened(Kept())
        reader, writer = await connected(front)
        with monkeypatch.context() as patch:
            patch.setattr(mmap, "mmap", none)
            writer.write(FIRST + b"1")
            head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 503")
        writer.close()
        await front.close(0)

    wire.run(main())
