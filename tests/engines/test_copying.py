"""Copies by two threads: right whoever makes which part, and only where a core is free."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from headrace.engines.copying import LARGE_BYTES, Copier

TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


class House:
    """``copier``, on a machine on which so many threads run as are said to."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self.run(1)
        self.copier = Copier(str(file))

    def run(self, threads: int) -> None:
        self._file.write_text(f"0.20 0.18 0.12 {threads}/80 11206\n")

    def copies(self, array: np.ndarray[Any, Any]) -> bool:
        """Whether all of it arrives."""
        place = np.zeros_like(array)
        self.copier.copy(place, array)
        return bool((place == array).all())

    def stop(self) -> None:
        self.copier.close()
        if self.copier._thread is not None:
            self.copier._thread.join(10)


@pytest.fixture
def house(tmp_path: Path) -> Iterator[House]:
    made = House(tmp_path / "loadavg")
    yield made
    made.stop()


def random(size: int = LARGE_BYTES) -> np.ndarray[Any, Any]:
    return np.random.default_rng(size).integers(0, 255, size, np.uint8)


@pytest.mark.parametrize("size", [0, 5, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 4093])
def test_all_is_copied(house: House, size: int) -> None:
    array = random(size)
    assert all(house.copies(array) for _ in range(8))


def test_of_any_shape_and_type(house: House) -> None:
    assert house.copies(random(2 * LARGE_BYTES).view(np.int64).reshape(4, 2, -1))


@TWO_CORES
def test_a_thread_helps_with_large_ones_alone(house: House) -> None:
    assert house.copies(np.ones(1))
    assert house.copier._thread is None
    assert house.copies(random())
    assert house.copier._thread is not None
    assert house.copier._thread.is_alive()


@TWO_CORES
def test_and_only_where_a_core_is_free(house: House) -> None:
    cores = os.cpu_count() or 1
    house.run(cores)
    assert house.copies(random())
    assert house.copier._thread is None
    house.run(cores - 1)
    assert house.copies(random())
    assert house.copier._thread is not None


@pytest.mark.parametrize("told", [None, "", "0.1 0.2 0.3", "0.1 0.2 0.3 many/9 1"])
def test_what_the_kernel_does_not_tell_is_not_assumed(tmp_path: Path, told: str | None) -> None:
    file = tmp_path / "loadavg"
    if told is not None:
        file.write_text(told)
    copier = Copier(str(file))
    array = random()
    place = np.zeros_like(array)
    copier.copy(place, array)
    assert (place == array).all()
    assert copier._thread is None
    copier.close()


def test_the_kernel_tells_how_many_run() -> None:
    copier = Copier()
    copier._cores = 1 << 30
    assert copier._is_core_free()
    copier._load = os.devnull
    assert not copier._is_core_free()
    copier.close()


@TWO_CORES
def test_a_process_with_one_core_has_no_other_to_use(tmp_path: Path) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        house = House(tmp_path / "loadavg")
    finally:
        os.sched_setaffinity(0, cores)
    assert house.copies(random())
    assert house.copier._thread is None
    house.stop()


def test_what_the_other_thread_does_not_begin_the_caller_does(house: House) -> None:
    assert house.copies(random())
    house.copier._shares.put(None)
    if house.copier._thread is not None:
        house.copier._thread.join(10)
    assert house.copies(random())


def test_several_threads_may_copy_at_once(house: House) -> None:
    arrays = [random(LARGE_BYTES + 8 * index) for index in range(4)]
    places = [np.zeros_like(array) for array in arrays]
    pairs = list(zip(places, arrays, strict=True))
    threads = [threading.Thread(target=house.copier.copy, args=pair) for pair in pairs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all((place == array).all() for place, array in pairs)


def test_nothing_is_held_when_it_is_over(house: House) -> None:
    """There are clients' pages among its arrays."""
    array = random()
    gone = weakref.ref(array)
    assert house.copies(array)
    del array
    house.stop()
    gc.collect()
    assert gone() is None
