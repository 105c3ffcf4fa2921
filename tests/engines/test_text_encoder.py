"""Texts to tokens, tokens to one vector."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from tokenizers.processors import TemplateProcessing

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.text_encoder import TextTokenizer, padded, pooled

WORDS = {"[PAD]": 7, "[UNK]": 1, "<s>": 2, "the": 3, "mill": 4}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Of a tokenizer that says to cut and to pad, as that of MiniLM does."""
    made = Tokenizer(WordLevel(WORDS, unk_token="[UNK]"))
    made.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    made.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 2)])  # type: ignore[assignment]
    made.enable_truncation(4)
    made.enable_padding(pad_id=7, pad_token="[PAD]", length=4)
    path = tmp_path / "tokenizer.json"
    made.save(str(path))
    return path


def test_texts_are_neither_cut_nor_padded(file: Path) -> None:
    tokenizer = TextTokenizer(file)
    assert tokenizer.ids(["the mill the mill the"]) == [[2, 3, 4, 3, 4, 3]]
    assert tokenizer.ids(["the", "race mill"]) == [[2, 3], [2, 1, 4]]
    assert tokenizer.pad_id == 7


def test_ids_are_taken_as_they_are_if_the_model_has_them(file: Path) -> None:
    tokenizer = TextTokenizer(file)
    assert tokenizer.ids([(3, 4), (0,)]) == [(3, 4), (0,)]
    with pytest.raises(HeadraceError, match="5 or above") as refused:
        tokenizer.ids([(3,), (4, 5)])
    assert (refused.value.code, refused.value.param) == (Code.INVALID_REQUEST, "input[1]")


def test_a_file_that_is_no_tokenizer_says_so(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text("{}")
    with pytest.raises(HeadraceError, match=r"tokenizer\.json") as refused:
        TextTokenizer(path)
    assert refused.value.code is Code.ENGINE_UNAVAILABLE


def test_rows_are_padded_to_one_length() -> None:
    ids, mask = padded([(1, 2, 3), (4,)], 4, 9)
    assert ids.tolist() == [[1, 2, 3, 9], [4, 9, 9, 9]]
    assert mask.tolist() == [[1, 1, 1, 0], [1, 0, 0, 0]]
    assert ids.dtype == mask.dtype == np.int64


OUTPUT = np.array([[[3, 4], [5, 0], [99, 99]], [[0, 2], [1, 1], [4, 3]]], np.float32)
MASK = np.array([[1, 1, 0], [1, 1, 1]], np.int64)


@pytest.mark.parametrize(
    ("pooling", "vectors"),
    [
        ("mean", [[4, 2], [5 / 3, 2]]),
        ("cls", [[3, 4], [0, 2]]),
        ("last", [[5, 0], [4, 3]]),
    ],
)
def test_padding_counts_for_nothing(pooling: Any, vectors: Any) -> None:
    found, _ = pooled(OUTPUT, MASK, pooling, normalize=False)
    assert np.allclose(found, vectors)
    lengths = np.linalg.norm(pooled(OUTPUT, MASK, pooling, normalize=True)[0], axis=1)
    assert np.allclose(lengths, 1.0)


def test_what_the_model_has_pooled_is_taken() -> None:
    found, sound = pooled(np.array([[3.0, 4.0], [0.0, 0.0]]), MASK, "mean", normalize=True)
    assert sound.all()
    assert np.allclose(found, [[0.6, 0.8], [0.0, 0.0]])
    assert found.dtype == np.float32


@pytest.mark.parametrize("normalize", [True, False])
@pytest.mark.parametrize("number", [np.nan, np.inf])
def test_what_is_no_number_is_no_vector_and_others_are(normalize: bool, number: float) -> None:
    output = OUTPUT.copy()
    output[1, 0, 0] = number
    vectors, sound = pooled(output, MASK, "mean", normalize)
    assert sound.tolist() == [True, False]
    assert np.allclose(vectors[0], pooled(OUTPUT, MASK, "mean", normalize)[0][0])
