"""What llama.cpp's ``/completion`` sends, folded into deltas whose ids are exactly those of their text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, TokenLogprob, Usage
from headrace.engines.chunks import Progress
from headrace.engines.faults import broken_off
from headrace.engines.token_gap import TokenGaps


class Alternative(msgspec.Struct, gc=False):
    token: str = ""
    bytes: tuple[int, ...] = ()
    logprob: float = 0.0


class Probability(msgspec.Struct, gc=False):
    token: str = ""
    bytes: tuple[int, ...] = ()
    logprob: float = 0.0
    top_logprobs: list[Alternative] = []


class Timings(msgspec.Struct, gc=False):
    cache_n: int = 0


class Piece(msgspec.Struct, gc=False):
    """One event, or (``stream`` false) the whole answer. ``id_slot``: said at its end."""

    id_slot: int = -1
    content: str = ""
    tokens: tuple[int, ...] = ()
    stop: bool = False
    stop_type: str = ""
    stopping_word: str = ""
    tokens_predicted: int = 0
    tokens_evaluated: int = 0
    prompt_progress: Progress | None = None
    completion_probabilities: list[Probability] | None = None
    timings: Timings | None = None
    error: Any = None


decode_piece = msgspec.json.Decoder(Piece).decode


class LlamaFold:
    """Folds the events of one choice. ``logprobs``: alternatives wanted a token, None for none at all.
    ``held``: ids whose text llama.cpp holds back, since it could become a stop string. ``made``: ids of
    the answer's tokens, up to the first that llama.cpp did not say."""

    __slots__ = (
        *("_alternatives", "_counted", "_gaps", "_index", "_muted", "_on_progress"),
        *("_broken", "_probable"),
        *("held", "last", "made", "reasons", "stop"),
    )

    def __init__(
        self,
        index: int,
        logprobs: int | None,
        gaps: TokenGaps,
        on_progress: Callable[[int, int], None],
    ) -> None:
        self._index = index
        self._alternatives = logprobs
        self._gaps = gaps
        self._on_progress = on_progress
        self._counted = 0
        self._muted = False
        self._probable: list[TokenLogprob] = []
        self._broken = False
        self.held: list[tuple[tuple[int, ...], int]] = []
        self.made: list[int] = []
        self.last = Piece()
        self.reasons: dict[int, FinishReason] = {}
        self.stop: str | None = None

    def mute(self) -> None:
        """Nothing is wanted but the prompt to be computed."""
        self._muted = True

    def take(self, payloads: Sequence[bytes], deltas: list[Delta]) -> bool:
        """Events; True: the last was among them. Raises what llama.cpp reported."""
        for payload in payloads:
            try:
                piece = decode_piece(payload)
            except (msgspec.DecodeError, UnicodeDecodeError) as error:
                what = f"The engine sent an event that is not one of its protocol: {error}"
                raise HeadraceError(Code.ENGINE_FAILED, what) from None
            if self._take(piece, deltas):
                return True
        return False

    def _take(self, piece: Piece, deltas: list[Delta]) -> bool:
        if piece.error is not None:
            raise broken_off(piece.error)
        if piece.prompt_progress is not None:
            self._on_progress(piece.prompt_progress.processed, piece.prompt_progress.total)
            return False
        if not piece.stop:
            if not self._muted:
                self._token(piece, deltas)
            return False
        self.last = piece
        self.reasons[self._index] = "length" if piece.stop_type == "limit" else "stop"
        if piece.stop_type == "word" and not self._index:
            self.stop = piece.stopping_word
        return True

    def usage(self) -> Usage:
        """This choice's own; who adds up several of one prompt knows what to count once."""
        last = self.last
        cached = last.timings.cache_n if last.timings is not None else 0
        predicted = 0 if self._muted else last.tokens_predicted
        return Usage(last.tokens_evaluated, predicted, cached)

    def _token(self, piece: Piece, deltas: list[Delta]) -> None:
        ids = piece.tokens
        missing = piece.tokens_predicted - self._counted - len(ids)
        self._counted = piece.tokens_predicted
        if missing > 0:
            self._broken = True
        if not self._broken:
            self.made += ids
        if self._alternatives is not None:
            self._note(piece)
        if not piece.content:
            self.held.append((ids, missing))
            return
        if missing > 0 or self.held:
            self.held.append((ids, missing))
            ids = self._resolve(piece.content)
        deltas.append(Delta(piece.content, self._index, ids, False, self._take_probable()))

    def _resolve(self, text: str) -> tuple[int, ...]:
        """All ids of a text, those that llama.cpp did not say included."""
        raw = text.encode("utf-8", "surrogatepass")
        at = 0
        ids: list[int] = []
        for said, missing in self.held:
            if missing > 0 and said:
                found, at = self._gaps.find(raw, at, said[-1], missing)
                ids += found
            ids += said
        self.held.clear()
        return tuple(ids)

    def _note(self, piece: Piece) -> None:
        wanted = self._alternatives or 0
        for one in piece.completion_probabilities or ():
            top = [(a.token, a.logprob, a.bytes) for a in one.top_logprobs[:wanted]]
            self._probable.append(TokenLogprob(one.token, one.logprob, one.bytes, tuple(top)))

    def _take_probable(self) -> tuple[TokenLogprob, ...] | None:
        if not self._probable:
            return None
        probable, self._probable = tuple(self._probable), []
        return probable
