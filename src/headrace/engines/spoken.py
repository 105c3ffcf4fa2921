"""Tokens on their way to text: what may be shown now, with the ids of exactly the tokens that it is.

A token is held back while it is a part of a character, or could become part of a stop string; so who goes on
from the ids that were shown goes on from the text that was shown.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from headrace.engines.stopping import overlap

Decode = Callable[[int], str]
"""The text that a token adds; empty while its character is not complete."""


class Spoken:
    """Of one choice. ``found``: the stop string that came; it is not shown, and nothing after it."""

    def __init__(self, decode: Decode, stops: Sequence[str] = ()) -> None:
        self._decode = decode
        self._stops = tuple(stop for stop in stops if stop)
        self._held: list[tuple[int, str]] = []
        self.found: str | None = None

    def feed(self, token: int) -> tuple[str, tuple[int, ...]]:
        """The text that may be shown now, and its ids."""
        self._held.append((token, self._decode(token)))
        text = "".join(piece for _, piece in self._held)
        at = self._first_stop(text)
        if at >= 0:
            return text[:at], self._up_to(at)[1]
        keep = max((overlap(text, stop) for stop in self._stops), default=0)
        return self._up_to(len(text) - keep)

    def rest(self) -> tuple[str, tuple[int, ...]]:
        """What was held back, at the end."""
        held, self._held = self._held, []
        return "".join(text for _, text in held), tuple(token for token, _ in held)

    def _first_stop(self, text: str) -> int:
        places = [(at, stop) for stop in self._stops if (at := text.find(stop)) >= 0]
        if not places:
            return -1
        at, self.found = min(places)
        return at

    def _up_to(self, end: int) -> tuple[str, tuple[int, ...]]:
        """The held tokens that end at or before ``end`` with a text of their own."""
        size = count = 0
        for place, (_, piece) in enumerate(self._held):
            size += len(piece)
            if size > end:
                break
            if piece:
                count = place + 1
        shown, self._held = self._held[:count], self._held[count:]
        return "".join(piece for _, piece in shown), tuple(token for token, _ in shown)
