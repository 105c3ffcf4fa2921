"""What the protocols of tensors need of shared memory. Implemented by ``headrace.shared_memory``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from headrace.domain.memory import Span


class Region(Protocol):
    """A part of shared memory that a client has registered."""

    @property
    def name(self) -> str: ...

    @property
    def key(self) -> str: ...

    @property
    def offset(self) -> int: ...

    @property
    def byte_size(self) -> int: ...

    def span(self, offset: int, size: int) -> Span:
        """So many bytes of it."""

    def read(self, offset: int, size: int) -> bytearray | memoryview:
        """So many bytes of it, in the client's own pages where that can be. Raises ``INVALID_REQUEST`` for a place
        outside, or a file that is too short now."""

    def room(self, offset: int, size: int) -> memoryview | None:
        """Memory to write to in place; None where :meth:`write` is the only way. Raises as :meth:`read`."""

    def write(self, offset: int, data: memoryview) -> None:
        """``data``: bytes. Raises as :meth:`read`."""


class Memory(Protocol):
    """The regions of all tenants. Those of another tenant are as if they were not there."""

    def register(
        self,
        tenant: str,
        name: str,
        key: str,
        offset: int,
        byte_size: int,
        *,
        alone: bool,
        leased: bool,
    ) -> None:
        """Take a region. ``alone``: the server has no other tenants who could be harmed. ``leased``: the file is
        removed when no process has it open any more. Raises ``INVALID_REQUEST``, ``FORBIDDEN``, ``NOT_FOUND``
        and ``CONFLICT``."""

    def find(self, tenant: str, name: str) -> Region:
        """Raises ``NOT_FOUND``."""

    def listed(self, tenant: str, name: str = "") -> Sequence[Region]:
        """One, or all without a name. Raises ``NOT_FOUND``."""

    def unregister(self, tenant: str, name: str = "") -> None:
        """One, or all without a name; one that is not there is no mistake."""
