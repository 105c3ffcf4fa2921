"""One generation in an engine process of ONNX Runtime GenAI: a ``Generator`` of its own, step by step."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnxruntime_genai as og

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.genai_model import GenaiModel
from headrace.engines.genai_wire import Ended, Piece, Progress, Said, Start
from headrace.engines.spoken import Spoken

CHUNK = 128
"""Tokens of a prompt that are computed between two looks at whether a run is still wanted, and between two tokens
of the others."""
Say = Callable[[Piece | Said], None]


class GeneratorRun:
    """``step`` computes a chunk of the prompt, or the next token, and says what came of it."""

    def __init__(self, model: GenaiModel, start: Start, say: Say) -> None:
        """Raises :class:`HeadraceError` for what cannot be computed."""
        self._start = start
        self._say = say
        self._model = model
        prompt = model.prompt_ids(start.prompt)
        said = model.said_ids(start.prefix) if start.prefix is not None else ()
        self._ids = [*prompt, *said]
        self._alone_from = len(prompt) if start.exact else len(self._ids)
        """Tokens from here on are computed one by one."""
        length = length_of(model, len(self._ids), start.max_tokens)
        self._left = length - len(self._ids)
        self._made = self._at = 0
        self._spoken = Spoken(model.decoder(self._ids), start.sampling.stop)
        self._generator: Any = _generator(model, start, length)

    def step(self) -> bool:
        """True: the run is over, and has said so."""
        if self._at < len(self._ids):
            self._fill()
            if self._at < len(self._ids):
                return False
        return self._next()

    def _fill(self) -> None:
        end = self._at + 1 if self._at >= self._alone_from else self._chunk_end()
        self._generator.append_tokens(np.array(self._ids[self._at : end], dtype=np.int32))
        self._at = end
        self._say(Progress(self._start.run, end, len(self._ids)))

    def _chunk_end(self) -> int:
        end = self._at + CHUNK
        return min(end, self._alone_from if self._at < self._alone_from else end)

    def _next(self) -> bool:
        self._generator.generate_next_token()
        token = int(self._generator.get_next_tokens()[0])
        self._made += 1
        if token in self._model.ends:
            return self._end("stop", self._spoken.rest())
        shown = self._spoken.feed(token)
        if self._spoken.found is not None:
            return self._end("stop", shown)
        self._show(shown)
        if self._made == self._left:
            return self._end("length", self._spoken.rest())
        return False

    def _end(self, reason: Any, last: tuple[str, Sequence[int]]) -> bool:
        self._show(last)
        prompt = len(self._ids)
        run = self._start.run
        self._say(Ended(run, reason, prompt, self._made, self._spoken.found))
        return True

    def _show(self, shown: tuple[str, Sequence[int]]) -> None:
        text, ids = shown
        if text or ids:
            self._say(Piece(self._start.run, text, tuple(ids)))


def length_of(model: GenaiModel, prompt: int, wanted: int) -> int:
    """Tokens of a prompt and an answer of at most ``wanted`` tokens, 0: as many as fit. Raises
    ``CONTEXT_LENGTH``, and ``INVALID_REQUEST`` for an empty prompt."""
    if not prompt:
        raise HeadraceError(Code.INVALID_REQUEST, "The prompt has no tokens.", param="prompt")
    if prompt >= model.context:
        text = f"The prompt has {prompt} tokens; this model's context has {model.context}."
        raise HeadraceError(Code.CONTEXT_LENGTH, text)
    return min(model.context, prompt + wanted) if wanted else model.context


def _generator(model: GenaiModel, start: Start, length: int) -> Any:
    try:
        return og.Generator(model.handle, model.params(start, length))
    except RuntimeError as error:
        if not start.schema:
            raise
        text = f"The engine cannot compute answers of this format: {error}"
        raise HeadraceError(Code.INVALID_REQUEST, text, param="response_format") from None
