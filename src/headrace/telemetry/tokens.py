"""Tokens of finished generations: noted with one append, added up when somebody asks."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import deque

from headrace.domain.event import Usage
from headrace.telemetry.histogram import GEN_AI_TOKENS


class TokenCounts:
    """``note`` takes what a generation used, on the event loop thread; :meth:`fold` adds it up, in any.

    Bounded by who folds: the app does with every tick. ``inputs`` and ``outputs``: generations by how many
    tokens they had, in the buckets of ``GEN_AI_TOKENS``.
    """

    __slots__ = ("_lock", "_noted", "cached", "completion", "inputs", "note", "outputs", "prompt")

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._noted: deque[Usage] = deque()
        self.note = self._noted.append
        self.prompt = self.completion = self.cached = 0
        self.inputs = [0] * (len(GEN_AI_TOKENS) + 1)
        self.outputs = [0] * (len(GEN_AI_TOKENS) + 1)

    def fold(self) -> TokenCounts:
        """With everything noted until now."""
        noted = self._noted
        with self._lock:
            while noted:
                usage = noted.popleft()
                prompt, completion = usage.prompt_tokens, usage.completion_tokens
                self.prompt += prompt
                self.completion += completion
                self.cached += usage.cached_tokens
                self.inputs[bisect_left(GEN_AI_TOKENS, prompt)] += 1
                self.outputs[bisect_left(GEN_AI_TOKENS, completion)] += 1
        return self
