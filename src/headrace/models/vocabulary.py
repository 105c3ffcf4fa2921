"""The bytes of a model's tokens, read from its GGUF file.

Two spellings exist: byte-level BPE (``gpt2``) writes every byte as a printable character (the table
of https://github.com/openai/gpt-2, ``bytes_to_unicode``); SentencePiece writes a space as ``▁`` and
single bytes as ``<0xE2>``. Control and user-defined tokens are written plainly.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

_BYTE_LEVEL = "gpt2"
_CONTROL, _USER_DEFINED, _BYTE = 3, 4, 6
"""``tokenizer.ggml.token_type``, as in llama.cpp's ``llama_token_type``."""


def partial_tokens(path: Path) -> dict[bytes, int]:
    """Bytes → id of the tokens that are not valid UTF-8 alone: parts of a character, and what stands
    beside one. Empty where the file has no vocabulary. Raises ``ENGINE_UNAVAILABLE`` if it is no GGUF."""
    found: dict[bytes, int] = {}
    for token, raw in enumerate(vocabulary_bytes(path)):
        if not _is_utf8(raw):
            found.setdefault(raw, token)
    return found


def vocabulary_bytes(path: Path) -> list[bytes]:
    """Each token's bytes, by id. Raises ``ENGINE_UNAVAILABLE`` if it is no GGUF."""
    from headrace.models.gguf_file import read

    reader = read(path)
    tokens = _contents(reader, "tokens") or []
    kinds = _contents(reader, "token_type") or [1] * len(tokens)
    if _contents(reader, "model") == _BYTE_LEVEL:
        return _byte_level(tokens, kinds)
    return _sentencepiece(tokens, kinds)


def _contents(reader: Any, name: str) -> Any:
    field = reader.get_field(f"tokenizer.ggml.{name}")
    return field.contents() if field else None


def _byte_level(tokens: Sequence[str], kinds: Sequence[int]) -> list[bytes]:
    table = _byte_level_table()
    return [
        text.encode()
        if kind in (_CONTROL, _USER_DEFINED) or not table.keys() >= set(text)
        else bytes(map(table.__getitem__, text))
        for text, kind in zip(tokens, kinds, strict=True)
    ]


def _sentencepiece(tokens: Sequence[str], kinds: Sequence[int]) -> list[bytes]:
    return [
        bytes([int(text[1:-1], 16)])
        if kind == _BYTE and re.fullmatch(r"<0x[0-9A-Fa-f]{2}>", text)
        else text.replace("▁", " ").encode()
        for text, kind in zip(tokens, kinds, strict=True)
    ]


def _byte_level_table() -> dict[str, int]:
    """Character → byte: printable Latin-1 stands for itself, the rest for U+0100 and following."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(0x100) if byte not in printable]
    table = {chr(byte): byte for byte in printable}
    return table | {chr(0x100 + place): byte for place, byte in enumerate(others)}


def _is_utf8(raw: bytes) -> bool:
    try:
        raw.decode()
    except UnicodeDecodeError:
        return False
    return True
