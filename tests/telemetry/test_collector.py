from __future__ import annotations

import gc
from collections.abc import Iterator

import pytest

from headrace.telemetry.collector import REST_TICKS, GcWatch


@pytest.fixture
def watch() -> Iterator[GcWatch]:
    made = GcWatch()
    made.install()
    yield made
    made.remove()
    gc.unfreeze()


def test_every_collection_is_counted_by_its_generation(watch: GcWatch) -> None:
    before = [pauses.count for pauses in watch.pauses]
    gc.collect(0)
    gc.collect(2)
    after = [pauses.count for pauses in watch.pauses]
    assert after[0] >= before[0] + 1
    assert after[2] == before[2] + 1
    assert watch.pauses[2].total_s > 0


def test_installing_twice_counts_once(watch: GcWatch) -> None:
    watch.install()
    before = watch.pauses[2].count
    gc.collect(2)
    assert watch.pauses[2].count == before + 1


def test_a_removed_watch_counts_nothing(watch: GcWatch) -> None:
    watch.remove()
    before = watch.pauses[2].count
    gc.collect(2)
    assert watch.pauses[2].count == before


def test_settling_freezes_what_lives(watch: GcWatch) -> None:
    gc.unfreeze()
    watch.settle()
    assert gc.get_freeze_count() > 1000


def test_what_died_frozen_is_found_after_an_unload(watch: GcWatch) -> None:
    class Model:
        alive = 0

        def __init__(self) -> None:
            self.cycle = self
            Model.alive += 1

        def __del__(self) -> None:
            Model.alive -= 1

    model = Model()
    watch.settle()
    del model
    gc.collect()
    assert Model.alive == 1
    watch.release()
    assert Model.alive == 0
    assert gc.get_freeze_count() > 0


def test_what_a_full_collection_leaves_is_not_walked_by_the_next(watch: GcWatch) -> None:
    watch.settle()
    streams = [[number] for number in range(1000)]
    frozen = gc.get_freeze_count()
    gc.collect(2)
    assert gc.get_freeze_count() >= frozen + len(streams)


def test_cycles_that_were_frozen_under_load_are_found_when_the_server_rests(watch: GcWatch) -> None:
    class Stream:
        alive = 0

        def __init__(self) -> None:
            self.cycle = self
            Stream.alive += 1

        def __del__(self) -> None:
            Stream.alive -= 1

    stream = Stream()
    gc.collect(2)
    del stream
    gc.collect(2)
    for _ in range(REST_TICKS - 1):
        watch.rest(True)
    watch.rest(False)
    for _ in range(REST_TICKS - 1):
        watch.rest(True)
    assert Stream.alive == 1
    watch.rest(True)
    assert Stream.alive == 0


def test_what_was_settled_at_the_start_is_not_looked_through_again(watch: GcWatch) -> None:
    """Whoever comes some seconds after the start is not held up for it."""
    watch.settle()
    before = watch.pauses[2].count
    for _ in range(2 * REST_TICKS):
        watch.rest(True)
    assert watch.pauses[2].count == before


def test_what_was_frozen_under_load_is_found_though_a_model_was_loaded_since(
    watch: GcWatch,
) -> None:
    gc.collect(2)
    watch.settle()
    before = watch.pauses[2].count
    for _ in range(REST_TICKS):
        watch.rest(True)
    assert watch.pauses[2].count == before + 1


def test_thresholds_stay_the_interpreters_own(watch: GcWatch) -> None:
    before = gc.get_threshold()
    watch.settle()
    watch.release()
    assert gc.get_threshold() == before
