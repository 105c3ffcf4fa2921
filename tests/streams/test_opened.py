"""Ended logs stay at hand for who asks again: a few, and not those with much in their requests."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

import msgspec

from headrace.domain.request import Message
from headrace.streams.encoded import encode
from headrace.streams.hub import Hub
from headrace.streams.log import Log
from headrace.streams.memory import MemoryStore
from headrace.streams.opened import OPENED_BYTES, OpenedLogs
from headrace.streams.store import LogHeader
from tests.streams.parts import finish, header, token

Run = Callable[[Coroutine[Any, Any, Any]], Any]

HUB = Hub(MemoryStore())


def asked(id: str, characters: int) -> LogHeader:
    """The header of a generation with a prompt so long."""
    one = header(id)
    request = msgspec.structs.replace(one.request, messages=(Message("user", "x" * characters),))
    return msgspec.structs.replace(one, request=request)


def ended(id: str, characters: int = 0) -> Log:
    return Log(asked(id, characters), HUB, visible_seq=2, end="finish")


def at_hand(opened: OpenedLogs, *ids: str) -> str:
    return "".join(id for id in ids if opened.get(id) is not None)


def test_the_one_asked_for_longest_ago_goes_first() -> None:
    opened = OpenedLogs(most=3)
    for id in "abc":
        opened.put(ended(id))
    opened.get("a")
    opened.put(ended("d"))
    assert at_hand(opened, *"abcd") == "acd"


def test_logs_whose_requests_are_long_leave_room_for_fewer() -> None:
    size = len(encode(asked("a", 1000)))
    opened = OpenedLogs(most_bytes=3 * size)
    for id in "abcd":
        opened.put(ended(id, 1000))
    assert at_hand(opened, *"abcd") == "bcd"
    opened.put(ended("e", 1900))
    assert at_hand(opened, *"bcde") == "de"


def test_one_that_is_larger_than_the_room_does_not_stay() -> None:
    opened = OpenedLogs(most_bytes=1000)
    opened.put(ended("a", 2000))
    assert opened.get("a") is None
    opened.put(ended("b", 100))
    assert at_hand(opened, "b") == "b"


def test_what_is_dropped_or_put_again_takes_no_room_any_more() -> None:
    opened = OpenedLogs(most_bytes=2 * len(encode(asked("a", 1000))))
    for _ in range(3):
        opened.put(ended("a", 1000))
    opened.put(ended("b", 1000))
    assert at_hand(opened, "a", "b") == "ab"
    opened.drop("a")
    opened.drop("a")
    opened.put(ended("c", 1000))
    assert at_hand(opened, "b", "c") == "bc"


def test_a_hub_does_not_hold_long_requests_of_ended_logs(run: Run) -> None:
    async def main() -> None:
        hub = Hub(MemoryStore())
        for id in ("gen_a", "gen_b", "gen_c"):
            hub.create(asked(id, OPENED_BYTES // 2 - 1000)).append([token(1), finish(2)])
        first = await hub.find("gen_a")
        await hub.find("gen_b")
        assert await hub.find("gen_a") is first
        await hub.find("gen_c")
        await hub.find("gen_b")
        assert await hub.find("gen_a") is not first

    run(main())
