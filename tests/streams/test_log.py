"""``Log``, ``Hold`` and ``Hub`` on a store in memory."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import End, Event
from headrace.streams.hold import Hold
from headrace.streams.hub import Hub
from headrace.streams.log import Log
from headrace.streams.memory import MemoryStore
from headrace.streams.reader import Subscription
from headrace.streams.store import LogHeader, LogWriter
from tests.streams.parts import (
    Collector,
    error,
    finish,
    flushed,
    header,
    token,
    tokens,
)

Run = Callable[[Coroutine[Any, Any, Any]], Any]


class Told:
    """In the place of a log's owner: how often it was told of the end, and what ``reader`` had seen then."""

    def __init__(self, log: Log, reader: Collector | None = None) -> None:
        self.store = log.owner.store
        self.behind: set[Hold] = set()
        self.times = 0
        self.seen: list[int] = []
        self._reader = reader
        log.owner = self

    def ended(self, log: Log) -> None:
        self.times += 1
        if self._reader is not None:
            self.seen = list(self._reader.seqs)


def new_log(id: str = "gen_a") -> Log:
    return Hub(MemoryStore()).create(header(id))


def test_an_event_is_visible_once_the_store_has_it_and_not_before(run: Run) -> None:
    class Watched(MemoryStore):
        def begin(
            self, header: LogHeader, events: Sequence[Event], raw: Sequence[Delta], end: End | None
        ) -> LogWriter | None:
            assert (reader.seen, the_log.visible_seq) == ([], 0)
            return super().begin(header, events, raw, end)

    reader = Collector()
    the_log = Hub(Watched()).create(header("gen_a"))

    async def main() -> None:
        the_log.attach(reader)
        the_log.append([token(1)])
        assert (reader.seqs, the_log.visible_seq, the_log.appended_seq) == ([1], 1, 1)

    run(main())


def test_what_a_reader_appends_reaches_everybody_behind_what_it_was_just_shown(run: Run) -> None:
    class Answering(Collector):
        def events(self, events: Sequence[Event]) -> bool:
            if not self.seen:
                log.append([token(2)])
                log.append([finish(3)])
            return super().events(events)

    log = new_log()

    async def main() -> None:
        first, answering, last = Collector(), Answering(), Collector()
        for reader in (first, answering, last):
            log.attach(reader)
        log.append([token(1)])
        for reader in (first, answering, last):
            assert reader.seqs == [1, 2, 3]

    run(main())


def test_what_comes_while_events_are_shown_is_checked_at_once_and_kept_in_order(run: Run) -> None:
    class Answering(Collector):
        def events(self, events: Sequence[Event]) -> bool:
            super().events(events)
            if self.seqs == [1]:
                log.append([token(2)])
                log.append((), [Delta("held back")])
                assert (log.visible_seq, log.appended_seq) == (1, 2)
                with pytest.raises(ValueError, match="continues with seq 3"):
                    log.append([token(4)])
                log.append([finish(3)])
                with pytest.raises(ValueError, match="terminal event"):
                    log.append([token(4)])
            elif self.seqs[-1] == 2:
                with pytest.raises(ValueError, match="terminal event"):
                    log.append([token(4)])
            return True

    log = new_log()

    async def main() -> None:
        answering, other = Answering(), Collector()
        log.attach(answering)
        log.attach(other)
        log.append([token(1)])
        assert answering.seqs == other.seqs == [1, 2, 3]
        assert log.end == "finish"

    run(main())


def test_a_log_that_fails_while_events_are_shown_loses_its_readers_when_all_have_them(
    run: Run,
) -> None:
    failure = HeadraceError(Code.STORE_FAILED, "disk full")

    class Breaking(Collector):
        def events(self, events: Sequence[Event]) -> bool:
            super().events(events)
            log.append([token(2)])
            log.fail(failure)
            log.append([token(3)])  # silently: the log is over
            assert self.error is None
            return True

    log = new_log()

    async def main() -> None:
        told = Told(log)
        breaking, other = Breaking(), Collector()
        log.attach(breaking)
        log.attach(other)
        log.append([token(1)])
        assert breaking.seqs == other.seqs == [1]
        assert breaking.error is other.error is failure
        assert told.times == 1

    run(main())


