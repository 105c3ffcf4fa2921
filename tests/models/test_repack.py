"""Repacking changes the format of matrices and nothing else."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
from gguf import GGMLQuantizationType as Type
from gguf import quants

from headrace.models.repack import quantise_q4_0, repack
from headrace.models.wanted import Format, Step


def tensors(path: Path) -> dict[str, Any]:
    return {tensor.name: tensor for tensor in gguf.GGUFReader(path).tensors}


def fields(path: Path) -> dict[str, Any]:
    found = gguf.GGUFReader(path).fields
    return {name: field.contents() for name, field in found.items() if not name.startswith("GGUF.")}


def values(tensor: Any) -> Any:
    return quants.dequantize(tensor.data, tensor.tensor_type)


@pytest.mark.parametrize(("format", "kind"), [("q4_0", Type.Q4_0), ("q8_0", Type.Q8_0)])
def test_matrices_change_and_embeddings_and_vectors_stay(
    tiny_gguf: Path, tmp_path: Path, format: Format, kind: Type
) -> None:
    steps: list[Step] = []
    target = tmp_path / "out.gguf"
    repack(tiny_gguf, target, format, steps.append)
    before, after = tensors(tiny_gguf), tensors(target)
    assert {name: tensor.tensor_type for name, tensor in after.items()} == {
        "token_embd.weight": Type.Q8_0,
        "blk.0.attn_output.weight": kind,
        "blk.0.ffn_down.weight": kind,
        "blk.0.attn_norm.weight": Type.F32,
    }
    for name, tensor in after.items():
        assert list(tensor.shape) == list(before[name].shape)
    for name in ("token_embd.weight", "blk.0.attn_norm.weight"):
        assert after[name].data.tobytes() == before[name].data.tobytes()
    assert steps[-1] == Step("repack", 4, 4)


def test_every_field_of_the_file_is_kept(tiny_gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    repack(tiny_gguf, target, "q8_0", lambda step: None)
    changed = {"general.file_type": int(gguf.LlamaFileType.MOSTLY_Q8_0)}
    assert fields(target) == fields(tiny_gguf) | changed


def test_q8_0_of_4_bit_weights_loses_next_to_nothing(tiny_gguf: Path, tmp_path: Path) -> None:
    target = tmp_path / "out.gguf"
    repack(tiny_gguf, target, "q8_0", lambda step: None)
    name = "blk.0.ffn_down.weight"
    before, after = values(tensors(tiny_gguf)[name]), values(tensors(target)[name])
    assert np.abs(before - after).max() < 0.02 * np.abs(before).max()


def test_searched_scales_lose_less_than_the_usual_ones() -> None:
    weights = np.random.default_rng(1).standard_normal((256, 576), dtype=np.float32)
    ours = quants.dequantize(quantise_q4_0(weights), Type.Q4_0)
    usual = quants.dequantize(quants.quantize(weights, Type.Q4_0), Type.Q4_0)
    assert ((ours - weights) ** 2).mean() < 0.9 * ((usual - weights) ** 2).mean()


def test_blocks_of_zeros_stay_zeros() -> None:
    packed = quantise_q4_0(np.zeros((2, 64), dtype=np.float32))
    assert packed.shape == (2, 36)
    assert not quants.dequantize(packed, Type.Q4_0).any()
