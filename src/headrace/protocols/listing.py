"""Lists that clients read a page at a time: what they ask for, and OpenAI's form of a page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from headrace.protocols.body import refuse

Query = Mapping[str, str]
Order = Literal["asc", "desc"]


def asked_limit(query: Query, most: int, default: int = 20) -> int:
    """How many are wanted at most. Raises ``INVALID_REQUEST``."""
    said = query.get("limit", str(default))
    if not (said.isascii() and said.isdigit() and len(said) < 9 and 1 <= int(said) <= most):
        raise refuse("limit", f"must be a number from 1 to {most}")
    return int(said)


def asked_order(query: Query) -> Order:
    """Newest first, or oldest. Raises ``INVALID_REQUEST``."""
    match query.get("order", "desc"):
        case "desc":
            return "desc"
        case "asc":
            return "asc"
        case _:
            raise refuse("order", "must be asc or desc")


class Page(NamedTuple):
    """The fields of a list, in OpenAI's order."""

    data: list[Any]
    first_id: str | None
    last_id: str | None
    has_more: bool


def page(items: Sequence[Any], ids: Sequence[str], limit: int) -> Page:
    """The first ``limit`` of these. ``ids``: of all; one item more than the limit tells that there are more."""
    shown = ids[:limit]
    first, last = (shown[0], shown[-1]) if shown else (None, None)
    return Page(list(items[:limit]), first, last, len(items) > limit)
