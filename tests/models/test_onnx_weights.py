"""Weights in a file beside the model count as the model's."""

from __future__ import annotations

from pathlib import Path

import onnx
from tests import onnx_models

from headrace.models.onnx_weights import size_bytes, weight_files


def test_a_model_in_one_file_has_no_others(tmp_path: Path) -> None:
    path = onnx_models.large(tmp_path / "m.onnx", 100)
    assert weight_files(path) == []
    assert size_bytes(path) == path.stat().st_size


def test_weights_beside_it_are_found_and_counted_once(tmp_path: Path) -> None:
    whole = onnx_models.large(tmp_path / "whole.onnx", 10_000)
    path, weights = tmp_path / "m.onnx", tmp_path / "some weights.bin"
    onnx.save(
        onnx.load(whole), path, save_as_external_data=True, location=weights.name, size_threshold=0
    )
    assert weight_files(path) == [weights]
    assert weights.stat().st_size >= 40_000
    assert size_bytes(path) == path.stat().st_size + weights.stat().st_size


def test_what_is_not_there_or_no_model_counts_nothing(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"\n\x08location\x12\x04gone")
    assert weight_files(path) == []
    path.write_bytes(b"")
    assert size_bytes(path) == 0
