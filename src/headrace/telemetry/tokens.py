"""Tokens of finished generations: noted with one append, added up when somebody asks."""

from __future__ import annotations

import threading
from bisect import bisect_left
from collections import Counter, deque
from functools import partial
from operator import attrgetter

from headrace.domain.event import Usage
from headrace.telemetry.histogram import GEN_AI_TOKENS

_PROMPT = attrgetter("prompt_tokens")
_COMPLETION = attrgetter("completion_tokens")
_CACHED = attrgetter("cached_tokens")
_BUCKET = partial(bisect_left, GEN_AI_TOKENS)


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

    def fold_if_free(self) -> None:
        """Unless somebody is at it: for the event loop, which waits for nobody."""
        if self._lock.acquire(blocking=False):
            try:
                self._add_up()
            finally:
                self._lock.release()

    def fold(self) -> TokenCounts:
        """With everything noted until now."""
        with self._lock:
            self._add_up()
        return self

    def _add_up(self) -> None:
        """Without a step of Python for each: thousands a second come with every tick."""
        noted = self._noted
        if not noted:
            return
        take = noted.popleft
        usages = [take() for _ in range(len(noted))]
        prompts = list(map(_PROMPT, usages))
        completions = list(map(_COMPLETION, usages))
        self.prompt += sum(prompts)
        self.completion += sum(completions)
        self.cached += sum(map(_CACHED, usages))
        for tokens, counts in ((prompts, self.inputs), (completions, self.outputs)):
            for bucket, count in Counter(map(_BUCKET, tokens)).items():
                counts[bucket] += count
