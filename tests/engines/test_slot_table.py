from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.slot_table import SlotTable, shared


def test_a_prompt_goes_where_it_shares_the_longest_beginning():
    table = SlotTable(3)
    given_slots = []
    texts = ("aaa", "bbb", (1, 2, 3))
    tickets = [table.ask(text, given_slots.append) for text in texts]
    for ticket, text in zip(tickets, texts, strict=True):
        table.holds(ticket.slot, text)
        ticket.give_back()
    for wanted in ((1, 2, 9), "bb", "z"):
        table.ask(wanted, given_slots.append)
    assert given_slots == [0, 1, 2, 2, 1, 0]
    assert [table.shares(slot, (1, 2, 9)) for slot in (0, 1, 2)] == [0, 0, 2]


def test_among_equals_the_one_free_for_longest_is_taken():
    table = SlotTable(2)
    slots = []
    first, second = table.ask("x", slots.append), table.ask("y", slots.append)
    second.give_back()
    first.give_back()
    table.ask("other", slots.append)
    assert slots == [0, 1, 1]


def test_who_finds_no_slot_waits_in_order_and_may_leave():
    table = SlotTable(1)
    order = []
    holder = table.ask("", lambda slot: order.append("holder"))
    waiting = [table.ask("", lambda slot, at=at: order.append(at)) for at in range(3)]
    waiting[0].give_back()
    holder.give_back()
    holder.give_back()
    assert order == ["holder", 1]
    waiting[1].give_back()
    waiting[2].give_back()
    assert order == ["holder", 1, 2]
    assert table.free == 1


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9), st.text("ab", max_size=4))))
def test_a_slot_has_one_holder_and_none_is_lost(steps):
    table = SlotTable(3)
    tickets = []
    for asks, which, text in steps:
        if asks or not tickets:
            tickets.append(table.ask(text, lambda slot: None))
        else:
            tickets.pop(which % len(tickets)).give_back()
        held = [ticket.slot for ticket in tickets if ticket.slot >= 0]
        assert len(held) == len(set(held))
        assert len(held) + table.free == 3
        assert table.free == 0 or len(held) == len(tickets)


@given(st.text("ab"), st.text("ab"))
def test_shared_is_the_length_of_the_common_beginning(one, other):
    length = shared(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or one == other
