"""The rows of a job that are still to be run, in the order in which they begin.

Rows whose prompts begin alike run one after the other, so that the engine's prefix cache has the beginning: within
windows of some hundred rows. Where a window ends is said by the file alone and not by what is done: after a crash
the rows that were under way are the first to begin again, while their generations are waiting for them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from headrace.domain.job import LineError
from headrace.jobs.done import Done
from headrace.jobs.lines import BadInput, Line, Lines
from headrace.jobs.rows import Row, RowBody, checked, to_run

WINDOW_ROWS = 1024
WINDOW_BYTES = 4 * 1024 * 1024


async def rows_to_run(lines: Lines, done: Done) -> AsyncIterator[Row]:
    """Each row that is not ``done`` when its window begins. Raises :class:`BadInput`."""
    window: list[Line] = []
    count = size = 0
    async for block in lines.blocks():
        for line in block:
            count += 1
            size += len(line.text)
            if line.number not in done:
                window.append(line)
            if count >= WINDOW_ROWS or size >= WINDOW_BYTES:
                for row in _in_order(window):
                    yield row
                window, count, size = [], 0, 0
    for row in _in_order(window):
        yield row


async def rows_left(lines: Lines, endpoint: str, done: Done) -> AsyncIterator[tuple[int, str]]:
    """Number and name of each row that is not ``done``. Raises :class:`BadInput`."""
    async for block in lines.blocks():
        for line in block:
            if line.number not in done:
                row = checked(line, endpoint)
                if isinstance(row, RowBody):
                    yield line.number, row.custom_id


def _in_order(window: list[Line]) -> list[Row]:
    rows = [_row(line) for line in window]
    rows.sort(key=lambda row: (row.model, row.prefix))
    return rows


def _row(line: Line) -> Row:
    try:
        return to_run(line)
    except ValueError as error:  # it was good when it was looked at
        said = f"The input file was changed while it was read, at line {line.number}."
        raise BadInput(LineError("input_file_changed", said, line=line.number)) from error
