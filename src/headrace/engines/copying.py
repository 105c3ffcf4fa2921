"""Copies of large arrays by two threads at once, as ONNX Runtime computes with several.

One core does not use all of a memory's bandwidth. What the second thread has not begun when the first is through, that
one does as well: where no core is free, a copy takes as long as without it.
"""

from __future__ import annotations

import os
from queue import SimpleQueue
from threading import Lock, Thread
from typing import NamedTuple

import numpy as np

from headrace.engines.tensor_memory import Array

LARGE_BYTES = 8 * 1024 * 1024
"""From here on it pays to wake a thread, and to wait for it."""
OWN_SHARE = 9 / 16
"""Of the caller, who begins sooner."""


class _Share(NamedTuple):
    """``claimed``: held by whoever copies it. ``copied``: held until the second thread has."""

    place: Array
    array: Array
    claimed: Lock
    copied: Lock


class Copier:
    """One a process. Its thread begins with the first large copy and ends with the process or :meth:`close`; without a
    second core for this process there is none."""

    def __init__(self) -> None:
        self._shares: SimpleQueue[_Share | None] = SimpleQueue()
        self._starting = Lock()
        self._thread: Thread | None = None

    def copy(self, place: Array, array: Array) -> None:
        """Have ``place`` be as ``array``: of its shape and type, without holes as it is, and of other memory. From any
        thread."""
        if array.nbytes < LARGE_BYTES or not self._is_helped():
            np.copyto(place, array)
            return
        whole, source = place.reshape(-1), array.reshape(-1)
        middle = int(len(source) * OWN_SHARE)
        share = _Share(whole[middle:], source[middle:], Lock(), Lock())
        share.copied.acquire()
        self._shares.put(share)
        np.copyto(whole[:middle], source[:middle])
        if share.claimed.acquire(blocking=False):
            np.copyto(share.place, share.array)
        else:
            share.copied.acquire()

    def close(self) -> None:
        """End the thread."""
        self._shares.put(None)

    def _is_helped(self) -> bool:
        with self._starting:
            if self._thread is None and len(os.sched_getaffinity(0)) > 1:
                self._thread = Thread(
                    target=_serve, args=(self._shares,), name="copies", daemon=True
                )
                self._thread.start()
        return self._thread is not None


def _serve(shares: SimpleQueue[_Share | None]) -> None:
    while (share := shares.get()) is not None:
        if share.claimed.acquire(blocking=False):
            try:
                np.copyto(share.place, share.array)
            finally:
                share.copied.release()
        del share  # while the next one is waited for, nobody's pages are held
