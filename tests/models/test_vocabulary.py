"""Tokens become the bytes they stand for, in both spellings."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest

from headrace.domain.errors import HeadraceError
from headrace.models.vocabulary import partial_tokens, vocabulary_bytes
from headrace.models.wanted import ModelFile


def write(path: Path, kind: str, tokens: list[str], kinds: list[int]) -> Path:
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_byte_level_tokens_are_decoded_by_gpt2s_table(tiny_gguf: Path) -> None:
    found = vocabulary_bytes(tiny_gguf)
    assert found[:4] == [b"<|end|>", b"h", b"i", b" "]
    assert found[4:8] == [b" \xf0", b"\x9f", b"\x98", b"\x80"]
    assert found[8:] == ["😀".encode(), "é".encode(), "literal€".encode()]


def test_sentencepiece_tokens_have_spaces_and_single_bytes(tmp_path: Path) -> None:
    tokens = ["<s>", "▁hi", "<0xF0>", "<0x41>", "<0xZZ>", "é"]
    path = write(tmp_path / "s.gguf", "llama", tokens, [3, 1, 6, 6, 1, 1])
    assert vocabulary_bytes(path) == [b"<s>", b" hi", b"\xf0", b"A", b"<0xZZ>", "é".encode()]
    assert partial_tokens(path) == {b"\xf0": 2}


def test_partial_tokens_are_those_that_are_not_utf8_alone(tiny_gguf: Path) -> None:
    assert partial_tokens(tiny_gguf) == {b" \xf0": 4, b"\x9f": 5, b"\x98": 6, b"\x80": 7}


def test_a_file_without_a_vocabulary_has_no_partial_tokens(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(tmp_path / "n.gguf", "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert partial_tokens(tmp_path / "n.gguf") == {}


def test_a_file_that_is_no_gguf_is_said_in_one_line(tmp_path: Path) -> None:
    path = tmp_path / "x.gguf"
    for content in (b"", b"<html>", b"GGUF\x03\0\0\0"):
        path.write_bytes(content)
        with pytest.raises(HeadraceError, match=r"^x\.gguf is not a GGUF file: .+") as caught:
            partial_tokens(path)
        assert "\n" not in caught.value.message


def test_every_byte_of_the_real_model_can_be_written_with_its_partial_tokens(
    embedded_model: ModelFile,
) -> None:
    emoji = "🦆".encode()
    single = {raw for raw in embedded_model.partial_tokens if len(raw) == 1}
    assert {emoji[i : i + 1] for i in range(len(emoji))} <= single
    ids = list(embedded_model.partial_tokens.values())
    assert len(set(ids)) == len(ids)
