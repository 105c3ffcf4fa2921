from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.slot_table import ANY, SlotTable, shared


def test_a_prompt_goes_where_it_shares_the_longest_beginning():
    table = SlotTable(3)
    given_slots = []
    texts = ("aaa", "bbb", (1, 2, 3))
    tickets = [table.ask(text, lambda ticket: given_slots.append(ticket.slot)) for text in texts]
    for ticket, text in zip(tickets, texts, strict=True):
        table.holds(ticket.slot, text)
        ticket.give_back()
    for wanted in ((1, 2, 9), "bb", "z"):
        table.ask(wanted, lambda ticket: given_slots.append(ticket.slot))
    assert given_slots == [0, 1, 2, 2, 1, 0]
    assert [table.shares(slot, (1, 2, 9)) for slot in (0, 1, 2)] == [0, 0, 2]


def test_among_equals_the_one_free_for_longest_is_taken():
    table = SlotTable(2)
    slots = []
    first, second = (table.ask(text, lambda ticket: slots.append(ticket.slot)) for text in "xy")
    second.give_back()
    first.give_back()
    table.ask("other", lambda ticket: slots.append(ticket.slot))
    assert slots == [0, 1, 1]


def test_who_finds_no_slot_waits_in_order_and_may_leave():
    table = SlotTable(1)
    order = []
    holder = table.ask("", lambda ticket: order.append("holder"))
    waiting = [table.ask("", lambda ticket, at=at: order.append(at)) for at in range(3)]
    waiting[0].give_back()
    holder.give_back()
    holder.give_back()
    assert order == ["holder", 1]
    waiting[1].give_back()
    waiting[2].give_back()
    assert order == ["holder", 1, 2]
    assert table.free == 1


def asked(table, started, name, early=True):
    return table.ask("", lambda ticket: started.append((name, ticket.slot)), early)


def test_early_ones_are_sent_once_who_has_a_slot_is_settled_and_the_next_need_none_to_be_known():
    table, started = SlotTable(2, early=1), []
    first, second, third, fourth = (asked(table, started, name) for name in "abcd")
    assert started == [("a", 0), ("b", 1)]
    first.settle()
    assert len(started) == 2  # the second may come back to its slot, and must find it free
    second.settle()
    second.settle()
    assert started[2:] == [("c", ANY)]
    first.give_back()  # the process gives its slot to the third, so that there is room in its line
    assert started[3:] == [("d", ANY)]
    second.give_back()
    fifth = asked(table, started, "e")
    third.give_back()
    assert table.free == 0  # the fourth and the fifth have them, whichever
    assert started[4:] == [("e", ANY)]
    fourth.give_back()
    asked(table, started, "f").give_back()
    assert started[5:] == [("f", ANY)]  # one is free, and it is not known which
    fifth.give_back()
    asked(table, started, "g")
    assert started[6:] == [("g", 0)]


def test_who_needs_a_slot_of_its_own_waits_for_those_sent_without_and_nobody_passes_it():
    table, started = SlotTable(2, early=1), []
    first, second = (asked(table, started, name) for name in "ab")
    for ticket in (first, second):
        ticket.settle()
    third = asked(table, started, "c")
    asked(table, started, "own", early=False)
    asked(table, started, "d")
    first.give_back()
    second.give_back()
    assert len(started) == 3
    third.give_back()
    assert started[3:] == [("own", 0), ("d", 1)]


def test_who_leaves_the_line_of_the_process_keeps_its_place_until_a_slot_comes_to_it():
    table, started = SlotTable(1, early=1), []
    holder = asked(table, started, "a")
    holder.settle()
    asked(table, started, "b").give_back()
    following = asked(table, started, "c")
    assert [name for name, _ in started] == ["a", "b"]
    holder.give_back()
    assert started[2:] == [("c", 0)]
    following.give_back()
    assert table.free == 1


Steps = st.lists(
    st.tuples(st.sampled_from(("ask", "settle", "leave")), st.integers(0, 9), st.booleans())
)


@given(Steps)
def test_a_slot_has_one_holder_none_is_lost_and_early_and_unsettled_exclude_each_other(steps):
    table = SlotTable(3, early=2)
    tickets, started = [], []
    for what, which, early in steps:
        if what == "ask" or not tickets:
            tickets.append(table.ask("", started.append, early))
        elif what == "settle":
            ticket = tickets[which % len(tickets)]
            if ticket in started:
                ticket.settle()
        else:
            tickets.pop(which % len(tickets)).give_back()
        placed = [ticket for ticket in tickets if ticket.placed]
        sent = [ticket for ticket in tickets if ticket in started]
        known = [ticket.slot for ticket in placed if ticket.slot >= 0]
        assert len(known) == len(set(known))
        assert len(placed) + table.free == 3
        assert len(sent) <= 3 + 2
        nowhere = [ticket for ticket in sent if ticket.slot == ANY]
        assert not (nowhere and any(ticket.unsettled for ticket in tickets))
        assert not [one for one in nowhere if not one.early]
    for ticket in tickets:
        ticket.give_back()
    assert table.free == 3
    assert table.ask("", started.append).slot >= 0


@given(st.text("ab"), st.text("ab"))
def test_shared_is_the_length_of_the_common_beginning(one, other):
    length = shared(one, other)
    assert one[:length] == other[:length]
    assert one[length : length + 1] != other[length : length + 1] or one == other
