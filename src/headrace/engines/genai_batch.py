"""Runs of a model that computes many sequences at once: GenAI's own continuous batching.

For models whose ``genai_config.json`` has ``engine.dynamic_batching``, which are those for GPUs with paged attention.
A step is one run of the model over the next tokens of all sequences, prompts and answers mixed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnxruntime_genai as og

from headrace.domain.errors import Code
from headrace.engines.genai_answer import Answer, Say
from headrace.engines.genai_generators import unusable_format
from headrace.engines.genai_model import GenaiModel, search_options
from headrace.engines.genai_wire import Failed, Start

_FLAGS = og.EngineEventFlags
_FINISH = og.FinishReason
_BROKEN = (
    og.EngineErrorCode.ENGINE_CONTRACT_FAILURE,
    og.EngineErrorCode.ENGINE_EXECUTION_FAILURE,
)
"""After these it computes nothing any more: the process has to end, and the next one goes on."""


class Batch:
    """As :class:`~headrace.engines.genai_work.Runs` says. ``slots``: how many it may have at once."""

    def __init__(self, model: GenaiModel, slots: int, say: Say) -> None:
        self._model = model
        self._say = say
        self._engine = og.Engine(model.handle)
        self._events = self._engine.create_event_buffer(slots)
        self._turns: dict[int, _Turn] = {}

    def __len__(self) -> int:
        return len(self._turns)

    def begin(self, start: Start) -> None:
        answer = Answer(self._model, start, self._say)
        self._turns[start.run] = _Turn(self._engine, start, answer)

    def cancel(self, run: int) -> None:
        turn = self._turns.pop(run, None)
        if turn is not None:
            turn.leave()

    def step(self) -> None:
        """Raises :class:`RuntimeError` when the engine cannot go on."""
        self._engine.run(self._events)
        runs = {id(turn.request): number for number, turn in self._turns.items()}
        for at in range(len(self._events)):
            event = self._events[at]
            number = runs.get(id(event.request))
            if number in self._turns and self._heard(number, event):
                self.cancel(number)

    def _heard(self, number: int, event: Any) -> bool:
        """True: the run is over, and has said so."""
        answer = self._turns[number].answer
        flags = event.flags.value
        if flags & _FLAGS.TOKEN.value:
            self._turns[number].spoke()
            if answer.take(int(event.token)):
                return True
        if flags & _FLAGS.FAILED.value:
            what = f"The engine gave the request up: {event.error_code.name}."
            if event.error_code in _BROKEN:
                raise RuntimeError(what)
            self._say(Failed(number, Code.ENGINE_FAILED, what))
            return True
        if flags & _FLAGS.TURN_FINISHED.value:
            answer.end("stop" if event.finish_reason == _FINISH.EOS else "length")
            return True
        return False


class _Turn:
    """A sequence in the engine, and what is said in it."""

    def __init__(self, engine: Any, start: Start, answer: Answer) -> None:
        self.answer = answer
        self._begun = False
        session = og.RequestOptions()
        session.set_max_session_tokens(answer.length)
        self.request = engine.create_request(options=session)
        options = _turn_options(self.request, start, answer)
        ids = np.array(answer.ids, dtype=np.int32)
        try:
            self._turn = self.request.begin_turn(ids, options)
        except RuntimeError as error:
            self.request.close()
            raise unusable_format(error) if start.schema else error from None

    def spoke(self) -> None:
        """Its prompt is computed, then."""
        if not self._begun:
            self._begun = True
            self.answer.filled(len(self.answer.ids))

    def leave(self) -> None:
        """Give its place in the batch to another."""
        self.request.cancel_turn(self._turn)
        self.request.close()


def _turn_options(request: Any, start: Start, answer: Answer) -> Any:
    options = og.TurnOptions(request)
    wanted = search_options(start, answer.length)
    for name in ("temperature", "top_p", "top_k", "do_sample", "repetition_penalty"):
        if name in wanted:
            getattr(options, f"set_{name}")(wanted[name])
    left = answer.length - len(answer.ids)
    options.set_max_generated_tokens(left)
    if start.sampling.ignore_eos:
        options.set_min_generated_tokens(left)
    if "random_seed" in wanted:
        options.set_seed(wanted["random_seed"])
    if start.schema:
        options.set_guidance("json_schema", start.schema)
    return options
