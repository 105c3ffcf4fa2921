"""From a GGUF file to the folder that ONNX Runtime GenAI loads: weights dequantised, tokenizer and template included.

``transformers`` reads the GGUF file, with its configuration and its tokenizer, so that nothing is fetched; the model
builder of ``onnxruntime_genai`` writes the graph. https://github.com/microsoft/onnxruntime-genai/tree/main/src/python/py/models
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

import torch
import transformers

from headrace.domain.errors import Code, HeadraceError

Precision = Literal["fp32", "fp16", "int4"]
_OFFLINE = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def convert(gguf: Path, folder: Path, precision: Precision, device: Literal["cpu", "cuda"]) -> None:
    """Write the model of ``gguf`` into ``folder``, which is made. Raises ``UNPROCESSABLE`` for an architecture that
    one of the tools does not know, in its own words."""
    os.environ.update(_OFFLINE)
    with TemporaryDirectory(prefix=".convert-", dir=folder.parent) as scratch:
        checkpoint, made = Path(scratch) / "checkpoint", Path(scratch) / "model"
        try:
            _dequantise(gguf, checkpoint)
        except (ValueError, KeyError, NotImplementedError) as error:
            raise _refused(f"transformers cannot read {gguf.name}: {error}") from error
        _build(checkpoint, made, Path(scratch) / "cache", precision, device)
        made.rename(folder)


def _dequantise(gguf: Path, checkpoint: Path) -> None:
    place, name = str(gguf.parent), gguf.name
    model = transformers.AutoModelForCausalLM.from_pretrained(
        place,
        gguf_file=name,
        dtype=torch.float32,
        quantization_config=transformers.GgufConfig(dequantize=True),
    )
    model.save_pretrained(checkpoint)
    transformers.AutoTokenizer.from_pretrained(place, gguf_file=name).save_pretrained(checkpoint)


def _build(checkpoint: Path, made: Path, cache: Path, precision: str, device: str) -> None:
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    command += ["-i", str(checkpoint), "-o", str(made), "-c", str(cache)]
    command += ["-p", precision, "-e", device]
    built = subprocess.run(command, capture_output=True, text=True, check=False)
    if built.returncode:
        last = built.stderr.strip().rpartition("\n")[2]
        raise _refused(f"the model builder of onnxruntime-genai failed: {last}")


def _refused(text: str) -> HeadraceError:
    return HeadraceError(Code.UNPROCESSABLE, text)
