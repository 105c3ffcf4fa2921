"""``Redact``: nothing that matches leaves, however it is cut."""

from __future__ import annotations

import re
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.delta import Delta
from headrace.domain.event import Finish, TokenLogprob, ToolCallDelta, Usage
from headrace.domain.request import Caller, Request
from headrace.streams.hook import HookContext
from headrace.streams.redact import Redact

END = Finish(0, 0.0, ("stop",), Usage())


def context() -> HookContext:
    return HookContext("gen_a", Request("m", "chat"), Caller())


def pass_through(hook: Redact, parts: list[str]) -> list[str]:
    """What leaves after each part, and at the end."""
    where = context()
    out = ["".join(d.text for d in hook.on_token(where, [Delta(part)])) for part in parts]
    return [*out, "".join(delta.text for delta in hook.on_finish(where, END))]


def test_a_card_number_split_over_five_tokens_never_leaves() -> None:
    parts = ["Pay with 41", "11 11", "11-1111", " 11", "11, please. 12", " apples"]
    out = pass_through(Redact(["card"]), parts)
    assert out == ["Pay with ", "", "", "", "[redacted], please. ", "12 apples", ""]


def test_only_the_shortest_suffix_that_could_become_a_match_is_held() -> None:
    hook = Redact([r"secret-\d+;"])
    assert pass_through(hook, ["a sec", "ond se", "secret-1", "2;", "secret"]) == [
        "a ", "second ", "se", "[redacted]", "", "secret",
    ]  # fmt: skip


def test_without_a_possible_match_a_delta_passes_untouched() -> None:
    where, hook = context(), Redact(["card"])
    delta = Delta(" word", 0, (5,), logprobs=(TokenLogprob(" word", -0.1),))
    [same] = hook.on_token(where, [delta])
    assert same is delta


def test_a_changed_delta_loses_what_would_tell_its_text() -> None:
    where, hook = context(), Redact(["card"])
    logprobs = (TokenLogprob("4111", -0.1),)
    assert not hook.on_token(where, [Delta("4111", 0, (7,), logprobs=logprobs)])
    assert not hook.on_token(where, [Delta("", 0, (8,), logprobs=logprobs)])
    [left] = hook.on_token(where, [Delta(" x", 0, (9,), logprobs=logprobs)])
    assert left == Delta("4111 x")


def test_choices_reasoning_and_tool_arguments_are_held_apart() -> None:
    where, hook = context(), Redact(["card"])

    def call(arguments: str) -> tuple[ToolCallDelta, ...]:
        return (ToolCallDelta(1, "id" if arguments[0] == "{" else None, "pay", arguments),)

    halves = ["41111111", "11111111"]
    out: list[Delta] = []
    for half in halves:
        out += hook.on_token(where, [Delta(half, 0), Delta(half, 1, reasoning=True)])
        out += hook.on_token(where, [Delta("", 0, tool_calls=call('{"card": ' + half))])
    assert [delta.text for delta in out] == ["", ""]
    assert [delta.tool_calls[0].arguments for delta in out if delta.tool_calls] == [
        '{"card": ', '41111111{"card": ',
    ]  # fmt: skip
    rest = list(hook.on_finish(where, END))
    assert rest == [
        Delta("[redacted]", 0),
        Delta("", 0, tool_calls=(ToolCallDelta(1, arguments="11111111"),)),
        Delta("[redacted]", 1, reasoning=True),
    ]
    assert where.state == {}


def test_a_match_longer_than_the_hold_is_cut_there_and_holding_is_bounded() -> None:
    hook = Redact([r"a+!"], max_hold=10)
    out = pass_through(hook, ["a" * 25, "!", "aaa", "!"])
    assert out == ["a" * 16, "[redacted]", "", "[redacted]", ""]


SHAPES = ["card", "email", "iban", r"(?i)top(?: |-)secret", r"a(bcd)?", r"ab|abab|babc", r"x{2,5}y"]


@given(
    pieces=st.lists(
        st.one_of(
            st.sampled_from(
                ["4111 1111", "1111-1111", " 12", "bob", "@", "example.", "com", "TOP ", "sEcret",
                 "GB82 WEST", "1234 5698 7654 32", "abc", "d", "xxx", "xy", ".", " "]
            ),
            st.text(alphabet="ab xy1@.é\u00a0", max_size=6),
        ),
        max_size=12,
    ),
    cuts=st.lists(st.integers(0, 200), max_size=12),
    patterns=st.lists(st.sampled_from(SHAPES), min_size=1, max_size=4, unique=True),
    max_hold=st.sampled_from([1, 3, 8, 40, 256]),
)  # fmt: skip
def test_however_the_text_is_cut_the_same_comes_out(
    pieces: list[str], cuts: list[int], patterns: list[str], max_hold: int
) -> None:
    text = "".join(pieces)
    places = sorted({0, len(text), *(cut for cut in cuts if cut < len(text))})
    parts = [text[a:b] for a, b in pairwise(places)]
    hook = Redact(patterns, max_hold=max_hold)
    whole = "".join(pass_through(hook, [text]))
    assert "".join(pass_through(hook, parts)) == whole
    assert "".join(pass_through(hook, list(text))) == whole


