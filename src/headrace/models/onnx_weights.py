"""The files that an ONNX model keeps its weights in, where they are not in its own."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

_LOCATION = re.compile(rb"\n\x08location\x12([\x01-\x7f])")
"""``TensorProto.external_data`` with the key ``location``, and how long its value is. The ``onnx`` package, which reads
all of a model, is not needed for that. https://onnx.ai/onnx/api/external_data_helper.html"""


def weight_files(path: Path) -> list[Path]:
    """Those beside a model's file, as far as they are there. Raises ``OSError``."""
    names = set()
    with path.open("rb") as file:
        if not path.stat().st_size:
            return []
        with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            for found in _LOCATION.finditer(data):
                names.add(bytes(data[found.end() : found.end() + found[1][0]]))
    files = [path.parent / name.decode(errors="replace") for name in sorted(names)]
    return [file for file in files if file.is_file()]


def size_bytes(path: Path) -> int:
    """Of a model's file and its weights'. Raises ``OSError``."""
    return sum(file.stat().st_size for file in (path, *weight_files(path)))
