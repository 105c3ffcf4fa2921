"""Going on with what cannot begin in its middle: computed again from its beginning, less what was delivered.

A grammar has no state that could be handed over, and a tool call is read by who computes it. So such an
answer is computed again with the same seed, and as long as it says what it said before, nothing of it goes
out again. Where it says something else the generation ends: text that was delivered is never taken back.
"""

from __future__ import annotations

import msgspec

from headrace.domain.delta import Delta, Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import ToolCallDelta, Usage


class Retrace:
    """Leaves out of one choice's deltas what its prefix has: text, and what tool calls were told."""

    __slots__ = ("_args_at", "_at", "_calls", "_prefix", "_text")

    def __init__(self, prefix: Prefix) -> None:
        self._prefix = prefix
        self._text = prefix.text
        self._at = 0
        self._calls = {call.index: call for call in prefix.calls}
        self._args_at = dict.fromkeys(self._calls, 0)

    def through(self, deltas: list[Delta]) -> list[Delta]:
        """What is new in them. Raises ``NOT_CONTINUABLE`` if they are not what was delivered."""
        return [new for delta in deltas if (new := self._new_of(delta)) is not None]

    def check_over(self) -> None:
        """The answer is complete. Raises ``NOT_CONTINUABLE`` if more than that had been delivered."""
        told = all(self._args_at[at] == len(call.arguments) for at, call in self._calls.items())
        if self._at < len(self._text) or not told:
            raise _differs()

    def usage(self, whole: Usage) -> Usage:
        """Of what is new; what was delivered counts as prompt."""
        known = min(self._prefix.tokens, whole.completion_tokens)
        return Usage(
            whole.prompt_tokens + known, whole.completion_tokens - known, whole.cached_tokens
        )

    def _new_of(self, delta: Delta) -> Delta | None:
        text = self._new_text(delta.text)
        calls = delta.tool_calls
        if calls is not None:
            calls = tuple(new for call in calls if (new := self._new_call(call)) is not None)
        if text == delta.text and calls == delta.tool_calls and (text or calls):
            return delta
        if not (text or calls):
            return None
        return Delta(text, delta.index, (), delta.reasoning, None, calls or None)

    def _new_text(self, text: str) -> str:
        known = min(len(text), len(self._text) - self._at)
        if not self._text.startswith(text[:known], self._at):
            raise _differs()
        self._at += known
        return text[known:]

    def _new_call(self, piece: ToolCallDelta) -> ToolCallDelta | None:
        told = self._calls.get(piece.index)
        if told is None:
            return piece
        if piece.name not in (None, told.name):
            raise _differs()
        at = self._args_at[piece.index]
        known = min(len(piece.arguments), len(told.arguments) - at)
        if not told.arguments.startswith(piece.arguments[:known], at):
            raise _differs()
        self._args_at[piece.index] = at + known
        rest = piece.arguments[known:]
        return msgspec.structs.replace(piece, id=None, name=None, arguments=rest) if rest else None


def _differs() -> HeadraceError:
    why = "Its format or its tools do not allow to begin in the middle, and computed again it differs."
    return HeadraceError(Code.NOT_CONTINUABLE, why)
