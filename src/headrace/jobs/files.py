"""The files of tenants: what they sent to be run, and what jobs have left."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Literal

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.ids import Ulids
from headrace.domain.job import StoredFile
from headrace.jobs.contents import Contents, Draft, failed
from headrace.jobs.database import Database
from headrace.jobs.limits import Limits

READ_BYTES = 256 * 1024
"""Of a file, at once."""
SWEEP_FILES = 100
"""Expired ones that are removed at once."""


class Files:
    """All of them; whose they are is looked at in each call."""

    def __init__(self, database: Database, contents: Contents, limits: Limits) -> None:
        self._database = database
        self._contents = contents
        self._limits = limits
        self._ulids = Ulids()

    async def draft(self, tenant: str) -> Upload:
        """A file that is about to be written. Raises ``CONFLICT`` if the tenant has too many."""
        stock = await asyncio.to_thread(self._database.stock, tenant)
        limits = self._limits
        if stock.files >= limits.files:
            said = f"There are {limits.files} files already, which is the most; delete some."
            raise HeadraceError(Code.CONFLICT, said)
        room = limits.tenant_bytes - stock.bytes
        draft = await asyncio.to_thread(self._contents.draft)
        return Upload(draft, tenant, limits.file_bytes, room, self._keep)

    async def find(self, id: str, tenant: str) -> StoredFile:
        """Raises ``NOT_FOUND``, also for another tenant's."""
        file = await asyncio.to_thread(self._database.file, id)
        if file is None or file.tenant != tenant or _over(file):
            raise HeadraceError(Code.NOT_FOUND, f"There is no file {id[:80]!r} of yours here.")
        return file

    async def list(
        self,
        tenant: str,
        purpose: str | None,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
    ) -> list[StoredFile]:
        return await asyncio.to_thread(self._database.files, tenant, purpose, after, limit, order)

    async def delete(self, id: str, tenant: str) -> StoredFile:
        """Forget a file and what is in it. Raises ``NOT_FOUND``, and ``CONFLICT`` while a job reads it."""
        file = await self.find(id, tenant)
        await asyncio.to_thread(self._forget, file)
        return file

    async def content(self, file: StoredFile) -> AsyncGenerator[bytes, None]:
        """What is in it, piece by piece. Raises ``STORE_FAILED``."""
        path = self._contents.path(file.id)
        try:
            handle = await asyncio.to_thread(os.open, path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                while piece := await asyncio.to_thread(os.read, handle, READ_BYTES):
                    yield piece
            finally:
                os.close(handle)
        except OSError as error:
            raise failed(path, error) from error

    def sweep(self) -> None:
        """Remove what has expired. Blocking."""
        for file in self._database.expired_files(time.time(), SWEEP_FILES):
            if not self._in_use(file.id):
                self._remove(file)

    def _keep(
        self, draft: Draft, tenant: str, filename: str, purpose: str, expires_s: float | None
    ) -> StoredFile:
        now = time.time()
        file = StoredFile(
            id=f"file-{self._ulids.new(now)}",
            tenant=tenant,
            bytes=draft.bytes,
            created_at=now,
            filename=filename,
            purpose=purpose,
            expires_at=None if expires_s is None else now + expires_s,
        )
        draft.keep(self._contents.path(file.id))
        self._database.put_file(file)
        return file

    def _forget(self, file: StoredFile) -> None:
        if self._in_use(file.id):
            said = (
                f"The file {file.id} is the input of a batch that is not over; cancel that first."
            )
            raise HeadraceError(Code.CONFLICT, said)
        self._remove(file)

    def _remove(self, file: StoredFile) -> None:
        """The row first: a file without a row is removed at the next start."""
        self._database.forget_file(file.id)
        self._contents.remove(file.id)

    def _in_use(self, id: str) -> bool:
        return any(job.order.input_file == id for job in self._database.unfinished())


class Upload:
    """A file that is being sent. ``most``: bytes of any file; ``room``: what its tenant has left; ``keep``: makes it a
    file, blocking."""

    def __init__(
        self, draft: Draft, tenant: str, most: int, room: int, keep: Callable[..., StoredFile]
    ) -> None:
        self._draft = draft
        self._tenant = tenant
        self._most = most
        self._room = room
        self._keep = keep

    async def write(self, data: bytes | bytearray) -> None:
        """Raises ``BODY_TOO_LARGE``, and ``STORE_FAILED``."""
        size = self._draft.bytes + len(data)
        if size > self._most:
            said = f"The file is longer than {self._most} bytes, which is the most; split it."
            raise HeadraceError(Code.BODY_TOO_LARGE, said, param="file")
        if size > self._room:
            said = f"Your files together would be larger than they may be; {self._room} bytes were left."
            raise HeadraceError(Code.BODY_TOO_LARGE, said, param="file")
        await asyncio.to_thread(self._draft.write, data)

    async def keep(self, filename: str, purpose: str, expires_s: float | None) -> StoredFile:
        """The file, which outlives everything when this returns. Raises ``STORE_FAILED``."""
        kept = partial(self._keep, self._draft, self._tenant, filename, purpose, expires_s)
        return await asyncio.to_thread(kept)

    def discard(self) -> None:
        """Idempotent, and without effect on one that is kept."""
        self._draft.discard()


def _over(file: StoredFile) -> bool:
    return file.expires_at is not None and file.expires_at <= time.time()
