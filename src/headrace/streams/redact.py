"""The built-in hook ``headrace.streams.redact:Redact``: patterns never leave, wherever tokens cut them.

What could still become a match is held back, and nothing else: the shortest such suffix, for each choice
and each kind of its text (answer, reasoning, arguments of a tool call) on its own. How the text was cut
into deltas changes nothing in the whole output, so after a restart replayed deltas hold back the same.

A prompt in mid-stream closes what was said, so what is held back has to leave: a beginning of which more is
there than is missing is replaced as the whole would be. If what comes behind the prompt makes it a match after
all, that is replaced too.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import Error, Finish, ToolCallDelta
from headrace.streams.automaton import State, automata, shortest
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook

NAMED = {
    "card": "[0-9](?:[ \u00a0-]?[0-9]){12,18}",
    "email": r"[A-Za-z0-9._%+-]{1,64}@(?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24}",
    "iban": "[A-Z]{2}[0-9]{2}(?: ?[A-Z0-9]){11,30}",
}
"""Patterns by name: payment card numbers (13 to 19 digits, ISO/IEC 7812, spaces and dashes allowed),
e-mail addresses, international bank account numbers (ISO 13616)."""

LONG_TEXT = 64
"""Characters above which a text is looked through for one character after the other."""
FEW_BEGINNINGS = 16
"""Characters with which a match can begin, up to which that is quicker than one search for all of them."""

Channel = tuple[int, bool | int]
"""A choice's index, and which of its texts: False the answer, True the reasoning, ``2 + i`` the arguments of
its tool call ``i``."""


class _Held(dict[Channel, str]):
    """What is held back. ``told``: how many characters of it left when a turn ended, as they were or replaced."""

    def __init__(self) -> None:
        super().__init__()
        self.told: dict[Channel, int] = {}


class Redact(BaseHook):
    """``patterns``: regular expressions (see :mod:`headrace.streams.automaton`) or names of ``NAMED``.
    ``max_hold``: characters held back at most; a match longer than that is not recognised.

    Log probabilities and token ids of a changed delta are dropped: they would tell what was there.
    Raises ``ValueError`` for a pattern that cannot be used.
    """

    def __init__(
        self,
        patterns: Sequence[str] = ("card",),
        replacement: str = "[redacted]",
        max_hold: int = 256,
    ) -> None:
        if not patterns or isinstance(patterns, str):
            raise ValueError("patterns must be a list of regular expressions or names")
        if max_hold < 1:
            raise ValueError("max_hold must be at least 1")
        self._here, self._anywhere = automata([NAMED.get(each, each) for each in patterns])
        self._in_ascii, self._in_any = self._anywhere.beginnings()
        self._beginnings = [chr(c) for c in range(128) if self._in_ascii.match(chr(c))]
        self._replacement = replacement
        self._max_hold = max_hold
        self._key = f"redact {id(self)}"

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        held: _Held | None = context.state.get(self._key)
        if not held:
            search = self._in_ascii.search
            for delta in deltas:
                text = delta.text
                if delta.tool_calls is not None or not text:
                    break
                if len(text) < LONG_TEXT and text.isascii():
                    if search(text) is not None:
                        break
                elif not self._harmless(text):
                    break
            else:
                return deltas
            held = context.state[self._key] = _Held()
        out: list[Delta] = []
        for delta in deltas:
            changed = self._pass(held, delta)
            if changed is not None:
                out.append(changed)
        return out

    def on_finish(self, context: HookContext, end: Finish | Error) -> Sequence[Delta]:
        held: _Held | None = context.state.pop(self._key, None)
        if not held:
            return ()
        out = []
        for channel, text in sorted(held.items()):
            rest, _ = self._scan(text, final=True)
            rest = _untold(rest, text[: held.told.get(channel, 0)])
            if rest:
                out.append(_delta(channel, rest))
        return out

    def on_turn_end(self, context: HookContext) -> Sequence[Delta]:
        held: _Held | None = context.state.get(self._key)
        out = []
        for channel in sorted(held or ()):
            assert held is not None
            if text := self._last_of_turn(held, channel):
                out.append(_delta(channel, text))
        return out

    def _last_of_turn(self, held: _Held, channel: Channel) -> str:
        """What leaves of a channel now. The beginning of a match stays as well, to be recognised if it is gone
        on with."""
        text = held.pop(channel)
        told = text[: held.told.pop(channel, 0)]
        leaving = ""
        while text and (match_end := self._match(text, 0)[0]):
            behind, text = self._scan(text[match_end:], final=False)
            leaving += self._replacement + behind
            told = ""
        if not text:
            return leaving
        held[channel] = text
        held.told[channel] = len(text)
        if text == told:
            return leaving
        shown, _ = self._scan(text, final=True)
        if shown == text and self._mostly_there(text):
            shown = self._replacement
        return leaving + _untold(shown, told)

    def _harmless(self, text: str) -> bool:
        """Whether no match can begin in a long text, or in one with other characters."""
        if not text.isascii():
            return self._in_any.search(text) is None
        if len(self._beginnings) > FEW_BEGINNINGS:
            return self._in_ascii.search(text) is None
        return not any(map(text.__contains__, self._beginnings))  # each as fast as memory

    def _mostly_there(self, text: str) -> bool:
        """Whether this beginning of a match has at least as many characters as are missing."""
        state: State | None = self._here.start
        for char in text:
            if state is None:
                return False
            state = self._here.step(state, char)
        return state is not None and len(text) >= shortest(state)

    def _pass(self, held: _Held, delta: Delta) -> Delta | None:
        """What leaves of this delta; None for nothing."""
        text = self._take(held, (delta.index, delta.reasoning), delta.text) if delta.text else ""
        calls = delta.tool_calls
        if calls is not None:
            calls = tuple(self._pass_call(held, delta.index, call) for call in calls)
        if text == delta.text and calls == delta.tool_calls and (text or delta.logprobs is None):
            return delta
        if not text and not calls:
            return None
        return Delta(text, delta.index, reasoning=delta.reasoning, tool_calls=calls)

    def _pass_call(self, held: _Held, index: int, call: ToolCallDelta) -> ToolCallDelta:
        if not call.arguments:
            return call
        arguments = self._take(held, (index, 2 + call.index), call.arguments)
        return msgspec.structs.replace(call, arguments=arguments)

    def _take(self, held: _Held, channel: Channel, text: str) -> str:
        """Add to a channel; returns what of it may leave."""
        before = held.pop(channel, None)
        leaving, rest = self._scan(text if before is None else before + text, final=False)
        if rest:
            held[channel] = rest
        if before is not None and held.told:
            return self._leaving(held, channel, before, leaving)
        return leaving

    @staticmethod
    def _leaving(held: _Held, channel: Channel, before: str, leaving: str) -> str:
        """What leaves less what was told at the end of a turn."""
        told = held.told.pop(channel, 0)
        new = _untold(leaving, before[:told])
        # As long as nothing new has left, the rest may begin with what was told.
        if told and not new and channel in held:
            held.told[channel] = told - len(leaving)
        return new

    def _scan(self, text: str, *, final: bool) -> tuple[str, str]:
        """The text with its matches replaced, and the suffix that could still become one."""
        at = self._quiet_until(text)
        parts: list[str] = []
        copied = 0
        while at < len(text):
            match_end, is_open = self._match(text, at)
            if is_open and not final:
                break
            if match_end:
                parts += (text[copied:at], self._replacement)
                copied = at = match_end
            else:
                at += 1
        if not parts:
            return text[:at], text[at:]
        return "".join([*parts, text[copied:at]]), text[at:]

    def _quiet_until(self, text: str) -> int:
        """A place before which no match begins: what can begin none is skipped by one search, and behind
        that each character is looked at once, not each pair."""
        step, start = self._anywhere.step, self._anywhere.start
        search = (self._in_ascii if text.isascii() else self._in_any).search
        at, end = 0, len(text)
        while at < end:
            beginning = search(text, at)
            if beginning is None:
                return end
            quiet = at = beginning.start()
            state: State | None = start
            while state is not None:
                if at == end:
                    return quiet
                char = text[at]
                state = state.known[char] if char in state.known else step(state, char)
                if state is not None and state.accepts:
                    return quiet
                at += 1
        return end

    def _match(self, text: str, start: int) -> tuple[int, bool]:
        """Where the longest match from ``start`` ends (0: there is none), and whether more text could change that."""
        step = self._here.step
        state = step(self._here.start, text[start])
        at = start + 1
        stop = min(len(text), start + self._max_hold)
        match_end = 0
        while state is not None:
            if state.accepts:
                match_end = at
            if at == stop:
                return match_end, state.open and at < start + self._max_hold
            state = step(state, text[at])
            at += 1
        return match_end, False


def _untold(text: str, told: str) -> str:
    """A text without the beginning that was told; where a match was replaced since, from there on."""
    at = 0
    while at < min(len(text), len(told)) and text[at] == told[at]:
        at += 1
    return text[at:]


def _delta(channel: Channel, text: str) -> Delta:
    index, kind = channel
    if kind is True or kind is False:
        return Delta(text, index, reasoning=kind)
    call = ToolCallDelta(kind - 2, arguments=text)
    return Delta("", index, tool_calls=(call,))
