"""Opening a GGUF file with the ``gguf`` package. Imports numpy: only in short-lived processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf

from headrace.domain.errors import Code, HeadraceError


def read(path: Path) -> Any:
    """The file's fields and tensors, memory-mapped. Raises ``ENGINE_UNAVAILABLE`` if it is no GGUF."""
    try:
        with path.open("rb") as file:
            magic = file.read(4)
        if magic == b"GGUF":
            return gguf.GGUFReader(path)
        why = "it begins with " + repr(magic)
    except (OSError, ValueError, IndexError, KeyError) as error:
        why = str(error) or type(error).__name__
    raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"{path.name} is not a GGUF file: {why}")
