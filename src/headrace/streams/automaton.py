"""Patterns as an automaton that is fed character by character and knows whether a match is still possible.

Regular expressions in Python's syntax, without what looks around (``\\b``, ``^``, look-ahead, back
references): that would depend on text which is not there yet. Of all matches at a place the longest
counts (as POSIX has it), so the result never depends on where the text was cut.

Parsed by Python's own parser, built as a Thompson automaton, determinised while running:
Russ Cox, https://swtch.com/~rsc/regexp/regexp1.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from re import _constants as code  # type: ignore[attr-defined]
from re import _parser as parser  # type: ignore[attr-defined]
from typing import Any

CharTest = Callable[[str], bool]

MAX_NODES = 20_000
"""Nodes of one automaton. Repeats are written out, so ``x{1000}`` costs a thousand."""
MAX_STATES = 2_000
"""Determinised states that are remembered; with more, remembering starts anew."""
MAX_CHARACTERS = 4_000
"""Different characters that one state remembers; likewise."""

_CATEGORIES: dict[Any, CharTest] = {
    code.CATEGORY_DIGIT: str.isdecimal,
    code.CATEGORY_NOT_DIGIT: lambda char: not char.isdecimal(),
    code.CATEGORY_SPACE: str.isspace,
    code.CATEGORY_NOT_SPACE: lambda char: not char.isspace(),
    code.CATEGORY_WORD: lambda char: char.isalnum() or char == "_",
    code.CATEGORY_NOT_WORD: lambda char: not (char.isalnum() or char == "_"),
}


class _Node:
    """Reads a character that passes ``test`` and goes on at ``after``; without a test it goes on at
    once. With neither it accepts."""

    __slots__ = ("after", "test")

    def __init__(self, test: CharTest | None, *after: _Node) -> None:
        self.test = test
        self.after = after


class State:
    """Where the automaton stands. ``accepts``: what was read is a match. ``open``: more could follow."""

    __slots__ = ("accepts", "known", "nodes", "open")

    def __init__(self, reading: frozenset[_Node], accepts: bool) -> None:
        self.nodes = reading
        self.accepts = accepts
        self.open = bool(reading)
        self.known: dict[str, State | None] = {}


class Automaton:
    """A match that begins at the first character fed, or with ``anywhere`` at any of them."""

    def __init__(self, start_nodes: Sequence[_Node], *, anywhere: bool = False) -> None:
        self._states: dict[tuple[frozenset[_Node], bool], State] = {}
        self._again = tuple(start_nodes) if anywhere else ()
        self.start = self._state(start_nodes)

    def beginnings(self) -> tuple[re.Pattern[str], re.Pattern[str]]:
        """Find the next character that may begin a match: of ASCII text, and of any text (where all that
        is not ASCII may)."""
        tests = [node.test for node in self.start.nodes if node.test is not None]
        may = "".join(
            re.escape(chr(at)) for at in range(128) if any(test(chr(at)) for test in tests)
        )
        return re.compile(f"[{may}]" if may else "(?!)"), re.compile(f"[{may}\x80-\U0010ffff]")

    def step(self, state: State, char: str) -> State | None:
        """Where one more character leads; None if no match has it (then begin at ``start`` again)."""
        try:
            return state.known[char]
        except KeyError:
            return self._learn(state, char)

    def _learn(self, state: State, char: str) -> State | None:
        after = [
            follower
            for node in state.nodes
            if node.test is not None and node.test(char)
            for follower in node.after
        ]
        if len(self._states) >= MAX_STATES:
            self._forget()
        if len(state.known) >= MAX_CHARACTERS:
            state.known.clear()
        found = state.known[char] = self._state([*after, *self._again]) if after else None
        return found

    def _state(self, nodes: Sequence[_Node]) -> State:
        reached: set[_Node] = set()
        waiting = list(nodes)
        while waiting:
            node = waiting.pop()
            if node not in reached:
                reached.add(node)
                if node.test is None:
                    waiting += node.after
        accepts = any(node.test is None and not node.after for node in reached)
        reading = frozenset(node for node in reached if node.test is not None)
        return self._states.setdefault((reading, accepts), State(reading, accepts))

    def _forget(self) -> None:
        for state in self._states.values():
            state.known.clear()
        self._states.clear()


def automata(patterns: Sequence[str]) -> tuple[Automaton, Automaton]:
    """For matches of any of these patterns: from one place on, and anywhere. Raises ``ValueError`` naming the
    pattern that is impossible."""
    nodes = [_Builder(pattern).start for pattern in patterns]
    from_here = Automaton(nodes)
    if from_here.start.accepts:
        raise ValueError("a pattern matches the empty text")
    return from_here, Automaton(nodes, anywhere=True)


def shortest(state: State) -> int:
    """How many characters are missing to the shortest match."""
    if state.accepts:
        return 0
    missing, nodes = 0, set(state.nodes)
    seen: set[_Node] = set()
    while nodes:
        missing += 1
        waiting = [follower for node in nodes for follower in node.after]
        nodes = set()
        while waiting:
            node = waiting.pop()
            if node in seen:
                continue
            seen.add(node)
            if node.test is not None:
                nodes.add(node)
            elif node.after:
                waiting += node.after
            else:
                return missing
    return missing  # unreachable: every node leads to a match


class _Builder:
    """One pattern's nodes, built from its end to its ``start``."""

    def __init__(self, pattern: str) -> None:
        self._pattern = pattern
        self._nodes = 0
        try:
            parsed = parser.parse(pattern)
        except re.error as error:
            raise ValueError(f"pattern {pattern!r}: {error}") from error
        self._ignore_case = bool(parsed.state.flags & re.IGNORECASE)
        self.start = self._sequence(parsed, _Node(None))

    def _node(self, test: CharTest | None, *after: _Node) -> _Node:
        self._nodes += 1
        if self._nodes > MAX_NODES:
            raise ValueError(f"pattern {self._pattern!r} is too large")
        return _Node(test, *after)

    def _sequence(self, items: Any, after: _Node) -> _Node:
        for operation, argument in reversed(list(items)):
            after = self._item(operation, argument, after)
        return after

    def _item(self, operation: Any, argument: Any, after: _Node) -> _Node:
        if operation is code.SUBPATTERN:
            return self._sequence(argument[-1], after)
        if operation is code.BRANCH:
            return self._node(None, *(self._sequence(each, after) for each in argument[1]))
        if operation in (code.MAX_REPEAT, code.MIN_REPEAT):
            least, most, repeated = argument
            return self._repeat(least, most, repeated, after)
        test = self._char_test(operation, argument)
        if self._ignore_case:
            return self._node(lambda char: test(char) or test(char.swapcase()), after)
        return self._node(test, after)

    def _repeat(self, least: int, most: Any, items: Any, after: _Node) -> _Node:
        if most is code.MAXREPEAT:
            entry = self._node(None)
            entry.after = (self._sequence(items, entry), after)
        else:
            entry = after
            for _ in range(most - least):
                entry = self._node(None, self._sequence(items, entry), after)
        for _ in range(least):
            entry = self._sequence(items, entry)
        return entry

    def _char_test(self, operation: Any, argument: Any) -> CharTest:
        if operation is code.LITERAL:
            wanted = chr(argument)
            return lambda char: char == wanted
        if operation is code.NOT_LITERAL:
            unwanted = chr(argument)
            return lambda char: char != unwanted
        if operation is code.ANY:
            return lambda char: char != "\n"
        if operation is code.CATEGORY:
            return _CATEGORIES[argument]
        if operation is code.RANGE:
            low, high = chr(argument[0]), chr(argument[1])
            return lambda char: low <= char <= high
        if operation is code.IN:
            return self._char_set(argument)
        raise ValueError(f"pattern {self._pattern!r}: {operation} depends on the text around it")

    def _char_set(self, items: Any) -> CharTest:
        negated = items[0][0] is code.NEGATE
        tests = [self._char_test(*item) for item in items[negated:]]
        return lambda char: any(test(char) for test in tests) != negated
