"""In which order those who wait would run: the shares of accounts played forward, for positions and estimates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from heapq import heappop, heappush
from itertools import chain

from headrace.scheduling.accounts import Level
from headrace.scheduling.ledger import Ledger
from headrace.scheduling.policy import Ticket, tokens

Turn = tuple[float, float, Iterator[Ticket]]
"""An account's counter and weight, and its tickets in order."""


def interleaved(accounts: Iterable[Turn], output_cost: float) -> Iterator[Ticket]:
    """The tickets of accounts that share; ``accounts`` come with the least counter first and are looked at no
    sooner than needed. A ticket is charged what it is expected to cost."""
    fresh = iter(accounts)
    ahead = next(fresh, None)
    begun: list[tuple[float, int, float, Iterator[Ticket]]] = []
    number = 0
    while begun or ahead is not None:
        if ahead is not None and (not begun or ahead[0] < begun[0][0]):
            counter, weight, tickets = ahead
            ahead = next(fresh, None)
        else:
            counter, _, weight, tickets = heappop(begun)
        ticket = next(tickets, None)
        if ticket is not None:
            number += 1
            cost = tokens(ticket.prompt_tokens) + output_cost * tokens(ticket.output_tokens)
            heappush(begun, (counter + cost / weight, number, weight, tickets))
            yield ticket


def in_turn(ledger: Ledger, output_cost: float) -> Iterator[Ticket]:
    """All waiting tickets, as fair shares would have them run."""

    def of(level: Level) -> Iterator[Ticket]:
        tenants = (
            (tenant.counter, tenant.weight, tenant.in_order())
            for tenant in level.tenants.in_order()
        )
        return interleaved(tenants, output_cost)

    levels = ((level.counter, level.weight, of(level)) for level in ledger.levels.in_order())
    return chain(interleaved(levels, output_cost), of(ledger.last))
