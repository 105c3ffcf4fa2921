"""A long prompt, one batch a request, so that leaving stops the engine after the batch under way.

llama.cpp looks whether a client is still there only when it has something for it: after a batch, when its
compute thread has begun the next one already. A request that was closed in prefill therefore costs the
batch under way and one more (measured: 2 in 29 of 36 cases). Here each batch is a request of its own that
computes no token, in the same slot, whose cache it extends; leaving simply means not asking for the next.
A step costs a round trip, about 1 % of the batch, while nothing else runs in the process. Beside others it
costs the slot a whole batch: the next one has begun without it when the answer is read here. There the
last two batches are one request, so that a prompt of that length, as most are, idles for none.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.domain.errors import HeadraceError
from headrace.engines.engine import Run
from headrace.engines.llama_body import encode
from headrace.engines.llama_client import LlamaClient
from headrace.engines.llama_fold import decode_piece


class Prefill:
    """Computes ``ids`` in a slot up to its last batch, which is left to the run itself."""

    __slots__ = (
        *("_at", "_call", "_client", "_cold", "_done", "_failed", "_ids", "_on_step", "_slot"),
        *("_cancelled", "_step", "cached"),
    )

    def __init__(
        self,
        client: LlamaClient,
        slot: int,
        ids: tuple[int, ...],
        *,
        step: int,
        shared: int,
        cold: bool,
        on_step: Callable[[int, int], None],
        done: Callable[[], None],
        failed: Callable[[HeadraceError], None],
    ) -> None:
        """``shared``: tokens that the slot has already; ``cold``: they are not to be used. ``on_step`` is
        told the tokens computed so far, and of how many. ``cached``: those that the engine did not need
        to compute."""
        self._client = client
        self._slot = slot
        self._ids = ids
        self._step = step
        self._at = shared
        self._cold = cold
        self._on_step = on_step
        self._done = done
        self._failed = failed
        self._call: Run | None = None
        self._cancelled = False
        self.cached: int | None = None

    def start(self) -> None:
        """Compute the next batch, if enough follows it."""
        at = self._at + self._step
        last = self._step if self._client.slots.crowded else 0
        if at + last >= len(self._ids):
            self._done()
            return
        fields = {
            "prompt": self._ids[:at],
            "n_predict": 0,
            "id_slot": self._slot,
            "cache_prompt": not self._cold,
            "temperature": 0,
        }
        self._call = self._client.compute(encode(fields), self._computed, self._failed)

    def cancel(self) -> None:
        """Ask for no further batch; idempotent."""
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    def _computed(self, body: bytes) -> None:
        if self.cached is None:
            timings = decode_piece(body).timings
            self.cached = timings.cache_n if timings is not None else 0
        self._at += self._step
        self._cold = False
        self._on_step(self._at, len(self._ids))
        if not self._cancelled:  # by who was told
            self.start()
