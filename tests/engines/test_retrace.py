from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.delta import Delta, Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import ToolCallDelta, Usage
from headrace.engines.retrace import Retrace

pieces_ = st.lists(st.text("ab", max_size=3), max_size=6)


@given(pieces_, st.integers(0, 20))
def test_what_was_delivered_is_left_out_wherever_the_pieces_end(pieces, cut):
    text = "".join(pieces)
    retrace = Retrace(Prefix(text[:cut], ()))
    new = retrace.through([Delta(piece, 0, (1,)) for piece in pieces])
    retrace.check_over()
    assert "".join(delta.text for delta in new) == text[cut:]
    assert all(delta.text for delta in new)


@given(pieces_, st.integers(0, 20))
def test_a_call_that_was_told_is_not_told_again(pieces, cut):
    arguments = "".join(pieces)
    told = ToolCallDelta(0, "call_1", "clock", arguments[:cut])
    again = [
        ToolCallDelta(0, "call_2", "clock"),
        *(ToolCallDelta(0, None, None, p) for p in pieces),
    ]
    retrace = Retrace(Prefix("", (), 1, (told,)))
    new = retrace.through([Delta("", tool_calls=(piece,)) for piece in again])
    retrace.check_over()
    got = [piece for delta in new for piece in delta.tool_calls]
    assert "".join(piece.arguments for piece in got) == arguments[cut:]
    assert not any(piece.id or piece.name for piece in got)


def test_a_call_after_those_that_were_told_is_told_whole():
    retrace = Retrace(Prefix("", (), 1, (ToolCallDelta(0, "call_1", "clock", "{}"),)))
    second = Delta("", tool_calls=(ToolCallDelta(1, "call_9", "clock", "{}"),))
    first = Delta("", tool_calls=(ToolCallDelta(0, "call_8", "clock", "{}"),))
    assert retrace.through([first, second]) == [second]


def all_of(retrace, delta):
    retrace.through([delta])
    retrace.check_over()


CALL = (ToolCallDelta(0, "call_1", "clock", '{"a"'),)


@pytest.mark.parametrize(
    ("prefix", "delta"),
    [
        (Prefix("abc", ()), Delta("abd")),
        (Prefix("", (), 1, CALL), Delta("", tool_calls=(ToolCallDelta(0, "x", "map"),))),
        (Prefix("", (), 1, CALL), Delta("", tool_calls=(ToolCallDelta(0, None, None, "{}"),))),
        (Prefix("", (), 1, CALL), Delta("", tool_calls=(ToolCallDelta(0, "x", "clock", "{"),))),
        (Prefix("abc", ()), Delta("ab")),
    ],
)
def test_another_answer_cannot_be_gone_on_with(prefix, delta):
    with pytest.raises(HeadraceError) as caught:
        all_of(Retrace(prefix), delta)
    assert caught.value.code is Code.NOT_CONTINUABLE


def test_usage_counts_what_was_delivered_as_prompt():
    retrace = Retrace(Prefix("ab", (), 2))
    assert retrace.usage(Usage(10, 5, 3)) == Usage(12, 3, 3)
