"""Generations that take what nobody else wants: they fill the slots, and give them back at once."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from tests.service.house import House, Witness

from headrace.domain.event import Progress
from headrace.domain.request import CONTINUE, Caller, Message, Request, Sampling, Urgency
from headrace.engines.script import Script
from headrace.protocols.port import Generation

Run = Callable[[Coroutine[Any, Any, Any]], Any]
LONG = Script(tuple(f"{n} " for n in range(100)), delay_ms=2)


def ask(house: House, *, spare: bool) -> Generation:
    messages = (Message("user", "hello"),)
    request = Request("m", "chat", messages, sampling=Sampling(max_tokens=1000), stream=True)
    urgency = Urgency(spare=True) if spare else None
    return house.service.submit(request, Caller(leaving=CONTINUE, urgency=urgency), "native", {})


def test_a_live_request_has_its_place_at_once_and_the_row_goes_on_behind_it(run: Run) -> None:
    async def main() -> None:
        house = await House(LONG, slots=1).open()
        rows = [Witness(ask(house, spare=True), client=False) for _ in range(2)]
        await rows[0].token(3)
        live = Witness(ask(house, spare=False), client=False)
        await live.token(1)
        assert len(rows[0].tokens) < 100
        assert any(
            isinstance(event, Progress) and event.phase == "paused" for event in rows[0].events_seen
        )
        assert await live.whole() == "".join(LONG.tokens)  # type: ignore[arg-type]
        assert not rows[1].tokens
        for row in rows:
            assert await row.whole() == "".join(LONG.tokens)  # type: ignore[arg-type]

    run(main())
