"""Budgets of a day: from midnight to midnight, UTC, with what reached them before the process died.

A reservation counts for the day it was made on, whenever it is settled. Of two days what was used is known, so
that a clock that is set back over midnight and forth again gives nobody a second budget.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from math import inf
from operator import attrgetter

import msgspec

from headrace.admission.usage_journal import UsageJournal
from headrace.domain.errors import HeadraceError

DAY_S = 86_400.0
DAYS_KNOWN = 2
_account = attrgetter("account")
_logger = logging.getLogger("headrace.admission")


class DayBudget:
    """``account``: whose it is, as the journal says it. ``capacity``: 0 until a limit asks for it. ``day``: the one
    that counts now, in days since 1970. ``spent``: what was taken on each day that is known. Times are Unix seconds."""

    __slots__ = ("account", "capacity", "day", "name", "spent", "whose")

    def __init__(self, account: str) -> None:
        self.account = account
        self.name = self.whose = ""
        self.capacity = 0.0
        self.day = 0
        self.spent: dict[int, int] = {}

    def left(self, now: float, wall: float) -> float:
        """What can be taken today; below 0 if more was used."""
        if 0.0 <= wall < inf:
            self.day = int(wall // DAY_S)
        return self.capacity - self.spent.get(self.day, 0)

    def wait_s(self, amount: float, now: float, wall: float) -> float:
        """Seconds until so much, not more than the capacity, can be taken; 0 for now."""
        if self.left(now, wall) >= amount:
            return 0.0
        return DAY_S - wall % DAY_S if 0.0 <= wall < inf else DAY_S

    def add(self, day: int, amount: int) -> None:
        """So much was taken on that day, or (below 0) came back."""
        spent = self.spent
        spent[day] = spent.get(day, 0) + amount
        if len(spent) > DAYS_KNOWN:
            del spent[min(spent)]


class Open(msgspec.Struct, frozen=True, gc=False):
    """A reservation that is not settled. ``day``: days since 1970."""

    day: int
    prompt: int
    output: int
    budgets: tuple[DayBudget, ...]


class DayBudgets:
    """All budgets by account, and all reservations on them. ``journal``: None keeps nothing.

    Bounded by the accounts that used something on the days that are known, and by what runs.
    """

    def __init__(self, journal: UsageJournal | None = None) -> None:
        self._journal = journal
        self._budgets: dict[str, DayBudget] = {}
        self._troubled = False
        self._day = 0
        self.open: dict[str, Open] = {}

    def load(self, wall: float) -> None:
        """Take over what the journal says, and write it anew. Raises ``STORE_FAILED``."""
        journal = self._journal
        self._day = int(wall // DAY_S)
        if journal is None:
            return
        for kind, *values in journal.read():
            match kind, values:
                case "t", [int(day), str(account), int(tokens)]:
                    self.budget(account).add(day, tokens)
                case "r", [str(id), int(day), int(prompt), int(output), *accounts]:
                    budgets = tuple(self.budget(str(account)) for account in accounts)
                    self._reserved(id, Open(day, prompt, output, budgets))
                case "s", [str(id), int(tokens)]:
                    self._settled(id, tokens)
                case _:
                    pass  # a line that was cut short
        journal.begin(self._lines())

    def budget(self, account: str) -> DayBudget:
        """The one budget of an account, made when first asked for."""
        found = self._budgets.get(account)
        if found is None:
            found = self._budgets[account] = DayBudget(account)
        return found

    def reserve(self, id: str, budgets: tuple[DayBudget, ...], prompt: int, output: int) -> None:
        """Take from all of them, of the day that they have now. What follows under the same ``id`` is taken from
        the same budgets, of the same day. Raises ``STORE_FAILED``; nothing is taken then."""
        self._day = day = budgets[0].day
        new = Open(day, prompt, output, budgets)
        if self._journal is not None:
            self._write("r", id, day, prompt, output, *map(_account, budgets))
        self._reserved(id, new)

    def settle(self, id: str, tokens: int) -> None:
        """So many tokens it really was. Without effect for one that is not open."""
        if id not in self.open:
            return
        self._settled(id, tokens)
        if self._journal is None:
            return
        try:
            self._write("s", id, tokens)
            self._troubled = False
        except HeadraceError as error:
            if not self._troubled:  # the next start settles it by what its log says
                _logger.error("%s What was used is counted here, and not kept.", error.message)
            self._troubled = True

    def _write(self, *line: object) -> None:
        """Raises ``STORE_FAILED``."""
        journal = self._journal
        assert journal is not None
        if not journal.append(*line):
            journal.begin(self._lines())
            journal.append(*line)

    def __len__(self) -> int:
        return len(self._budgets)

    def sweep(self) -> None:
        """Forget accounts that have used nothing today and yesterday. Whoever has asked for their budgets must ask
        again."""
        oldest = self._day - 1
        self._budgets = {
            account: budget
            for account, budget in self._budgets.items()
            if any(tokens and day >= oldest for day, tokens in budget.spent.items())
        }

    def close(self) -> None:
        if self._journal is not None:
            self._journal.close()

    def _reserved(self, id: str, new: Open) -> None:
        known = self.open.get(id)
        first = new if known is None else known
        for budget in first.budgets:
            budget.add(first.day, new.prompt + new.output)
        if known is not None:
            prompt, output = known.prompt + new.prompt, known.output + new.output
            new = Open(known.day, prompt, output, known.budgets)
        self.open[id] = new

    def _settled(self, id: str, tokens: int) -> None:
        known = self.open.pop(id, None)
        if known is not None:
            for budget in known.budgets:
                budget.add(known.day, tokens - known.prompt - known.output)

    def _lines(self) -> Sequence[tuple[object, ...]]:
        """All that is known of today and yesterday, in the words of the journal."""
        oldest = self._day - 1
        reserved: dict[tuple[str, int], int] = {}
        for known in self.open.values():
            for budget in known.budgets:
                key = budget.account, known.day
                reserved[key] = reserved.get(key, 0) + known.prompt + known.output
        lines: list[tuple[object, ...]] = []
        for budget in self._budgets.values():
            for day, spent in budget.spent.items():
                settled = spent - reserved.get((budget.account, day), 0)
                if settled and day >= oldest:
                    lines.append(("t", day, budget.account, settled))
        for id, known in self.open.items():
            accounts = [budget.account for budget in known.budgets]
            lines.append(("r", id, known.day, known.prompt, known.output, *accounts))
        return lines
