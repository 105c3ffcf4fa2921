"""Copies by two threads: right whoever makes which part."""

from __future__ import annotations

import gc
import os
import threading
import weakref
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from headrace.engines.copying import LARGE_BYTES, Copier

TWO_CORES = pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="needs two cores")


@pytest.fixture
def copier() -> Iterator[Copier]:
    made = Copier()
    yield made
    made.close()
    if made._thread is not None:
        made._thread.join(10)


def random(size: int) -> np.ndarray[Any, Any]:
    return np.random.default_rng(size).integers(0, 255, size, np.uint8)


@pytest.mark.parametrize("size", [0, 5, LARGE_BYTES - 1, LARGE_BYTES, LARGE_BYTES + 4093])
def test_all_is_copied(copier: Copier, size: int) -> None:
    array = random(size)
    for _ in range(8):
        place = np.zeros_like(array)
        copier.copy(place, array)
        assert (place == array).all()


def test_of_any_shape_and_type(copier: Copier) -> None:
    array = random(2 * LARGE_BYTES).view(np.int64).reshape(4, 2, -1)
    place = np.zeros_like(array)
    copier.copy(place, array)
    assert (place == array).all()


@TWO_CORES
def test_a_thread_helps_with_large_ones_alone(copier: Copier) -> None:
    copier.copy(np.zeros(1), np.ones(1))
    assert copier._thread is None
    copier.copy(np.zeros(LARGE_BYTES, np.uint8), random(LARGE_BYTES))
    assert copier._thread is not None
    assert copier._thread.is_alive()


def test_what_the_other_thread_does_not_begin_the_caller_does(copier: Copier) -> None:
    copier.copy(np.zeros(LARGE_BYTES, np.uint8), random(LARGE_BYTES))
    copier.close()
    if copier._thread is not None:
        copier._thread.join(10)
    array, place = random(LARGE_BYTES), np.zeros(LARGE_BYTES, np.uint8)
    copier.copy(place, array)
    assert (place == array).all()


@TWO_CORES
def test_with_one_core_there_is_no_other_thread(copier: Copier) -> None:
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    try:
        array, place = random(LARGE_BYTES), np.zeros(LARGE_BYTES, np.uint8)
        copier.copy(place, array)
    finally:
        os.sched_setaffinity(0, cores)
    assert copier._thread is None
    assert (place == array).all()


def test_several_threads_may_copy_at_once(copier: Copier) -> None:
    arrays = [random(LARGE_BYTES + 8 * index) for index in range(4)]
    places = [np.zeros_like(array) for array in arrays]
    threads = [
        threading.Thread(target=copier.copy, args=pair) for pair in zip(places, arrays, strict=True)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(10)
    assert all((place == array).all() for place, array in zip(places, arrays, strict=True))


def test_nothing_is_held_when_it_is_over(copier: Copier) -> None:
    """There are clients' pages among its arrays."""
    array = random(LARGE_BYTES)
    gone = weakref.ref(array)
    copier.copy(np.zeros_like(array), array)
    del array
    other = random(LARGE_BYTES)
    copier.close()  # all that came before is done
    if copier._thread is not None:
        copier._thread.join(10)
    del other
    gc.collect()
    assert gone() is None
