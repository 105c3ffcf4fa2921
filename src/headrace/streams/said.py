"""``Said``: what the engines of one generation have said so far, for another run to go on from."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.delta import Delta, Prefix, Turn
from headrace.domain.request import Message
from headrace.streams.raw import Raw

_NOTHING = Prefix("", ())


class Said:
    """``turns``: those that prompts in mid-stream closed. ``prior``: tokens of earlier runs, since the newest began."""

    __slots__ = ("_open", "prior", "turns")

    def __init__(self) -> None:
        self.turns: tuple[Turn, ...] = ()
        self.prior = 0
        self._open: dict[int, Raw] = {}
        """The turn that is not closed, by choice."""

    @property
    def begun(self) -> bool:
        """Whether there is anything, be it a turn in which nothing was said."""
        return bool(self._open)

    @property
    def closed_tokens(self) -> int:
        """Tokens in turns that are closed."""
        return sum(turn.said.tokens for turn in self.turns)

    @property
    def tokens(self) -> int:
        return self.closed_tokens + sum(raw.tokens for raw in self._open.values())

    def remember(self, deltas: Sequence[Delta]) -> None:
        known = self._open
        for delta in deltas:
            raw = known.get(delta.index)
            if raw is None:
                raw = known[delta.index] = Raw()
            raw.add(delta)

    def close_turn(self, messages: Sequence[Message], said: Prefix | None = None) -> None:
        """Put messages behind it. ``said``: what there was, where it was not kept here."""
        if said is None:
            said = self._open[0].prefix() if 0 in self._open else _NOTHING
        for message in messages:
            self.turns += (Turn(said, message),)
            said = _NOTHING
        self._open = {0: Raw()}

    def prefixes(self, choices: int) -> tuple[Prefix, ...]:
        """What each choice has in its open turn, to go on from; empty if nothing was computed yet."""
        known = self._open
        if not any(raw.deltas for raw in known.values()):
            return (_NOTHING,) if self.turns else ()
        return tuple(
            raw.prefix() if (raw := known.get(index)) else _NOTHING for index in range(choices)
        )

    def forget_held(self) -> Sequence[Delta]:
        """A new run begins: what was told but never delivered is forgotten. Returns markers of that for the store."""
        markers = [Delta("", index) for index, raw in self._open.items() if raw.held]
        self.remember(markers)
        return markers
