"""Whether how long a model runs depends on more than the shapes of its inputs."""

from __future__ import annotations

import mmap

_LOOPS = (b"\x22\x04Loop", b"\x04\x00\x00\x00Loop")
"""``NodeProto.op_type``, and the same in an ``.ort`` file. The ``onnx`` package, which reads all of a model, is not
needed for that. https://onnx.ai/onnx/operators/onnx__Loop.html"""


def has_loop(path: str) -> bool:
    """Whether a value among its inputs may say how often a part of it is done. Raises ``OSError``."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        return any(data.find(loop) >= 0 for loop in _LOOPS)
