"""``headrace models optimize | quantize``: a new file, and numbers that say what became of it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from click.testing import CliRunner, Result
from onnx import helper, numpy_helper
from tests import onnx_models

from headrace.cli.models import command


@pytest.fixture
def model(tmp_path: Path) -> Path:
    """``y`` is ``x`` times weights plus 0, and a node that an optimiser takes out."""
    random = np.random.default_rng(0)
    weights = [
        numpy_helper.from_array(random.standard_normal((64, 64), dtype=np.float32), "w"),
        numpy_helper.from_array(np.zeros(1, np.float32), "zero"),
    ]
    nodes = [
        helper.make_node("Identity", ["x"], ["same"]),
        helper.make_node("MatMul", ["same", "w"], ["product"]),
        helper.make_node("Add", ["product", "zero"], ["y"]),
    ]
    shape = ("batch", 64)
    inputs = [onnx_models.tensor("x", "FP32", shape)]
    outputs = [onnx_models.tensor("y", "FP32", shape)]
    return onnx_models.write(tmp_path / "m.onnx", nodes, inputs, outputs, weights)


def rewrite(*words: Any, model: Path) -> Result:
    cache = ["--cache-dir", str(model.parent / "cache")]
    kind, *more = map(str, words)
    return CliRunner().invoke(command, [kind, f"file:{model}", *more, *cache])


def size(path: Path) -> str:
    return f"{path.stat().st_size / 1e6:.2f} MB"


def test_an_optimised_model_is_written_and_computes_the_same(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.onnx"
    result = rewrite("optimize", "-o", out, model=model)
    assert result.exit_code == 0, result.output
    nodes = [node.op_type for node in onnx.load(out).graph.node]
    assert nodes == ["MatMul", "Add"]
    lines = result.stdout.splitlines()
    assert re.fullmatch(rf"before +{size(model)} +[\d.]+ ms", lines[1])
    assert re.fullmatch(rf"after +{size(out)} +[\d.]+ ms", lines[2])
    assert lines[3] == "y: differs by 0 at most (0.00% of its largest value), cosine 1.000000"
    assert lines[4] == f"written: {out}"


def test_a_quantised_model_is_smaller_and_the_difference_is_said(
    model: Path, tmp_path: Path
) -> None:
    out = tmp_path / "new.onnx"
    result = rewrite("quantize", "-o", out, model=model)
    assert result.exit_code == 0, result.output
    assert out.stat().st_size < model.stat().st_size / 2
    found = re.search(r"y: differs by ([\d.]+) at most .* cosine (0\.99\d+)", result.stdout)
    assert found
    assert float(found[1]) > 0


def test_with_a_calibration_activations_have_eight_bits_too(model: Path, tmp_path: Path) -> None:
    out, rows = tmp_path / "new.onnx", tmp_path / "rows.npz"
    random = np.random.default_rng(1)
    np.savez(rows, x=random.standard_normal((20, 64), dtype=np.float32))
    result = rewrite("quantize", "-o", out, "--calibration", rows, "--inputs", rows, model=model)
    assert result.exit_code == 0, result.output
    assert "QuantizeLinear" in {node.op_type for node in onnx.load(out).graph.node}
    assert "cosine 0.99" in result.stdout


def test_a_file_that_is_there_is_not_written_over(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "new.onnx"
    out.write_text("mine")
    result = rewrite("optimize", "-o", out, model=model)
    assert result.exit_code == 1
    assert "is there already" in result.output
    assert out.read_text() == "mine"


def test_inputs_that_the_model_does_not_take_are_one_line(model: Path, tmp_path: Path) -> None:
    inputs = tmp_path / "inputs.npz"
    np.savez(inputs, z=np.zeros(3))
    out = tmp_path / "new.onnx"
    result = rewrite("optimize", "-o", out, "--inputs", inputs, model=model)
    assert result.exit_code == 1
    assert "does not take these inputs" in result.output
    assert "Traceback" not in result.output


def test_what_is_no_model_leaves_nothing_behind(model: Path, tmp_path: Path) -> None:
    model.write_bytes(b"junk")
    out = tmp_path / "new.onnx"
    result = rewrite("optimize", "-o", out, model=model)
    assert result.exit_code == 1
    assert "cannot load m.onnx" in result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "m.onnx"]


def test_a_model_with_versions_is_asked_for_by_one_of_them(model: Path, tmp_path: Path) -> None:
    config = tmp_path / "headrace.toml"
    versions = "".join(
        f'[[models.versions]]\nversion = "{one}"\nsource = "file:{model}"\n' for one in ("1", "2")
    )
    config.write_text(f'[[models]]\nname = "m"\nengine = "onnx"\n{versions}')
    words = ["optimize", "m", "-o", str(tmp_path / "new.onnx"), "--config", str(config)]
    result = CliRunner().invoke(command, words)
    assert result.exit_code == 1
    assert "m has versions; name one of m:1, m:2" in result.output
