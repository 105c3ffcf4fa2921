"""Runs of a model that computes one sequence at a time: a ``Generator`` for each, a step of every one in turn.

GenAI holds the interpreter while it computes, so threads would gain nothing: an operator's own threads share the work.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime_genai as og

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.genai_answer import Answer, Say
from headrace.engines.genai_model import GenaiModel, search_options
from headrace.engines.genai_wire import Failed, Start

CHUNK = 128
"""Tokens of a prompt that are computed between two looks at whether a run is still wanted, and between two tokens
of the others."""


class Generators:
    """As :class:`~headrace.engines.genai_work.Runs` says."""

    def __init__(self, model: GenaiModel, say: Say) -> None:
        self._model = model
        self._say = say
        self._runs: dict[int, GeneratorRun] = {}

    def __len__(self) -> int:
        return len(self._runs)

    def begin(self, start: Start) -> None:
        self._runs[start.run] = GeneratorRun(self._model, start, self._say)

    def cancel(self, run: int) -> None:
        self._runs.pop(run, None)

    def step(self) -> None:
        for number, run in list(self._runs.items()):
            try:
                over = run.step()
            except RuntimeError as error:  # GenAI's, of this run alone
                self._say(Failed(number, Code.ENGINE_FAILED, str(error)))
                over = True
            if over:
                del self._runs[number]


class GeneratorRun:
    """``step`` computes a chunk of the prompt, or the next token, and says what came of it."""

    def __init__(self, model: GenaiModel, start: Start, say: Say) -> None:
        """Raises :class:`HeadraceError` for what cannot be computed."""
        self._answer = Answer(model, start, say)
        self._ids = self._answer.ids
        self._one_by_one = self._answer.new_from if start.exact else len(self._ids)
        """Where tokens begin that are computed one by one."""
        self._at = 0
        self._generator = _generator(model, start, self._answer.length)

    def step(self) -> bool:
        """True: the run is over, and has said so."""
        if self._at < len(self._ids):
            self._fill()
            if self._at < len(self._ids):
                return False
        self._generator.generate_next_token()
        return self._answer.take(int(self._generator.get_next_tokens()[0]))

    def _fill(self) -> None:
        if self._at >= self._one_by_one:
            end = self._at + 1
        else:
            end = min(self._at + CHUNK, self._one_by_one)
        self._generator.append_tokens(np.array(self._ids[self._at : end], dtype=np.int32))
        self._at = end
        self._answer.filled(end)


def _generator(model: GenaiModel, start: Start, length: int) -> Any:
    params = og.GeneratorParams(model.handle)
    params.set_search_options(**search_options(start, length))
    if not start.schema:
        return og.Generator(model.handle, params)
    try:
        params.set_guidance("json_schema", start.schema)
        return og.Generator(model.handle, params)
    except RuntimeError as error:
        raise unusable_format(error) from None


def unusable_format(error: Exception) -> HeadraceError:
    """The error for a schema that GenAI refuses."""
    text = f"The engine cannot compute answers of this format: {error}"
    return HeadraceError(Code.INVALID_REQUEST, text, param="response_format")
