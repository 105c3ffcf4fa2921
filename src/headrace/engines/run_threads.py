"""Threads for the runs of an engine. What an executor's future costs, locks and callbacks of its own, is more than a
short run takes; here a run is a queue's entry on its way there, and a call on the event loop on its way back.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, NamedTuple, TypeVar

R = TypeVar("R")


class _Job(NamedTuple):
    loop: asyncio.AbstractEventLoop
    answer: asyncio.Future[Any]
    work: Callable[..., Any]
    arguments: tuple[Any, ...]


class RunThreads:
    """``count`` threads. They end with :meth:`close`, or with the process."""

    def __init__(self, count: int, name: str) -> None:
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._threads = [
            Thread(target=_serve, args=(self._jobs,), name=f"{name} {index}", daemon=True)
            for index in range(count)
        ]
        for thread in self._threads:
            thread.start()

    async def run(self, work: Callable[..., R], *arguments: Any) -> R:
        """What ``work`` returns, or raises, on one of the threads; cancelled, it is over for its caller alone."""
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[R] = loop.create_future()
        self._jobs.put(_Job(loop, answer, work, arguments))
        return await answer

    def close(self) -> None:
        """Let the threads end once what they were given is done."""
        for _ in self._threads:
            self._jobs.put(None)


def _serve(jobs: SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        _do(job)
        del job  # while the next one is waited for, nothing of this one is held: there are clients' pages in it


def _do(job: _Job) -> None:
    result: object = None
    failure: BaseException | None = None
    try:
        result = job.work(*job.arguments)
    except BaseException as error:  # noqa: BLE001 - whatever it is, its caller has to hear of it
        failure = error
    with contextlib.suppress(RuntimeError):  # the loop was closed: nobody waits
        job.loop.call_soon_threadsafe(_settle, job.answer, result, failure)


def _settle(answer: asyncio.Future[Any], result: object, failure: BaseException | None) -> None:
    if answer.done():  # its caller left
        return
    if failure is None:
        answer.set_result(result)
    else:
        answer.set_exception(failure)
