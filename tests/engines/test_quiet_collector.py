"""While something is captured the collector does not run, whatever is made and whoever makes it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator

import pytest

from headrace.engines.quiet_collector import QuietCollector


class Ring:
    """Garbage that only the collector finds."""

    def __init__(self) -> None:
        self.myself = self


@pytest.fixture
def collections() -> Iterator[list[str]]:
    seen: list[str] = []

    def see(phase: str, info: dict[str, int]) -> None:
        seen.append(phase)

    gc.callbacks.append(see)
    yield seen
    gc.callbacks.remove(see)


def make_garbage() -> None:
    for _ in range(20_000):
        Ring()


def test_nothing_is_collected_in_the_body_by_any_thread(collections: list[str]) -> None:
    make_garbage()
    assert collections  # it would be
    with QuietCollector().quiet():
        collections.clear()
        other = threading.Thread(target=make_garbage)
        other.start()
        make_garbage()
        other.join()
        assert collections == []
    make_garbage()
    assert collections


def test_what_lived_before_is_frozen_and_garbage_of_before_is_gone(
    collections: list[str],
) -> None:
    frozen = gc.get_freeze_count()
    alive = [Ring() for _ in range(1000)]
    with QuietCollector().quiet():
        assert collections[:2] == ["start", "stop"]
        assert gc.get_freeze_count() >= frozen + len(alive)


def test_it_runs_again_after_a_capture_that_failed() -> None:
    with pytest.raises(RuntimeError), QuietCollector().quiet():
        raise RuntimeError
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with QuietCollector().quiet():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


def test_captures_come_one_after_the_other() -> None:
    """Or the end of the first would let the collector run in the second."""
    quiet = QuietCollector()
    inside, entered = threading.Event(), threading.Event()

    def second() -> None:
        inside.set()
        with quiet.quiet():
            entered.set()

    with quiet.quiet():
        thread = threading.Thread(target=second)
        thread.start()
        assert inside.wait(5)
        assert not entered.is_set()
    thread.join(5)
    assert entered.is_set()
