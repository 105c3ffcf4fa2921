"""Going on from a prefix so that rounding is what it was: one token a decode, as when it was computed.

Prefill and decode round differently, so a prefix that is prefilled as one batch may go on with another
text. Here the rest of the prompt is computed first, then every token of the prefix by a request of its own
in the same slot; the last one is left to the run itself. It costs what decoding the prefix did, plus a
round trip a token (about 1 ms). Exactness holds while nothing else runs in the process, then
and now: batches of several slots round differently too.
"""

from __future__ import annotations

from collections.abc import Callable

from headrace.domain.errors import HeadraceError
from headrace.engines.engine import Run
from headrace.engines.llama_body import encode
from headrace.engines.llama_client import LlamaClient
from headrace.engines.llama_fold import decode_piece


class Replay:
    """Brings one slot to where a choice was before its last token."""

    __slots__ = (
        "_at",
        "_call",
        "_cancelled",
        "_client",
        "_cold",
        "_done",
        "_failed",
        "_ids",
        "_on_step",
        "_prompt",
        "_slot",
    )

    def __init__(
        self,
        client: LlamaClient,
        slot: int,
        prompt: tuple[int, ...],
        ids: tuple[int, ...],
        cold: bool,
        on_step: Callable[[int, int], None],
        done: Callable[[], None],
        failed: Callable[[HeadraceError], None],
    ) -> None:
        """``cold``: the slot's cache is not to be used. ``on_step`` is told the tokens computed so far,
        and of how many."""
        self._client = client
        self._slot = slot
        self._prompt = prompt
        self._ids = ids
        self._cold = cold
        self._at = 0
        self._on_step = on_step
        self._done = done
        self._failed = failed
        self._call: Run | None = None
        self._cancelled = False

    def start(self) -> None:
        """Compute the prompt, then token by token."""
        fields = {
            "prompt": [*self._prompt, *self._ids[: self._at]],
            "n_predict": 0,
            "id_slot": self._slot,
            "cache_prompt": not self._cold or self._at > 0,
            "temperature": 0,
        }
        self._call = self._client.compute(encode(fields), self._step, self._failed)

    def cancel(self) -> None:
        """Stop where it is; idempotent."""
        self._cancelled = True
        if self._call is not None:
            self._call.cancel()

    def _step(self, body: bytes) -> None:
        self._at += 1
        done = decode_piece(body).tokens_evaluated
        self._on_step(done, done - self._at + 1 + len(self._ids))
        if self._cancelled:  # by who was told
            return
        if self._at < len(self._ids):
            self.start()
        else:
            self._done()
