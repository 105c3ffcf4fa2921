"""An upstream without room: who was refused waits in our queue and goes again, and nobody is lost."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
from tests.service.house import WORDS, House, Witness

from headrace.domain.errors import Code
from headrace.domain.event import Finish, Progress
from headrace.engine_building import prompt_tokens
from headrace.engines.measured import MeasuredEngine
from headrace.engines.openai import OpenAIOptions
from headrace.engines.script import Script
from headrace.going_on import MAX_FRUITLESS, may_pause
from headrace.routing.model import Limit, Replica
from headrace.scheduling.adaptive import UpstreamLimit

Run = Callable[[Coroutine[Any, Any, Any]], Any]


def phases(seen: Witness) -> list[str]:
    return [event.phase for event in seen.events_seen if isinstance(event, Progress)]


async def ticking(house: House, *readers: Witness, ahead_s: float = 100.0) -> None:
    """The clock runs ahead, so that no pause takes its time."""
    while not all(seen.ended.is_set() for seen in readers):
        house.service.tick(time.monotonic() + ahead_s)
        await asyncio.sleep(0)


@pytest.mark.parametrize("code", [Code.RATE_LIMITED, Code.QUEUE_FULL])
@pytest.mark.parametrize("stream", [True, False])
def test_who_is_refused_waits_and_goes_again(run: Run, code: Code, stream: bool) -> None:
    async def main() -> None:
        house = await House(Script(refuse=code, times=3), Script(WORDS)).open()
        seen = Witness(house.ask(stream=stream))
        await ticking(house, seen)
        assert await seen.whole() == "".join(WORDS)
        assert phases(seen) == ["queued"]  # told once
        assert house.engines[0].started == 4
        assert (house.in_use, len(house.flow.queue)) == (0, 0)

    run(main())


def test_while_it_rests_it_is_up_and_gets_nothing(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(refuse=Code.RATE_LIMITED, times=1), Script(WORDS)).open()
        heard: list[object] = []
        house.topics.subscribe("engine", heard.append)
        first = Witness(house.ask())
        for _ in range(20):  # turns of the loop: the refusal comes in the first few
            await asyncio.sleep(0)
        second = Witness(house.ask())
        assert house.engines[0].started == 1
        assert house.flow.model.readiness() == (True, "")
        assert house.flow.serving
        await ticking(house, first, second)
        for seen in (first, second):
            assert await seen.whole() == "".join(WORDS)
        assert heard == []  # it neither went down nor came up

    run(main())


def test_one_that_never_has_room_is_told_after_some_attempts(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(refuse=Code.RATE_LIMITED)).open()
        seen = Witness(house.ask())
        await ticking(house, seen)
        await seen.whole()
        assert seen.code == "rate_limited"
        assert house.engines[0].started == MAX_FRUITLESS

    run(main())


def test_as_long_as_it_works_for_others_no_attempt_counts(run: Run) -> None:
    refuses = 3 * MAX_FRUITLESS

    async def main() -> None:
        scripts = (
            Script(WORDS, when="long", hang_after=1),
            Script(refuse=Code.RATE_LIMITED, times=refuses),
            Script(WORDS),
        )
        house = await House(*scripts).open()
        long = Witness(house.ask("long"))
        await long.token(1)
        seen = Witness(house.ask())
        await ticking(house, seen)
        assert await seen.whole() == "".join(WORDS)
        assert house.engines[0].started == refuses + 2
        await house.service.close(0.0)

    run(main())


def test_an_upstream_that_has_no_room_is_waited_for_when_another_dies(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(times=1, hang_after=0), Script(WORDS), replicas=2).open()
        seen, other = house.ask(), house.ask()
        for _ in range(5):
            await asyncio.sleep(0)
        house.service.cancel(other)
        dying, resting = house.engines
        assert (dying.running, resting.running) == (1, 0)
        house.flow.model.replicas[1].refused(time.monotonic(), 30.0)
        dying.crash(state="unreachable")
        assert house.flow.serving
        reads = Witness(seen)
        await ticking(house, reads)
        assert await reads.whole() == "".join(WORDS)

    run(main())


def test_nobody_is_paused_for_a_place_that_an_upstream_at_rest_does_not_give(run: Run) -> None:
    async def main() -> None:
        house = await House(Script(WORDS, hang_after=1), slots=1).open()
        generation = house.ask()
        await Witness(generation).token(1)
        assert may_pause(generation, house.flow)  # type: ignore[arg-type]
        house.flow.model.replicas[0].refused(time.monotonic(), 30.0)
        assert not may_pause(generation, house.flow)  # type: ignore[arg-type]
        await house.service.close(0.0)

    run(main())


class Hidden:
    """An upstream with room for ``slots`` at once that refuses the rest, and says so to nobody. Its answers end when
    ``all`` are there; ``headers``: of a refusal."""

    def __init__(self, slots: int, all: int = 0, headers: bytes = b"") -> None:
        self.slots = slots
        self.all, self.headers = all, headers
        self.complete = asyncio.Event()
        self.there = self.most = self.refusals = self.answers = 0

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
                await reader.readexactly(length)
                if b"/models " in head:
                    writer.write(_answer(200, {"data": [{"id": "m"}]}))
                elif self.there >= self.slots:
                    self.refusals += 1
                    error = {"error": {"message": "too many"}}
                    writer.write(_answer(429, error, self.headers))
                else:
                    await self._say(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _say(self, writer: asyncio.StreamWriter) -> None:
        self.there += 1
        self.most = max(self.most, self.there)
        kind = b"content-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n"
        writer.write(b"HTTP/1.1 200 OK\r\n" + kind)
        for word in WORDS:
            writer.write(_chunk({"delta": {"content": word}}))
            await asyncio.sleep(0.001)
        if self.there >= self.all:
            self.complete.set()
        await self.complete.wait()
        self.there -= 1
        self.answers += 1
        end = b"data: [DONE]\n\n"
        writer.write(_chunk({"delta": {}, "finish_reason": "stop"}))
        writer.write(b"%x\r\n%b\r\n0\r\n\r\n" % (len(end), end))


def _answer(status: int, body: Any, headers: bytes = b"") -> bytes:
    text = json.dumps(body).encode()
    head = b"HTTP/1.1 %d X\r\ncontent-type: application/json\r\n%b" % (status, headers)
    return head + b"content-length: %d\r\n\r\n%b" % (len(text), text)


def _chunk(choice: dict[str, Any]) -> bytes:
    event = b"data: %b\n\n" % json.dumps({"choices": [{"index": 0, **choice}]}).encode()
    return b"%x\r\n%b\r\n" % (len(event), event)


@asynccontextmanager
async def house_before(
    hidden: Hidden, limit: Limit | None = None
) -> AsyncIterator[tuple[House, Replica[Any]]]:
    """A service whose only replica is this upstream, whose limit is found."""
    server = await asyncio.start_server(hidden, "127.0.0.1", 0)
    url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"
    engine = MeasuredEngine(OpenAIOptions("m", url), prompt_tokens)
    replica: Replica[Any] = Replica("0", engine, limit or UpstreamLimit())
    engine.room = replica
    house = House(replicas=0, upstreams=[replica])
    await engine.load()
    await house.open()
    try:
        yield house, replica
    finally:
        await house.service.close(0.0)
        await engine.close()
        server.close()


def test_refusals_find_what_an_upstream_has_and_no_request_is_lost(run: Run) -> None:
    async def main() -> None:
        hidden = Hidden(3)
        async with house_before(hidden) as (house, replica):
            readers = [Witness(house.ask(stream=n % 2 == 0)) for n in range(60)]
            ticks = asyncio.create_task(ticking(house, *readers, ahead_s=0.0))
            for seen in readers:
                assert await seen.whole() == "".join(WORDS)
                assert isinstance(seen.end, Finish)
            await ticks
            assert (hidden.most, hidden.answers) == (3, 60)
            assert replica.places <= 6
            assert (replica.in_use, house.in_use) == (0, 0)

    run(main())


class OneThenAll:
    """A limit of one, and of all once a first token came."""

    limit = 1

    def took(self, prompt_tokens: float, took_s: float, in_flight: int) -> None:
        self.limit = 4

    def refused(self, in_flight: int) -> None:
        """Nothing is."""


def test_who_waits_begins_as_soon_as_there_is_more_room(run: Run) -> None:
    async def main() -> None:
        hidden = Hidden(4, all=4)  # none ends before all are there, and nothing ticks
        async with house_before(hidden, OneThenAll()) as (house, replica):
            readers = [Witness(house.ask()) for _ in range(4)]
            assert replica.in_use == 1
            for seen in readers:
                assert await seen.whole() == "".join(WORDS)

    run(main())


def test_an_upstream_is_left_alone_until_the_time_that_it_said(run: Run) -> None:
    async def main() -> None:
        hidden = Hidden(0, headers=b"retry-after: 30\r\n")
        async with house_before(hidden) as (house, replica):
            seen = Witness(house.ask())
            while not replica.refusals:  # noqa: ASYNC110
                await asyncio.sleep(0)
            now = time.monotonic()
            house.service.tick(now + 25.0)
            assert (replica.ready, replica.up) == (False, True)
            hidden.slots = 1
            house.service.tick(now + 31.0)
            assert await seen.whole() == "".join(WORDS)
            assert hidden.refusals == 1

    run(main())


def test_a_client_is_told_of_a_time_that_is_too_long_to_wait(run: Run) -> None:
    async def main() -> None:
        hidden = Hidden(0, headers=b"retry-after: 3600\r\n")
        async with house_before(hidden) as (house, _):
            seen = Witness(house.ask())
            await seen.whole()
            assert seen.code == "rate_limited"
            assert hidden.refusals == 1

    run(main())
