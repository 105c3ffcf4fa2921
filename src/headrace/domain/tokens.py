"""A text as its model's tokenizer cuts it."""

from __future__ import annotations

import msgspec


class Tokens(msgspec.Struct, frozen=True, gc=False):
    """``ids`` of a text's tokens. ``pieces``: what each of them is, a text, or its bytes where they are no
    UTF-8 alone; None where nobody asked."""

    ids: tuple[int, ...]
    pieces: tuple[str | tuple[int, ...], ...] | None = None
