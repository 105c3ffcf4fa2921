"""The model as every peer computes it: texts to vectors of length 1, as sentence-transformers does it: in runs of texts
of about one length, each padded to its longest."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from tokenizers import Tokenizer

SIZE = int(os.environ.get("MINILM_SIZE", "64"))
"""Texts of a batch."""
WAIT_S = float(os.environ.get("MINILM_WAIT_MS", "5")) / 1000
"""The longest wait for more."""
AT_ONCE = 32
"""Texts of a run, as sentence-transformers has it: ``encode(batch_size=32)``."""


class MiniLm:
    """A thread for each core that the process may use."""

    def __init__(self) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        self._session = onnxruntime.InferenceSession(
            os.environ["MINILM"], options, providers=["CPUExecutionProvider"]
        )
        self._names = [one.name for one in self._session.get_inputs()]
        self._tokenizer = Tokenizer.from_file(os.environ["MINILM_TOKENIZER"])
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()

    def tokens(self, texts: Sequence[str]) -> list[list[int]]:
        return [one.ids for one in self._tokenizer.encode_batch_fast(list(texts))]

    def vectors(self, texts: Sequence[str]) -> Any:
        """``float32``, a row a text."""
        rows = self.tokens(texts)
        order = sorted(range(len(rows)), key=lambda at: len(rows[at]))
        found: list[Any] = [None] * len(rows)
        for begin in range(0, len(order), AT_ONCE):
            run = order[begin : begin + AT_ONCE]
            for at, vector in zip(run, self.run([rows[at] for at in run]), strict=True):
                found[at] = vector
        return np.array(found)

    def run(self, rows: Sequence[Sequence[int]]) -> Any:
        """One run, padded to its longest."""
        ids = np.zeros((len(rows), max(map(len, rows))), np.int64)
        mask = np.zeros_like(ids)
        for at, row in enumerate(rows):
            ids[at, : len(row)] = row
            mask[at, : len(row)] = 1
        known: dict[str, Any] = {"input_ids": ids, "attention_mask": mask}
        fed = {name: known.get(name, np.zeros_like(ids)) for name in self._names}
        output = self._session.run(None, fed)[0]
        vectors = np.matmul(mask[:, None, :].astype(np.float32), output)[:, 0]
        vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
        return vectors
