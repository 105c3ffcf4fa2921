"""The prompt at the beginning of a completion's answer, with its tokens' probabilities if wanted."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import TokenLogprob
from headrace.engines.base import unsupported
from headrace.engines.engine import Run
from headrace.engines.llama_body import encode
from headrace.engines.llama_client import LlamaClient
from headrace.engines.llama_fold import decode_piece

MAX_PROMPT_TOKENS = 64
"""Of an echoed prompt with logprobs: each costs a request."""
_CERTAIN = 1e9
"""A bias that makes llama.cpp choose a token; the logprobs it reports are those without any bias."""


class Tokenized(msgspec.Struct, gc=False):
    """Answer of ``/tokenize`` with pieces; bytes that are no text come as numbers."""

    id: int
    piece: str | list[int]

    @property
    def raw(self) -> bytes:
        return self.piece.encode() if isinstance(self.piece, str) else bytes(self.piece)


class Tokens(msgspec.Struct, gc=False):
    tokens: list[Tokenized]


class Echo:
    """Finds what one choice's answer begins with and hands it to ``done`` as a delta."""

    __slots__ = (
        *("_call", "_client", "_done", "_failed", "_found", "_index", "_logprobs", "_prompt"),
        *("_slot", "_tokens"),
    )

    def __init__(
        self,
        client: LlamaClient,
        slot: int,
        prompt: str | tuple[int, ...],
        index: int,
        logprobs: int | None,
        done: Callable[[Delta], None],
        failed: Callable[[HeadraceError], None],
    ) -> None:
        self._client = client
        self._slot = slot
        self._prompt = prompt
        self._index = index
        self._logprobs = logprobs
        self._done = done
        self._failed = failed
        self._tokens: list[Tokenized] = []
        self._found: list[TokenLogprob] = []
        self._call: Run | None = None

    def start(self) -> None:
        prompt = self._prompt
        if isinstance(prompt, str) and self._logprobs is None:
            self._done(Delta(prompt, self._index))
            return
        if isinstance(prompt, str):
            self._tokenize(prompt)
        else:
            body = {"tokens": prompt}
            self._call = self._client.ask("/detokenize", body, self._detokenized, self._failed)

    def cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def _detokenized(self, body: bytes) -> None:
        text: str = msgspec.json.decode(body)["content"]
        if self._logprobs is None:
            self._done(Delta(text, self._index))
        else:
            why = "There are no logprobs of an echoed prompt that is token ids."
            self._failed(unsupported("logprobs", why))

    def _tokenize(self, prompt: str) -> None:
        body = {"content": prompt, "add_special": True, "parse_special": True, "with_pieces": True}
        self._call = self._client.ask("/tokenize", body, self._tokenized, self._failed)

    def _tokenized(self, body: bytes) -> None:
        self._tokens = msgspec.json.decode(body, type=Tokens).tokens
        if len(self._tokens) > MAX_PROMPT_TOKENS:
            why = f"Logprobs of an echoed prompt are limited to {MAX_PROMPT_TOKENS} tokens; "
            why += f"this one has {len(self._tokens)}."
            self._failed(unsupported("logprobs", why))
            return
        first = self._tokens[:1]
        self._found = [TokenLogprob(_text(one.raw), None, tuple(one.raw)) for one in first]
        self._next()

    def _next(self) -> None:
        """One run of one token: what is the probability of the prompt's next token?"""
        at = len(self._found)
        if at >= len(self._tokens):
            self._finish()
            return
        fields: dict[str, Any] = {
            "prompt": [one.id for one in self._tokens[:at]],
            "n_predict": 1,
            "n_probs": max(1, self._logprobs or 0),
            "logit_bias": [[self._tokens[at].id, _CERTAIN]],
            "id_slot": self._slot,
            "temperature": 0,
        }
        self._call = self._client.compute(encode(fields), self._computed, self._failed)

    def _computed(self, body: bytes) -> None:
        one = self._tokens[len(self._found)]
        probable = decode_piece(body).completion_probabilities
        if not probable:
            self._failed(HeadraceError(Code.ENGINE_FAILED, "The engine said no probabilities."))
            return
        top = probable[0].top_logprobs[: self._logprobs or 0]
        alternatives = tuple((a.token, a.logprob, a.bytes) for a in top)
        raw = tuple(one.raw)
        self._found.append(TokenLogprob(_text(one.raw), probable[0].logprob, raw, alternatives))
        self._next()

    def _finish(self) -> None:
        assert isinstance(self._prompt, str)
        self._done(Delta(self._prompt, self._index, (), False, tuple(self._found)))


def _text(raw: bytes) -> str:
    return raw.decode(errors="replace")
