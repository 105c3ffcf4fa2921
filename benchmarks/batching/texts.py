"""Texts whose length in tokens is known: of words that are one token each for BERT's tokenizers, between the two that
every text gets."""

from __future__ import annotations

import random
import re

WORDS = re.findall(
    r"\w+",
    "the miller opens his gate in the morning and water runs down to the wheel which turns a stone over the grain "
    "from every field around this village until night falls on its roof when all people are back home again",
)
COUNT = 512
SHORTEST, LONGEST = 8, 48
"""Tokens of mixed texts: of a question, of a short paragraph; every length between is as likely."""
SAME = 32
"""Tokens of texts that are all alike."""


def texts(*, mixed: bool, seed: int = 1) -> list[str]:
    """``COUNT`` of them."""
    chance = random.Random(seed)
    lengths = [chance.randint(SHORTEST, LONGEST) if mixed else SAME for _ in range(COUNT)]
    return [" ".join(chance.choices(WORDS, k=length - 2)) for length in lengths]
