"""What Headrace is made of tells nobody what runs here."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests import onnx_models

RUN = """
import headrace, sys
{imports}
import onnxruntime
onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
"""


@pytest.mark.parametrize("imports", ["", "import onnxruntime_genai"])
def test_onnx_runtime_keeps_no_id_of_the_machine(tmp_path: Path, imports: str) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx")
    home = tmp_path / "home"
    home.mkdir()
    environment = {name: value for name, value in os.environ.items() if not name.startswith("ORT_")}
    environment |= {"HOME": str(home), "XDG_CACHE_HOME": str(home)}
    command = [sys.executable, "-c", RUN.format(imports=imports), str(path)]
    subprocess.run(command, env=environment, check=True)
    assert list(home.rglob("*")) == []
