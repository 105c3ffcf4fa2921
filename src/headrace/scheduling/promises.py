"""What settings may say of a policy, and when a first token is due by them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from headrace.scheduling.policy import MOST_S, Ticket, finite

TARGETS_S: Mapping[str, float] = {"interactive": 2.0, "standard": 10.0, "batch": 120.0}
"""First tokens are due after these where nothing else was agreed on; other classes are as ``standard``."""

LONGEST_S = 3600.0
"""A deadline that is farther away counts as so far: nobody waits for ever behind others' nearer ones."""


def due_at(ticket: Ticket, arrived_at: float, targets_s: Mapping[str, float]) -> float:
    """When its first token is due: by its own deadline, its tenant's target, or that of its class."""
    deadline = ticket.deadline
    if not -MOST_S < deadline < MOST_S:
        terms = ticket.terms
        target_s = terms.ttft_s
        if target_s is None or not 0 <= target_s < MOST_S:
            target_s = targets_s.get(terms.level, targets_s.get("standard", TARGETS_S["standard"]))
        deadline = arrived_at + target_s
    longest = arrived_at + LONGEST_S
    return deadline if deadline < longest else longest


def arrival(ticket: Ticket, now: float) -> float:
    """When it arrived; now, where that is no time."""
    at = ticket.arrived_at
    return at if -MOST_S < at < MOST_S else finite(now)


def at_least(key: str, value: Any, least: float) -> float:
    """The value of a setting. Raises ``ValueError`` that begins with its key."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError(f"{key}: must be a number, not {_shown(value)}")
    if not least <= value < MOST_S:
        raise ValueError(f"{key}: must be a number from {least:g}, below {MOST_S:g}")
    return value


def each_at_least(key: str, values: Any, least: float) -> Mapping[str, float]:
    """The values of a setting by class. Raises ``ValueError`` that begins with its key."""
    if not isinstance(values, Mapping):
        raise ValueError(f"{key}: must be a table of numbers by class, not {_shown(values)}")
    return {name: at_least(f"{key}.{name}", value, least) for name, value in values.items()}


def listed(key: str, values: Any) -> Sequence[Any]:
    """The values of a setting that has several. Raises ``ValueError`` that begins with its key."""
    if not isinstance(values, list | tuple):
        raise ValueError(f"{key}: must be a list, not {_shown(values)}")
    return values


def text(key: str, value: Any) -> str:
    """The value of a setting. Raises ``ValueError`` that begins with its key."""
    if not isinstance(value, str):
        raise ValueError(f"{key}: must be a text, not {_shown(value)}")
    return value


def _shown(value: Any) -> str:
    """A value that is of the wrong kind, as a settings file has it; in a word where it may be long."""
    if isinstance(value, str):
        return json.dumps(value[:80], ensure_ascii=False)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, Mapping):
        return "a table"
    return "a list" if isinstance(value, list | tuple) else f"a {type(value).__name__}"