def test_a_late_reader_gets_everything_at_once_and_goes_on_live(run: Run) -> None:
    async def main() -> None:
        log, reader = new_log(), Collector()
        log.append(tokens(1, 5))
        await flushed()
        log.attach(reader)
        assert reader.seqs == [1, 2, 3, 4, 5]
        log.append([finish(6)])
        await reader.until(6)
        assert reader.seqs == [1, 2, 3, 4, 5, 6]

    run(main())


def test_a_lagging_reader_gets_nothing_until_it_resumes_and_then_the_rest_in_order(
    run: Run,
) -> None:
    async def main() -> None:
        log, slow, quick = new_log(), Collector(room=1), Collector()
        hold = log.attach(slow)
        log.attach(quick)
        for seq in range(1, 6):
            log.append([token(seq)])
            await flushed()
        assert (slow.seqs, quick.seqs) == ([1], [1, 2, 3, 4, 5])
        slow.room = None
        hold.resume()
        assert slow.seqs == [1, 2, 3, 4, 5]
        log.append([finish(6)])
        await slow.until(6)
        assert hold.over

    run(main())


def test_resume_from_within_the_reader_goes_on(run: Run) -> None:
    class Eager(Collector):
        hold: Subscription

        def events(self, events: Sequence[Event]) -> bool:
            super().events(events)
            if len(self.seen) > 1:
                self.hold.resume()
            return False

    async def main() -> None:
        log, reader = new_log(), Eager()
        reader.hold = log.attach(reader)
        for seq in (1, 2, 3):
            log.append([token(seq)])
            await flushed()
            if seq == 1:
                reader.hold.resume()
        assert reader.seqs == [1, 2, 3]

    run(main())


def test_the_hub_knows_how_many_read(run: Run) -> None:
    async def main() -> None:
        hub = Hub(MemoryStore())
        log = hub.create(header("gen_a"))
        holds = [log.attach(Collector()), log.attach(Collector(room=0)), log.attach(Collector())]
        log.append([token(1)])
        assert hub.readers == 3
        for hold in holds[:2]:
            hold.close()
            hold.close()
        assert hub.readers == 1
        log.append([finish(2)])
        assert hub.readers == 0

    run(main())


def test_a_closed_reader_is_not_called_again(run: Run) -> None:
    async def main() -> None:
        log, gone, stays = new_log(), Collector(), Collector()
        hold = log.attach(gone)
        log.attach(stays)
        log.append([token(1)])
        await flushed()
        hold.close()
        hold.close()
        hold.resume()
        log.append([finish(2)])
        await stays.until(2)
        assert gone.seqs == [1]

    run(main())


