"""What the engine process of ONNX Runtime GenAI does all day: orders, then a step of every run, then orders."""

from __future__ import annotations

import queue
from collections import deque
from collections.abc import Callable
from typing import Protocol

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.genai_batch import Batch
from headrace.engines.genai_generators import Generators
from headrace.engines.genai_model import GenaiModel
from headrace.engines.genai_wire import (
    Answer,
    Cancel,
    Detokenize,
    Facts,
    Failed,
    Order,
    Piece,
    Pieces,
    Progress,
    Said,
    Start,
    Tokenize,
    decode_order,
    line,
)


class Runs(Protocol):
    """What computes. Says what comes of it itself."""

    def __len__(self) -> int:
        """How many are under way."""

    def begin(self, start: Start) -> None:
        """Raises :class:`HeadraceError`, and what GenAI does, for what cannot be computed."""

    def cancel(self, run: int) -> None:
        """Nothing more is said of it; idempotent."""

    def step(self) -> None:
        """The next token of each, or of its prompt a chunk."""


class Work:
    """At most ``slots`` runs at once; the others wait in order, as many as the server lets through."""

    def __init__(self, model: GenaiModel, slots: int) -> None:
        self._model = model
        self._slots = slots
        self._waiting: deque[Start] = deque()
        self._runs: Runs = (
            Batch(model, slots, self._hear) if model.batches else Generators(model, self._hear)
        )
        self._progress: list[Said] = []
        self._pieces: list[Piece] = []
        self._said: list[Said] = []

    def __call__(self, orders: queue.SimpleQueue[bytes], send: Callable[[bytes], None]) -> None:
        """Does not return."""
        model = self._model
        self._said.append(Facts(model.context, model.vocabulary))
        while True:
            self._tell(send)
            while not (self._busy and orders.empty()):
                self._obey(decode_order(orders.get()))
                self._tell(send)
            self._step()

    @property
    def _busy(self) -> bool:
        return bool(len(self._runs) or self._waiting)

    def _tell(self, send: Callable[[bytes], None]) -> None:
        """All that was said, at once and in the order in which it happens to one run."""
        pieces = [Pieces(self._pieces)] if self._pieces else []
        said = [*self._progress, *pieces, *self._said]
        if said:
            self._progress, self._pieces, self._said = [], [], []
            send(b"".join(map(line, said)))

    def _hear(self, said: Piece | Said) -> None:
        match said:
            case Piece():
                self._pieces.append(said)
            case Progress():
                self._progress.append(said)
            case _:
                self._said.append(said)

    def _obey(self, order: Order) -> None:
        match order:
            case Start():
                self._waiting.append(order)
            case Cancel(run):
                self._runs.cancel(run)
                self._waiting = deque(one for one in self._waiting if one.run != run)
            case Tokenize():
                self._said.append(self._tokenized(order))
            case Detokenize(question, tokens):
                self._said.append(Answer(question, text=self._model.text(tokens)))

    def _tokenized(self, order: Tokenize) -> Answer:
        try:
            ids = tuple(self._model.prompt_ids(order.prompt))
        except HeadraceError as error:
            return Answer(order.question, error=error.message)
        return Answer(order.question, ids, tuple(self._model.pieces(ids)) if order.pieces else ())

    def _step(self) -> None:
        while self._waiting and len(self._runs) < self._slots:
            self._begin(self._waiting.popleft())
        if len(self._runs):
            self._runs.step()

    def _begin(self, start: Start) -> None:
        try:
            self._runs.begin(start)
        except HeadraceError as error:
            self._fail(start.run, error)
        except RuntimeError as error:  # GenAI's
            self._fail(start.run, HeadraceError(Code.ENGINE_FAILED, str(error)))

    def _fail(self, run: int, error: HeadraceError) -> None:
        self._said.append(Failed(run, error.code, error.message, error.param))
