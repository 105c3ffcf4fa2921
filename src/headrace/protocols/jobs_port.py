"""What the protocols need of the room that runs jobs: files, and jobs over them."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Literal, Protocol

from headrace.domain.job import Job, Order, StoredFile


class Upload(Protocol):
    """A file that is being sent."""

    async def write(self, data: bytes) -> None:
        """Raises ``BODY_TOO_LARGE`` and ``STORE_FAILED``."""

    async def keep(self, filename: str, purpose: str, expires_s: float | None) -> StoredFile:
        """The file, which outlives everything when this returns. Raises ``STORE_FAILED``."""

    def discard(self) -> None:
        """Idempotent, and without effect on one that is kept."""


class Files(Protocol):
    """A tenant sees its own: another's is ``NOT_FOUND``."""

    async def draft(self, tenant: str) -> Upload:
        """Raises ``CONFLICT`` if the tenant has too many, and ``STORE_FAILED``."""

    async def find(self, id: str, tenant: str) -> StoredFile:
        """Raises ``NOT_FOUND``."""

    async def list(
        self,
        tenant: str,
        purpose: str | None,
        after: str | None,
        limit: int,
        order: Literal["asc", "desc"],
    ) -> Sequence[StoredFile]: ...

    async def delete(self, id: str, tenant: str) -> StoredFile:
        """Raises ``NOT_FOUND``, and ``CONFLICT`` while a job reads it."""

    def content(self, file: StoredFile) -> AsyncGenerator[bytes, None]:
        """What is in it, piece by piece. Raises ``STORE_FAILED``."""


class Jobs(Protocol):
    """The same of jobs."""

    @property
    def files(self) -> Files: ...

    async def create(self, order: Order) -> Job:
        """A job that outlives everything when this returns. Raises ``NOT_FOUND`` for its input, ``CONFLICT`` if there
        are too many, ``STORE_FAILED``, ``SHUTTING_DOWN``."""

    async def find(self, id: str, tenant: str) -> Job:
        """Raises ``NOT_FOUND``."""

    async def list(self, tenant: str, after: str | None, limit: int) -> Sequence[Job]:
        """Newest first; ``after``: only those older than this one."""

    async def cancel(self, id: str, tenant: str) -> Job:
        """The job, which ends soon. Raises ``NOT_FOUND``, ``CONFLICT`` if it is over, ``STORE_FAILED``."""