def test_a_failing_reader_is_detached_and_told_of_once_and_harms_no_other(
    run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    class Failing(Collector):
        def events(self, events: Sequence[Event]) -> bool:
            super().events(events)
            raise RuntimeError("broken reader")

    async def main() -> None:
        log, broken, fine = new_log(), Failing(), Collector()
        log.attach(broken)
        log.attach(fine)
        log.append([token(1)])
        await flushed()
        log.append([finish(2)])
        await fine.until(2)
        assert broken.seqs == [1]

    with caplog.at_level(logging.ERROR):
        run(main())
    assert [record.message for record in caplog.records] == [
        "a reader of gen_a failed and was detached"
    ]


def test_readers_that_come_go_and_resume_while_events_are_delivered_miss_and_repeat_nothing(
    run: Run,
) -> None:
    class Meddling(Collector):
        """When it gets event 2 it closes one reader, resumes another and attaches a third."""

        log: Log
        to_close: Subscription
        to_resume: Subscription

        def __init__(self) -> None:
            super().__init__()
            self.attached = Collector()

        def events(self, events: Sequence[Event]) -> bool:
            if events[0].seq == 2:
                self.to_close.close()
                self.to_resume.resume()
                self.log.attach(self.attached)
            return super().events(events)

    async def main() -> None:
        log = new_log()
        meddling, closed, lagging, last = Meddling(), Collector(), Collector(room=1), Collector()
        log.attach(meddling)
        meddling.log = log
        meddling.to_close = log.attach(closed)
        meddling.to_resume = log.attach(lagging)
        log.attach(last)
        log.append([token(1)])
        await flushed()
        lagging.room = None
        log.append([token(2)])
        await flushed()
        log.append([finish(3)])
        await flushed()
        for reader in (meddling, lagging, meddling.attached, last):
            assert reader.seqs == [1, 2, 3]
        assert closed.seqs == [1]

    run(main())


def test_a_thousand_readers_of_one_log_all_get_all_of_it(run: Run) -> None:
    async def main() -> None:
        log = new_log()
        readers = [Collector(room=None if i % 3 else 10) for i in range(1000)]
        holds = [log.attach(reader) for reader in readers]
        for first in range(1, 101, 5):
            log.append(tokens(first, 5))
            await flushed()
        log.append([finish(101)])
        for reader, hold in zip(readers, holds, strict=True):
            reader.room = None
            hold.resume()
            await reader.until(101)
        assert all(reader.seqs == list(range(1, 102)) for reader in readers)
        assert all(hold.over for hold in holds)

    run(main())


def test_nothing_can_follow_the_terminal_event_and_no_seq_can_be_left_out(run: Run) -> None:
    async def main() -> None:
        log = new_log()
        with pytest.raises(ValueError, match="continues with seq 1"):
            log.append([token(2)])
        log.append([token(1), error(2)])
        with pytest.raises(ValueError, match="terminal event"):
            log.append([token(3)])
        await flushed()
        assert (log.ended, log.end) == (True, "error")

    run(main())


def test_a_failed_store_gives_readers_what_is_visible_and_then_the_error(run: Run) -> None:
    failure = HeadraceError(Code.STORE_FAILED, "disk full")

    async def main() -> None:
        log = new_log()
        live, lagging, late = Collector(), Collector(room=1), Collector()
        ended = Told(log)
        log.attach(live)
        hold = log.attach(lagging)
        for seq in (1, 2):
            log.append([token(seq)])
            await flushed()
        log.fail(failure)
        log.append([token(3)])
        log.append([token(4)])  # silently: the log is over
        log.attach(late)
        lagging.room = None
        hold.resume()
        await flushed()
        for reader in (live, lagging, late):
            assert reader.seqs == [1, 2]
            assert reader.error is failure
        assert ended.times == 1
        assert log.failure is failure

    run(main())


def test_the_owner_is_told_once_that_a_log_ended_after_its_readers(run: Run) -> None:
    async def main() -> None:
        log, reader = new_log(), Collector()
        log.attach(reader)
        told = Told(log, reader)
        log.append([finish(1)])
        log.fail(HeadraceError(Code.STORE_FAILED, "too late"))
        assert (told.times, told.seen) == (1, [1])

    run(main())


def test_the_hub_holds_running_logs_and_opens_ended_ones_from_the_store(run: Run) -> None:
    async def main() -> None:
        hub = Hub(MemoryStore())
        log = hub.create(header("gen_a"))
        with pytest.raises(ValueError, match="exists already"):
            hub.create(header("gen_a"))
        assert hub.get("gen_a") is log
        assert await hub.find("gen_a") is log
        log.append([token(1), finish(2)])
        await flushed()
        assert hub.get("gen_a") is None
        assert len(hub) == 0
        found = await hub.find("gen_a")
        assert (found.visible_seq, found.end) == (2, "finish")
        assert await hub.find("gen_a") is found
        reader = Collector()
        found.attach(reader)
        await reader.until(2)
        assert reader.seen == [token(1), finish(2)]
        with pytest.raises(HeadraceError) as unknown:
            await hub.find("gen_b")
        assert unknown.value.code is Code.GENERATION_NOT_FOUND

    run(main())


def test_closing_while_the_store_is_asked_ends_the_task_that_asks(run: Run) -> None:
    class Patient(MemoryStore):
        """A store that has nothing in memory and takes its time."""

        def __init__(self) -> None:
            super().__init__()
            self.asked = asyncio.Event()

        def recent(self, id: str, after: int, limit_bytes: int) -> list[Event]:
            return []

        async def read(self, id: str, after: int, limit_bytes: int) -> list[Event]:
            self.asked.set()
            await asyncio.Event().wait()
            raise AssertionError

    async def main() -> None:
        store = Patient()
        log = Hub(store).create(header("gen_a"))
        log.append([token(1)])
        await flushed()
        hold = log.attach(Collector())
        await store.asked.wait()
        hold.close()
        await flushed()
        assert len(asyncio.all_tasks()) == 1

    run(main())
