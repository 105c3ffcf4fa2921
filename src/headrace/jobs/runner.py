"""One job on its way, from wherever a crash left it to its end.

What is kept is the job's record, its input, and two files that only grow: rows with an answer, rows with an error.
Everything else is concluded from those, so there is nothing that could be out of step.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.domain.job import Counts, Job, LineError, RowAnswer, RowAsked, State, StoredFile
from headrace.jobs.answers import Answers
from headrace.jobs.contents import Contents, failed, place
from headrace.jobs.done import Done
from headrace.jobs.lines import BadInput, Lines
from headrace.jobs.reading import rows_left, rows_to_run
from headrace.jobs.results import Results, answered, never_run
from headrace.jobs.retrying import Tries
from headrace.jobs.room import Room, Rooms
from headrace.jobs.rows import Row
from headrace.jobs.states import FOLLOWING, moved
from headrace.jobs.validation import look_through

_logger = logging.getLogger("headrace.jobs")
T = TypeVar("T")
Keep = Callable[[Job, Sequence[StoredFile]], None]
"""Keeps a job as it is now, and the files that it left. Blocking. Raises ``STORE_FAILED``."""

PAUSE_S = 5.0
"""How often a job that is paused looks whether it may go on."""
KEY = "\2"
"""What the keys of rows, and what they are aborted by, begin with: no client can send that."""

UNFINISHED: dict[State, tuple[str, str]] = {
    "expired": ("batch_expired", "The completion window was over before this request was run."),
    "cancelled": ("batch_cancelled", "The batch was cancelled before this request was run."),
}
"""What rows are told that were not run, by what became of their job."""


class Runner:
    """``work``: the folder of what is being written. ``most_rows``: of an input."""

    def __init__(
        self,
        job: Job,
        contents: Contents,
        work: Path,
        answers: Answers,
        rooms: Rooms,
        keep: Keep,
        *,
        most_rows: int,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._job = job
        self._contents = contents
        self._work_folder = work
        self._answers = answers
        self._rooms = rooms
        self._keep = keep
        self._most_rows = most_rows
        self._pause_s = pause_s
        self._ulid = job.id.rpartition("_")[2]
        self._group = KEY + self._ulid
        self._done = Done()
        self._output: Results | None = None
        self._errors: Results | None = None
        self._moving = asyncio.Lock()
        self._stopped = asyncio.Event()
        self._paused: str | None = None
        self._bad: LineError | None = None

    @property
    def job(self) -> Job:
        """As it is now."""
        job, output, errors = self._job, self._output, self._errors
        if job.over or output is None or errors is None:
            return job
        counts = Counts(job.counts.total, output.count, errors.count)
        usage = Usage(
            output.prompt_tokens + errors.prompt_tokens,
            output.completion_tokens + errors.completion_tokens,
        )
        return msgspec.structs.replace(job, counts=counts, usage=usage, paused=self._paused)

    async def run(self) -> None:
        """To the end. Cancelled, it is as after a crash."""
        try:
            await self._on_disk(self._open)
            if self._job.state == "validating":
                await self._validate()
            if self._job.state == "in_progress":
                await self._work()
            if not self._job.over:
                await self._settle()
        finally:
            for results in (self._output, self._errors):
                if results is not None:
                    results.close()

    async def cancel(self) -> None:
        """What is under way ends, and nothing begins. Without effect on one that is being settled. Raises
        ``CONFLICT`` if it is over, and ``STORE_FAILED``."""
        async with self._moving:
            if self._job.over:
                raise already_over(self._job)
            if "cancelling" in FOLLOWING[self._job.state]:
                changes = {"ends_as": "cancelled"}
                job = moved(self._job, "cancelling", time.time(), **changes)
                await asyncio.to_thread(self._keep, job, ())
                self._job = job
                self._stopped.set()

    # Its stages.

    def _open(self) -> None:
        """What is there of its results."""
        self._done = Done()
        for results in (self._output, self._errors):
            if results is not None:
                results.close()
        try:
            self._output = Results(self._place(self._job.output_file))
            self._output.load(self._done)
            self._errors = Results(self._place(self._job.error_file))
            self._errors.load(self._done)
        except OSError as error:
            raise failed(self._work_folder, error) from error

    def _place(self, file: str) -> Path:
        """Where the results are: in the middle of settling, they may be in their place already."""
        placed = self._contents.path(file)
        return placed if placed.exists() else self._work_folder / file

    async def _validate(self) -> None:
        try:
            with Lines(self._contents.path(self._job.order.input_file)) as lines:
                await self._unless_stopped(self._look_through(lines))
        except BadInput as bad:
            await self._move("failed", errors=(bad.error,))

    async def _look_through(self, lines: Lines) -> None:
        found = await look_through(lines, self._job.order.endpoint, self._most_rows)
        if found.errors:
            await self._move("failed", errors=found.errors)
            return
        counts = Counts(found.rows)
        await self._move("in_progress", seen=lines.seen, model=found.model, counts=counts)

    async def _work(self) -> None:
        left_s = self._job.expires_at - time.time()
        complete = left_s > 0 and await self._unless_stopped(self._run_rows(), left_s)
        if self._stopped.is_set():
            return
        ends_as: State = "completed" if complete else "expired"
        errors: tuple[LineError, ...] = ()
        if self._bad is not None:
            ends_as, errors = "failed", (self._bad,)
        await self._move("finalizing", ends_as=ends_as, errors=errors)

    async def _settle(self) -> None:
        """What it leaves is put in its place."""
        job = self._job
        if job.ends_as in UNFINISHED and job.seen is not None:
            self._answers.abort(job.order.tenant, self._group)
            await self._write_rest(*UNFINISHED[job.ends_as])
        left = await self._on_disk(self._put_in_place)
        now = self.job
        ids = tuple([file.id for file in left])
        changes = {"counts": now.counts, "usage": now.usage, "left": ids}
        await self._move(job.ends_as, left, **changes)

    # Rows.

    async def _run_rows(self) -> None:
        """Every row that is not done, as many at a time as there is room for."""
        async with asyncio.TaskGroup() as rows:
            try:
                with Lines(
                    self._contents.path(self._job.order.input_file), self._job.seen
                ) as lines:
                    async for row in rows_to_run(lines, self._done):
                        room = await self._enter(row)
                        if room is not None:
                            task = rows.create_task(self._row(row))
                            task.add_done_callback(partial(_leave, room))
            except BadInput as bad:
                self._bad = bad.error  # those under way may end

    async def _enter(self, row: Row) -> Room | None:
        """Wait until there is room for it. None: there is no such model, which is its answer."""
        try:
            room = self._rooms.of(row.model, self._job.order.endpoint)
        except HeadraceError as error:
            await self._write(row, self._answers.refusal(error))
            return None
        await self._until_kept(self._answers.caught_up)
        await room.enter()
        return room

    async def _row(self, row: Row) -> None:
        await self._write(row, await self._answer(row))

    async def _answer(self, row: Row) -> RowAnswer:
        order, tries = self._job.order, Tries()
        key = f"{self._group}/{row.number}"
        asked = RowAsked(order.tenant, order.key_id, order.endpoint, row.body, key, self._group)
        while True:
            try:
                return await self._answers.ask(asked)
            except HeadraceError as error:
                pause_s = tries.next_s(error, random.random())
                if pause_s is None:
                    return self._answers.refusal(error)
                if error.code is Code.STORE_FAILED:
                    self._pause(error.message)
            except Exception:
                said = f"The server failed at line {row.number}; its log says why."
                _logger.exception("job %s failed at line %d", self._job.id, row.number)
                return self._answers.refusal(HeadraceError(Code.INTERNAL, said))
            await asyncio.sleep(pause_s)

    async def _write(self, row: Row, answer: RowAnswer) -> None:
        line = answered(self._ulid, row.number, row.custom_id, answer)
        results = self._output if answer.status < 400 else self._errors
        assert results is not None
        await self._append(results, row.number, line, answer.usage)

    async def _write_rest(self, code: str, message: str) -> None:
        """Those that were not run have an error each."""
        assert self._errors is not None
        order = self._job.order
        try:
            with Lines(self._contents.path(order.input_file), self._job.seen) as lines:
                async for number, custom_id in rows_left(lines, order.endpoint, self._done):
                    line = never_run(self._ulid, number, custom_id, code, message)
                    await self._append(self._errors, number, line, None)
        except BadInput as bad:
            _logger.warning("job %s: %s", self._job.id, bad.error.message)

    async def _append(
        self, results: Results, number: int, line: bytes, usage: Usage | None
    ) -> None:
        while True:
            try:
                results.append(line, usage)
            except OSError as error:
                self._pause(failed(self._work_folder, error).message)
                await asyncio.sleep(self._pause_s)
            else:
                self._done.add(number)
                self._paused = None
                return

    # The disk, and who waits for it.

    def _put_in_place(self) -> list[StoredFile]:
        """Its results are files of their tenant's from now on; those that are empty are not."""
        job, now = self._job, time.time()
        expires_s = job.order.output_expires_s
        left: list[StoredFile] = []
        for results, id, name in (
            (self._output, job.output_file, "output"),
            (self._errors, job.error_file, "error"),
        ):
            assert results is not None
            path = self._place(id)
            try:
                if not results.bytes:
                    path.unlink(missing_ok=True)
                    continue
                results.sync()
                if path != self._contents.path(id):
                    place(path, self._contents.path(id))
            except OSError as error:
                raise failed(path, error) from error
            left.append(
                StoredFile(
                    id=id,
                    tenant=job.order.tenant,
                    bytes=results.bytes,
                    created_at=now,
                    filename=f"{job.id}_{name}.jsonl",
                    purpose="batch_output",
                    expires_at=None if expires_s is None else now + expires_s,
                )
            )
        return left

    async def _move(self, state: State, files: Sequence[StoredFile] = (), **changes: Any) -> None:
        """Into its next state, if nobody has stopped it before."""
        async with self._moving:
            if state in FOLLOWING[self._job.state]:
                job = moved(self._job, state, time.time(), **changes)
                await self._on_disk(partial(self._keep, job, files))
                self._job = job

    async def _on_disk(self, work: Callable[[], T]) -> T:
        """Blocking work that is done again until the disk takes it."""
        result = await self._until_kept(partial(asyncio.to_thread, work))
        self._paused = None
        return result

    async def _until_kept(self, work: Callable[[], Awaitable[T]]) -> T:
        """What is done again for as long as nothing can be stored."""
        while True:
            try:
                result = await work()
            except HeadraceError as error:
                if error.code is not Code.STORE_FAILED:
                    raise
                self._pause(error.message)
                await asyncio.sleep(self._pause_s)
                continue
            return result

    def _pause(self, why: str) -> None:
        if self._paused is None:
            _logger.warning("job %s is paused: %s", self._job.id, why)
        self._paused = why

    async def _unless_stopped(
        self, work: Coroutine[Any, Any, None], timeout_s: float | None = None
    ) -> bool:
        """Whether the work was done before somebody stopped the job, or the time was over. Raises what it raises."""
        doing = asyncio.ensure_future(work)
        stopping = asyncio.ensure_future(self._stopped.wait())
        waiting: set[Awaitable[Any]] = {doing, stopping}
        try:
            await asyncio.wait(
                {doing, stopping}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
            if doing.done():
                doing.result()
                return True
            return False
        finally:
            for task in (doing, stopping):
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)


def _leave(room: Room, task: asyncio.Task[None]) -> None:
    del task
    room.leave()


def already_over(job: Job) -> HeadraceError:
    return HeadraceError(Code.CONFLICT, f"The batch is {job.state} already.")
