"""What the server and an engine process of ONNX Runtime GenAI say to each other: one JSON value a line.

Whoever connects sends the process's key as its first line. The process then says :class:`Facts`, and for each
:class:`Start` any number of pieces and one :class:`Ended` or :class:`Failed`, unless it was told :class:`Cancel`.
Questions have numbers of their own.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from headrace.domain.delta import Prefix, Turn
from headrace.domain.errors import Code
from headrace.domain.request import Message, Sampling

MAX_LINE_BYTES = 64 * 1024 * 1024
"""A prompt of the longest context is far below."""


class Prompt(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Of one choice: ``messages``, laid out by the model's template, or ``text`` (token ids too). ``goes_on``: the
    answer is the rest of the last message. ``turns``: what was said and added since."""

    messages: tuple[Message, ...] = ()
    text: str | tuple[int, ...] = ""
    goes_on: bool = False
    turns: tuple[Turn, ...] = ()


class Start(msgspec.Struct, frozen=True, gc=False, tag="start", omit_defaults=True):
    """Compute ``run``. ``prefix``: what it has already. ``seed`` is this choice's own; ``max_tokens``: what is
    left, 0: as many as fit. ``exact``: compute the prefix token by token. ``schema``: of JSON, which is all that it
    may say."""

    run: int
    prompt: Prompt
    sampling: Sampling
    seed: int | None = None
    max_tokens: int = 0
    prefix: Prefix | None = None
    exact: bool = False
    schema: str = ""


class Cancel(msgspec.Struct, frozen=True, gc=False, tag="cancel"):
    """Nobody wants ``run`` any more."""

    run: int


class Tokenize(msgspec.Struct, frozen=True, gc=False, tag="tokenize"):
    """The token ids of a prompt; ``pieces``: with their texts."""

    question: int
    prompt: Prompt
    pieces: bool = False


class Detokenize(msgspec.Struct, frozen=True, gc=False, tag="detokenize"):
    """The text of token ids."""

    question: int
    tokens: tuple[int, ...]


Order = Start | Cancel | Tokenize | Detokenize


class Facts(msgspec.Struct, frozen=True, gc=False, tag="facts"):
    """Of the model. ``context``: tokens of prompt and answer together. ``vocabulary``: how many tokens it has."""

    context: int
    vocabulary: int


class Piece(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """New output of a run, with the ids of exactly these tokens."""

    run: int
    text: str
    ids: tuple[int, ...]


class Pieces(msgspec.Struct, frozen=True, gc=False, tag="pieces"):
    """What one step brought, of all runs."""

    of: list[Piece]


class Progress(msgspec.Struct, frozen=True, gc=False, tag="progress"):
    """Tokens of a run's prompt computed so far."""

    run: int
    done: int
    total: int


class Ended(msgspec.Struct, frozen=True, gc=False, tag="ended"):
    """A run is over. ``stop``: the stop string that ended it. ``prompt``, ``made``: tokens."""

    run: int
    reason: Literal["stop", "length"]
    prompt: int
    made: int
    stop: str | None = None


class Failed(msgspec.Struct, frozen=True, gc=False, tag="failed"):
    """A run that ended badly."""

    run: int
    code: Code
    message: str
    param: str | None = None


class Answer(msgspec.Struct, frozen=True, gc=False, tag="answer"):
    """To a question: the token ids and, if they were wanted, their texts; or a text; or why not (``error``)."""

    question: int
    ids: tuple[int, ...] = ()
    pieces: tuple[str, ...] = ()
    text: str = ""
    error: str = ""


Said = Facts | Pieces | Progress | Ended | Failed | Answer

_encode = msgspec.json.Encoder().encode
decode_order = msgspec.json.Decoder(Order).decode
decode_said = msgspec.json.Decoder(Said).decode


class Lines:
    """Whole lines of what came in pieces. Raises :class:`ValueError` for one that is too long."""

    def __init__(self) -> None:
        self._rest: list[bytes] = []
        self._size = 0

    def feed(self, data: bytes) -> list[bytes]:
        """The lines that are complete now."""
        if b"\n" not in data:
            self._keep(data)
            return []
        first, *lines = data.split(b"\n")
        lines.insert(0, b"".join((*self._rest, first)))
        self._rest, self._size = [], 0
        self._keep(lines.pop())
        return lines

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size > MAX_LINE_BYTES:
            raise ValueError("a line is too long")
        if data:
            self._rest.append(data)


def line(said: Order | Said) -> bytes:
    """What is said, as it is sent."""
    return _encode(said) + b"\n"