@given(st.lists(st.sampled_from(["1", "22", " ", "-", "x", "4111", "1234567890"]), max_size=20))
def test_what_leaves_holds_no_card_number(parts: list[str]) -> None:
    out = "".join(pass_through(Redact(["card"], "#"), parts))
    assert not re.search(r"[0-9](?:[ -]?[0-9]){12}", out)
    assert re.sub(r"[0-9](?:[ -]?[0-9]){12,18}", "#", "".join(parts)) == out


@given(st.text(alphabet="abc@. ", max_size=30), st.text(alphabet="abc@. ", max_size=30))
def test_replayed_text_holds_the_same_back(before: str, after: str) -> None:
    hook, again = Redact(["email"]), Redact(["email"])
    lived, replayed = context(), context()
    hook.on_token(lived, [Delta(before)])
    for char in before:
        again.on_token(replayed, [Delta(char)])
    ends = [
        [*one.on_token(where, [Delta(after)]), *one.on_finish(where, END)]
        for one, where in ((hook, lived), (again, replayed))
    ]
    assert ends[0] == ends[1]


@pytest.mark.parametrize(
    "patterns",
    [[r"\bcard\b"], ["^a"], ["a(?=b)"], [r"(a)\1"], ["("], ["a*"], ["(a{999}){999}"], [], "card"],
)
def test_a_pattern_that_depends_on_what_is_not_there_yet_is_refused(patterns: list[str]) -> None:
    with pytest.raises(ValueError, match="pattern"):
        Redact(patterns)


def over_turns(hook: Redact, turns: list[list[str]]) -> list[str]:
    """What leaves of each turn; a prompt comes in between."""
    where = context()
    left = []
    for at, parts in enumerate(turns):
        out = [d.text for part in parts for d in hook.on_token(where, [Delta(part)])]
        last = at == len(turns) - 1
        out += [d.text for d in (hook.on_finish(where, END) if last else hook.on_turn_end(where))]
        left.append("".join(out))
    return left


@pytest.mark.parametrize(
    ("turns", "left"),
    [
        ([["Pay 4111 1111 "], ["1111 1111 now"]], ["Pay [redacted]", "[redacted] now"]),
        ([["Pay 4111"], ["1111 1111 1111 now"]], ["Pay 4111", "[redacted] now"]),
        ([["Pay 4111 1"], [], ["111 1111", " 1111."]], ["Pay 4111 1", "", "[redacted]."]),
        ([["41"], ["11 1111"], ["1111 1111"]], ["41", "[redacted]", "[redacted]"]),
        ([["4111 1111"], [" apples"]], ["[redacted]", " apples"]),
        ([["in 20"], ["24 it was"]], ["in 20", "24 it was"]),
        ([["in 20"], ["24"]], ["in 20", "24"]),
        ([["4111 1111 1111 1111"], ["!"]], ["[redacted]", "!"]),
        ([["1" * 25], ["1" * 7]], ["[redacted]111111", "[redacted]"]),
    ],
)
def test_no_half_of_a_card_leaves_at_the_end_of_a_turn(
    turns: list[list[str]], left: list[str]
) -> None:
    assert over_turns(Redact(["card"]), turns) == left


def test_a_word_that_could_begin_an_address_leaves_at_the_end_of_a_turn() -> None:
    hook = Redact(["email"])
    assert over_turns(hook, [["I am"], [" Ann, ann@mill.org"]]) == ["I am", " Ann, [redacted]"]
    assert over_turns(hook, [["ann"], ["@mill.org"]]) == ["ann", "[redacted]"]
    assert over_turns(hook, [["ann@mill"], [".org"]]) == ["[redacted]", "[redacted]"]


@given(
    st.lists(
        st.lists(st.sampled_from(["4", "11", "11 1", " ", "a", "1111"]), max_size=6), max_size=5
    )
)
def test_of_a_card_said_over_turns_never_half_is_left(turns: list[list[str]]) -> None:
    whole = "".join(part for parts in turns for part in parts)
    left = over_turns(Redact(["card"]), turns)
    assert not re.search(r"[0-9](?:[ -]?[0-9]){12}", "".join(left))
    if not re.search(r"[0-9](?:[ -]?[0-9]){4,}", whole):
        assert "".join(left) == whole
