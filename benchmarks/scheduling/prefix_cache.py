"""Prefix blocks that an engine still holds: the least recently used go first."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

BLOCK_TOKENS = 512
"""As in Mooncake's traces."""


class PrefixCache:
    """At most ``limit`` blocks. A block's hash stands for all that comes before it as well."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._blocks: OrderedDict[int, None] = OrderedDict()

    def cached_tokens(self, blocks: Sequence[int], prompt_tokens: int) -> int:
        """How many of the prompt need no prefill; its last token always does."""
        held = 0
        for block in blocks:
            if block not in self._blocks:
                break
            held += BLOCK_TOKENS
        return max(0, min(held, prompt_tokens - 1))

    def use(self, blocks: Sequence[int]) -> None:
        """They were just computed or read; the last of a prompt is the first to go."""
        for block in reversed(blocks):
            self._blocks[block] = None
            self._blocks.move_to_end(block)
        while len(self._blocks) > self._limit:
            self._blocks.popitem(last=False)
