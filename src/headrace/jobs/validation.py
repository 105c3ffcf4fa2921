"""The first look at a job's input: all of it, before anything is computed. Every complaint names its line."""

from __future__ import annotations

from typing import NamedTuple

from headrace.domain.job import LineError
from headrace.jobs.duplicates import Suspects
from headrace.jobs.lines import BadInput, Lines
from headrace.jobs.rows import RowBody, checked, to_run

MOST_ERRORS = 100
"""Told of one input."""


class Found(NamedTuple):
    """``model``: the one of the first row."""

    rows: int
    model: str
    errors: tuple[LineError, ...]


async def look_through(lines: Lines, endpoint: str, most_rows: int) -> Found:
    """How many rows there are, or what is wrong with them. Raises :class:`BadInput` where the file itself cannot be
    used."""
    errors: list[LineError] = []
    suspects = Suspects(lines.seen.bytes)
    rows, model = 0, ""
    async for block in lines.blocks():
        for line in block:
            row = checked(line, endpoint)
            if isinstance(row, RowBody):
                if not rows:
                    model = to_run(line).model
                rows += 1
                suspects.add(row.custom_id)
            elif len(errors) < MOST_ERRORS:
                errors.append(row)
    if not errors and suspects.names:
        errors = await _twice(lines, endpoint, suspects.names)
    if not errors and not rows:
        raise BadInput(LineError("empty_file", "The input file has no line with a request in it."))
    if rows > most_rows:
        said = f"The input file has {rows} requests; {most_rows} are the most (jobs.max_rows)."
        raise BadInput(LineError("too_many_requests", said))
    return Found(rows, model, tuple(errors))


async def _twice(lines: Lines, endpoint: str, suspects: set[str]) -> list[LineError]:
    """Which of these names really come twice."""
    first: dict[str, int] = {}
    errors: list[LineError] = []
    async for block in lines.blocks():
        for line in block:
            row = checked(line, endpoint)
            name = row.custom_id if isinstance(row, RowBody) else ""
            if name not in suspects or len(errors) >= MOST_ERRORS:
                continue
            before = first.setdefault(name, line.number)
            if before != line.number:
                said = f"Line {line.number}: the custom_id {name[:80]!r} is that of line {before}."
                errors.append(LineError("duplicate_custom_id", said, "custom_id", line.number))
    return errors
