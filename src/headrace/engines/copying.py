"""Copies of large arrays by two threads at once, as ONNX Runtime computes with several.

One core does not use all of a memory's bandwidth. Only a core that nobody uses is taken for it: a thread that has begun
its share and is put aside for another's would keep its caller waiting; so none is taken where this process may not use
all cores of the machine, of which alone it is known how many are busy. What the second thread has not begun when the
first is through, that one does as well.
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
    """One a process. Its thread begins with the first large copy that finds a core free, and ends with :meth:`close` or
    the process. ``load``: where the kernel says how many threads of the machine run or could (proc_loadavg(5)); where
    it does not, or in another form, no core is free."""

    def __init__(self, load: str = "/proc/loadavg") -> None:
        self._shares: SimpleQueue[_Share | None] = SimpleQueue()
        self._starting = Lock()
        self._thread: Thread | None = None
        cores = os.cpu_count() or 1
        self._cores = cores if len(os.sched_getaffinity(0)) >= cores else 0
        """Those of the machine, whose threads are counted; 0 where this process may not use them all."""
        self._load = load

    def copy(self, place: Array, array: Array) -> None:
        """Have ``place`` be as ``array``: of its shape and type, without holes as it is, and of other memory. From any
        thread."""
        if array.nbytes < LARGE_BYTES or not self._is_core_free():
            np.copyto(place, array)
            return
        self._start()
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
        """End the thread; nothing is copied any more."""
        self._shares.put(None)

    def _is_core_free(self) -> bool:
        """Whether fewer threads run, the caller's own counted, than there are cores."""
        if self._cores < 2:
            return False
        try:
            with open(self._load, "rb", buffering=0) as file:
                running, _, _ = file.read(128).split()[3].partition(b"/")
            return int(running) < self._cores
        except (OSError, ValueError, IndexError):
            return False

    def _start(self) -> None:
        with self._starting:
            if self._thread is None:
                self._thread = Thread(
                    target=_serve, args=(self._shares,), name="copies", daemon=True
                )
                self._thread.start()


def _serve(shares: SimpleQueue[_Share | None]) -> None:
    while (share := shares.get()) is not None:
        if share.claimed.acquire(blocking=False):
            try:
                np.copyto(share.place, share.array)
            finally:
                share.copied.release()
        del share  # while the next one is waited for, nobody's pages are held
