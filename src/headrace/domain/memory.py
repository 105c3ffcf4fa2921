"""Memory that several see, each under addresses of its own."""

from __future__ import annotations

from collections.abc import Hashable
from typing import NamedTuple


class Span(NamedTuple):
    """Bytes from ``begin`` to ``end`` of ``memory``, which is the same for the same, whoever names it."""

    memory: Hashable
    begin: int
    end: int

    def meets(self, other: Span) -> bool:
        """Whether a byte is in both."""
        return self.memory == other.memory and self.begin < other.end and other.begin < self.end
