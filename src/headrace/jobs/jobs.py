"""All jobs of a server: those that are over are in the database, the others run here or wait for their turn."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Sequence
from pathlib import Path

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.ids import Ulids
from headrace.domain.job import Job, Order, StoredFile
from headrace.jobs.answers import Answers
from headrace.jobs.contents import Contents
from headrace.jobs.database import Database
from headrace.jobs.files import Files
from headrace.jobs.limits import Limits
from headrace.jobs.room import Rooms
from headrace.jobs.runner import PAUSE_S, Runner, already_over

_logger = logging.getLogger("headrace.jobs")

SWEEP_S = 60.0
"""How often expired files are looked for."""


class Jobs:
    """``folder``: of the state; ``jobs.db`` and the folder ``jobs`` are in it. ``pause_s``: how often a job that is
    paused looks whether it may go on."""

    def __init__(
        self, folder: Path, answers: Answers, limits: Limits, *, pause_s: float = PAUSE_S
    ) -> None:
        self._database = Database(folder / "jobs.db")
        self._contents = Contents(folder / "jobs" / "files")
        self._work = Contents(folder / "jobs" / "work")
        self._answers = answers
        self._limits = limits
        self._pause_s = pause_s
        self._rooms = Rooms(answers.slots)
        self._ulids = Ulids()
        self.files = Files(self._database, self._contents, limits)
        self._runners: dict[str, Runner] = {}
        """Of all jobs that are not over; bounded by ``Limits.jobs`` and the tenants."""
        self._tasks: dict[str, asyncio.Task[None]] = {}
        """Of those that have begun."""
        self._sweeping: asyncio.Task[None] | None = None
        self._creating = asyncio.Lock()
        self._closing = False

    async def open(self) -> None:
        """What a crash left goes on from now. Raises ``STORE_FAILED``."""
        unfinished = await asyncio.to_thread(self._open)
        for job in unfinished:
            self._runners[job.id] = self._runner(job)
        self._begin()
        self._sweeping = asyncio.get_running_loop().create_task(self._sweep())

    async def close(self) -> None:
        """Leave everything as it is; the next start goes on with it."""
        self._closing = True
        tasks = [*self._tasks.values(), *([self._sweeping] if self._sweeping is not None else [])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.to_thread(self._database.close)

    async def create(self, order: Order) -> Job:
        """A job that is on the disk when this returns. Raises ``NOT_FOUND`` for its input, ``CONFLICT`` if the tenant
        has too many that are not over, ``STORE_FAILED``, ``SHUTTING_DOWN``."""
        if self._closing:
            raise HeadraceError(Code.SHUTTING_DOWN, "The server is shutting down.")
        await self.files.find(order.input_file, order.tenant)
        async with self._creating:  # or two at once were both the last that may be
            self._check_room(order.tenant)
            job = self._new(order, time.time())
            await asyncio.to_thread(self._database.put_job, job)
            self._runners[job.id] = self._runner(job)
        self._begin()
        return job

    async def find(self, id: str, tenant: str) -> Job:
        """Raises ``NOT_FOUND``, also for another tenant's."""
        runner = self._runners.get(id)
        job = runner.job if runner is not None else await asyncio.to_thread(self._database.job, id)
        if job is None or job.order.tenant != tenant:
            raise HeadraceError(Code.NOT_FOUND, f"There is no batch {id[:80]!r} of yours here.")
        return job

    async def list(self, tenant: str, after: str | None, limit: int) -> Sequence[Job]:
        """Newest first."""
        found = await asyncio.to_thread(self._database.jobs, tenant, after, limit)
        running = self._runners
        return [running[job.id].job if job.id in running else job for job in found]

    async def cancel(self, id: str, tenant: str) -> Job:
        """The job, which ends soon. Raises ``NOT_FOUND``, ``CONFLICT`` if it is over, ``STORE_FAILED``."""
        job = await self.find(id, tenant)
        runner = self._runners.get(id)
        if runner is None:
            raise already_over(job)
        await runner.cancel()
        self._start(id, runner)  # one that waits for its turn need not
        return runner.job

    def _check_room(self, tenant: str) -> None:
        limit = self._limits.jobs
        if sum(one.job.order.tenant == tenant for one in self._runners.values()) >= limit:
            said = f"{limit} of your batches are not over, which is the most; wait, or cancel some."
            raise HeadraceError(Code.CONFLICT, said)

    def _new(self, order: Order, now: float) -> Job:
        return Job(
            id=f"batch_{self._ulids.new(now)}",
            order=order,
            created_at=now,
            expires_at=now + order.window_s,
            output_file=f"file-{self._ulids.new(now)}",
            error_file=f"file-{self._ulids.new(now)}",
            at={"validating": now},
        )

    # What runs.

    def _begin(self) -> None:
        """Start those whose turn it is: of each tenant's the oldest."""
        running: dict[str, int] = {}
        for id in self._tasks:
            tenant = self._runners[id].job.order.tenant
            running[tenant] = running.get(tenant, 0) + 1
        for id, runner in list(self._runners.items()):
            tenant = runner.job.order.tenant
            if id not in self._tasks and running.get(tenant, 0) < self._limits.running:
                running[tenant] = running.get(tenant, 0) + 1
                self._start(id, runner)

    def _start(self, id: str, runner: Runner) -> None:
        if id not in self._tasks and not self._closing:
            task = asyncio.get_running_loop().create_task(self._run(id, runner), name=id)
            self._tasks[id] = task

    async def _run(self, id: str, runner: Runner) -> None:
        try:
            await runner.run()
        except Exception:
            _logger.exception("job %s stands still until the next start", id)
            return
        del self._runners[id], self._tasks[id]
        job = runner.job
        counts = job.counts
        _logger.info(
            "job %s is %s: %d of %d rows answered, %d failed",
            *(id, job.state, counts.completed, counts.total, counts.failed),
        )
        tenant = job.order.tenant
        if not self._closing:
            self._begin()
            keep = self._limits.kept_jobs
            await asyncio.to_thread(self._database.forget_jobs, tenant, keep)

    def _runner(self, job: Job) -> Runner:
        return Runner(
            job,
            self._contents,
            self._work.folder,
            self._answers,
            self._rooms,
            self._keep,
            most_rows=self._limits.rows,
            pause_s=self._pause_s,
        )

    def _keep(self, job: Job, left: Sequence[StoredFile]) -> None:
        self._database.put_job(job, left)

    def _open(self) -> Sequence[Job]:
        self._database.open()
        unfinished = self._database.unfinished()
        results = {id for job in unfinished for id in (job.output_file, job.error_file)}
        known = self._database.file_ids() | results
        self._contents.open(known.__contains__)
        self._work.open(results.__contains__)
        return unfinished

    async def _sweep(self) -> None:
        while True:
            try:
                await asyncio.to_thread(self.files.sweep)
            except HeadraceError as error:
                _logger.warning("expired files are still there: %s", error.message)
            await asyncio.sleep(SWEEP_S)
