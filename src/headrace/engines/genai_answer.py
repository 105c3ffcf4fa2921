"""An answer while it is computed: its tokens become text, and its end is known by them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.genai_model import GenaiModel
from headrace.engines.genai_wire import Ended, Piece, Progress, Said, Start
from headrace.engines.spoken import Spoken

Say = Callable[[Piece | Said], None]


class Answer:
    """Of one run. ``ids``: of its prompt and of what it had said before; ``new_from``: where the latter begins.
    ``length``: tokens of all of it, at most."""

    def __init__(self, model: GenaiModel, start: Start, say: Say) -> None:
        """Raises :class:`HeadraceError` for a prompt that cannot be computed."""
        prompt = model.prompt_ids(start.prompt)
        said = model.said_ids(start.prefix) if start.prefix is not None else ()
        self.ids = [*prompt, *said]
        self.new_from = len(prompt)
        self.length = _length(model, len(self.ids), start.max_tokens)
        self._run = start.run
        self._say = say
        self._ends = model.ends
        self._made = 0
        self._spoken = Spoken(model.decoder(self.ids), start.sampling.stop)

    def filled(self, done: int) -> None:
        """So many of ``ids`` are computed."""
        self._say(Progress(self._run, done, len(self.ids)))

    def take(self, token: int) -> bool:
        """The next token. True: it was the last, and that has been said."""
        self._made += 1
        if token in self._ends:
            self.end("stop")
            return True
        shown = self._spoken.feed(token)
        self._show(*shown)
        if self._spoken.found is not None:
            self._over("stop")
        elif self._made == self.length - len(self.ids):
            self.end("length")
        else:
            return False
        return True

    def end(self, reason: Literal["stop", "length"]) -> None:
        """It is over, with what was held back."""
        self._show(*self._spoken.rest())
        self._over(reason)

    def _over(self, reason: Literal["stop", "length"]) -> None:
        self._say(Ended(self._run, reason, len(self.ids), self._made, self._spoken.found))

    def _show(self, text: str, ids: Sequence[int]) -> None:
        if text or ids:
            self._say(Piece(self._run, text, tuple(ids)))


def _length(model: GenaiModel, prompt: int, wanted: int) -> int:
    """Tokens of a prompt and an answer of at most ``wanted`` tokens, 0: as many as fit."""
    if not prompt:
        raise HeadraceError(Code.INVALID_REQUEST, "The prompt has no tokens.", param="prompt")
    if prompt >= model.context:
        text = f"The prompt has {prompt} tokens; this model's context has {model.context}."
        raise HeadraceError(Code.CONTEXT_LENGTH, text)
    return min(model.context, prompt + wanted) if wanted else model.context
