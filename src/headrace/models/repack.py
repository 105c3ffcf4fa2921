"""Repacking: the same weights in another block format, because llama.cpp computes some much faster.

Like llama.cpp's own quantiser: matrices change, vectors stay, embeddings and output keep 8 bits.
Q4_0 from an already quantised file quantises twice, so its scale is searched, not guessed.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGMLQuantizationType as Type
from gguf import LlamaFileType, quants

from headrace.models.gguf_file import read
from headrace.models.wanted import Format, Report, Step

Floats = npt.NDArray[np.float32]
Bytes = npt.NDArray[np.uint8]

BLOCK = 32
"""Weights that share one scale, in Q4_0 and Q8_0."""

_TYPES: dict[Format, tuple[Type, LlamaFileType]] = {
    "q4_0": (Type.Q4_0, LlamaFileType.MOSTLY_Q4_0),
    "q8_0": (Type.Q8_0, LlamaFileType.MOSTLY_Q8_0),
}
_WHOLE = re.compile(
    r"^(token_embd|output|position_embd|token_types)\b|gate_inp|ssm_|time_mix|norm",
)
"""Tensors that lose too much with few bits, by llama.cpp's names."""

_SCALES = (-8.5, -8.0, -7.5, -7.0, -9.0, 8.0, 7.5, 7.0)
"""Where the block's largest weight may fall on the grid -8 … 7."""


def repack(source: Path, target: Path, format: Format, report: Report) -> None:
    """Write ``source`` as ``target`` with its matrices in ``format``; one tensor in memory at a time."""
    wanted, file_type = _TYPES[format]
    reader = read(source)
    writer = gguf.GGUFWriter(target, _contents(reader, gguf.Keys.General.ARCHITECTURE))
    try:
        _copy_fields(reader, writer, file_type)
        for tensor in reader.tensors:
            _declare(writer, tensor, _type_of(tensor, wanted))
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for done, tensor in enumerate(reader.tensors, 1):
            writer.write_tensor_data(_converted(tensor, _type_of(tensor, wanted)))
            report(Step("repack", done, len(reader.tensors)))
    finally:
        writer.close()


def quantise_q4_0(values: Floats) -> Bytes:
    """Blocks of 32 weights as a float16 scale and 32 × 4 bits. Of several scales each block takes the
    one with the least squared error, refitted by least squares."""
    blocks = values.reshape(-1, BLOCK)
    largest = np.take_along_axis(blocks, np.abs(blocks).argmax(-1, keepdims=True), -1)
    best = _fitted(blocks, largest / np.float32(_SCALES[0]))
    for place in _SCALES[1:]:
        other = _fitted(blocks, largest / np.float32(place))
        better = other[2] < best[2]
        best = tuple(np.where(better, new, old) for new, old in zip(other, best, strict=True))
    scales, grid, _ = best
    pairs = (grid + 8).astype(np.uint8).reshape(-1, 2, BLOCK // 2)
    packed = pairs[:, 0] | (pairs[:, 1] << np.uint8(4))
    raw = np.concatenate([scales.astype(np.float16).view(np.uint8), packed], -1)
    return raw.reshape(*values.shape[:-1], -1)


def _fitted(blocks: Floats, scales: Floats) -> tuple[Floats, ...]:
    """Scale, grid positions and squared error of each block, beginning with these scales."""
    inverse = np.divide(1, scales, out=np.zeros_like(scales), where=scales != 0)
    grid = np.clip(np.rint(blocks * inverse), -8, 7)
    square = (grid * grid).sum(-1, keepdims=True)
    product = (grid * blocks).sum(-1, keepdims=True)
    refitted = np.divide(product, square, out=np.zeros_like(scales), where=square > 0)
    refitted = refitted.astype(np.float16).astype(np.float32)
    error = ((refitted * grid - blocks) ** 2).sum(-1, keepdims=True)
    return refitted, grid, error


def _type_of(tensor: Any, wanted: Type) -> Type:
    """What a tensor becomes."""
    matrix = len(tensor.shape) >= 2 and tensor.shape[0] % BLOCK == 0
    if matrix and not _WHOLE.search(tensor.name):
        return wanted
    unpacked = tensor.tensor_type in (Type.F32, Type.F16, Type.BF16)
    if matrix and unpacked and tensor.name.startswith(("token_embd", "output.weight")):
        return Type.Q8_0
    return Type(tensor.tensor_type)


def _converted(tensor: Any, wanted: Type) -> Any:
    if wanted == tensor.tensor_type:
        return tensor.data
    values = quants.dequantize(tensor.data, tensor.tensor_type)
    return quantise_q4_0(values) if wanted == Type.Q4_0 else quants.quantize(values, wanted)


def _declare(writer: Any, tensor: Any, wanted: Type) -> None:
    if wanted == tensor.tensor_type:
        data = tensor.data
        writer.add_tensor_info(tensor.name, data.shape, data.dtype, data.nbytes, wanted)
    else:
        shape = gguf.quant_shape_to_byte_shape(
            [int(size) for size in reversed(tensor.shape)], wanted
        )
        size = int(np.prod(shape))
        writer.add_tensor_info(tensor.name, shape, np.dtype(np.uint8), size, wanted)


def _copy_fields(reader: Any, writer: Any, file_type: LlamaFileType) -> None:
    for field in reader.fields.values():
        if field.name.startswith("GGUF.") or field.name == gguf.Keys.General.ARCHITECTURE:
            continue
        kind = field.types[0]
        items = field.types[-1] if kind == gguf.GGUFValueType.ARRAY else None
        value = file_type if field.name == gguf.Keys.General.FILE_TYPE else field.contents()
        writer.add_key_value(field.name, value, kind, sub_type=items)


def _contents(reader: Any, name: str) -> Any:
    return reader.fields[name].contents()
