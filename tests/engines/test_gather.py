from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.delta import Delta
from headrace.domain.event import TokenLogprob, ToolCallDelta
from headrace.engines.gather import Gather

TEXTS = st.text("ab", max_size=3)
CALLS = st.builds(
    ToolCallDelta,
    st.integers(0, 1),
    st.sampled_from((None, "call")),
    st.sampled_from((None, "f")),
    TEXTS,
)
DELTAS = st.builds(
    Delta,
    TEXTS,
    st.integers(0, 1),
    st.lists(st.integers(0, 9), max_size=2).map(tuple),
    st.booleans(),
    st.sampled_from((None, (TokenLogprob("a", -1.0, (97,)),))),
    st.none() | st.lists(CALLS, min_size=1, max_size=2).map(tuple),
)


def whole(deltas):
    gather = Gather()
    for delta in deltas:
        gather.take([delta])
    return gather.whole()


def told(deltas, index, reasoning):
    """What a reader of one choice makes of them."""
    mine = [one for one in deltas if one.index == index and one.reasoning == reasoning]
    calls = []
    for call in (call for one in mine for call in one.tool_calls or ()):
        if calls and calls[-1][0] == call.index and call.id is call.name is None:
            calls[-1][3] += call.arguments
        else:
            calls.append([call.index, call.id, call.name, call.arguments])
    return (
        "".join(one.text for one in mine),
        [token for one in mine for token in one.token_ids],
        [probable for one in mine for probable in one.logprobs or ()],
        calls,
    )


def test_pieces_of_a_text_become_one_delta():
    pieces = [Delta("wa", 0, (1,)), Delta("t", 0, (2, 3)), Delta("er", 0)]
    assert whole(pieces) == [Delta("water", 0, (1, 2, 3))]
    assert whole([]) == []


def test_choices_that_come_in_turns_become_one_delta_each():
    pieces = [Delta("a", 0), Delta("c", 1), Delta("b", 0), Delta("d", 1)]
    assert whole(pieces) == [Delta("ab", 0), Delta("cd", 1)]


def test_pieces_of_a_tool_call_become_one_and_the_next_call_begins_anew():
    begun = ToolCallDelta(0, "id", "mill", "")
    pieces = [begun, ToolCallDelta(0, None, None, '{"a"'), ToolCallDelta(0, None, None, ":1}")]
    second = ToolCallDelta(1, "other", "mill", "")
    deltas = [Delta("", 0, (), False, None, (call,)) for call in (*pieces, second)]
    assert [delta.tool_calls for delta in whole(deltas)] == [
        (ToolCallDelta(0, "id", "mill", '{"a":1}'),),
        (second,),
    ]


@given(st.lists(DELTAS))
def test_nothing_is_lost_and_no_neighbours_could_be_one(deltas):
    found = whole(deltas)
    for index in (0, 1):
        for reasoning in (False, True):
            assert told(found, index, reasoning) == told(deltas, index, reasoning)
    assert whole(found) == found
