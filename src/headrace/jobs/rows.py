"""The rows of a job's input: what a line has to say, and what it is about."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec
from msgspec import Meta, Raw

from headrace.domain.job import LineError
from headrace.jobs.lines import Line

CUSTOM_ID = 512
"""Characters of the name that a client gives a row."""


class RowBody(msgspec.Struct, frozen=True, gc=False):
    """A line as OpenAI has it."""

    custom_id: Annotated[str, Meta(min_length=1, max_length=CUSTOM_ID)]
    url: str
    body: Raw
    method: Literal["POST"] = "POST"


class Row(msgspec.Struct, frozen=True, gc=False):
    """A row to be run. ``model``: as it asks for it. ``prefix``: rows whose prompts begin alike are neighbours when
    they are sorted by it."""

    number: int
    custom_id: str
    body: bytes
    model: str
    prefix: bytes


class _About(msgspec.Struct, frozen=True, gc=False):
    """What of a body matters before it runs."""

    model: str = ""
    messages: Raw = Raw(b"")
    prompt: Raw = Raw(b"")
    input: Raw = Raw(b"")
    instructions: Raw = Raw(b"")


_line = msgspec.json.Decoder(RowBody).decode
_about = msgspec.json.Decoder(_About).decode


def checked(line: Line, endpoint: str) -> RowBody | LineError:
    """A line's row, or what is wrong with it."""
    number = line.number
    try:
        row = _line(line.text)
    except msgspec.ValidationError as complaint:
        said = str(complaint).replace("$.", "")
        return LineError("invalid_line", f"Line {number}: {said}.", line=number)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as complaint:
        said = f"Line {number} is not JSON: {complaint}."
        return LineError("invalid_json_line", said, line=number)
    if row.url != endpoint:
        said = f"Line {number}: `url` is {row.url[:80]!r}, and this batch is for {endpoint}."
        return LineError("mismatched_endpoint", said, "url", number)
    if bytes(row.body)[:1] != b"{":
        return LineError(
            "invalid_line", f"Line {number}: `body` must be an object.", "body", number
        )
    return row


def to_run(line: Line) -> Row:
    """The row of a line that was found good."""
    row = _line(line.text)
    body = bytes(row.body)
    try:
        about = _about(body)
    except msgspec.MsgspecError:
        about = _About()  # who answers it says what is wrong
    prefix = b"\0".join(map(bytes, (about.instructions, about.messages, about.prompt, about.input)))
    return Row(line.number, row.custom_id, body, about.model, prefix)
