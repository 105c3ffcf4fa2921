"""``file:PATH``: a file of this machine, used where it is, never copied."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.models.wanted import Report


class LocalSource(msgspec.Struct, frozen=True):
    """``path`` as given; ``~`` is the user's home."""

    path: str

    @classmethod
    def parse(cls, text: str) -> LocalSource | None:
        path = text.removeprefix("//")
        return cls(path) if path else None

    @property
    def file_name(self) -> str:
        return Path(self.path).name

    @property
    def location(self) -> Path:
        return Path(self.path).expanduser().absolute()

    def fetch(self, folder: Path, report: Report) -> Path:
        if not self.location.is_file():
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"there is no model file {self.location}")
        return self.location
