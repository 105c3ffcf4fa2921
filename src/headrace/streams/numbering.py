"""From deltas to events: what of an engine's output is visible gets its ``seq`` here."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.domain.delta import Delta
from headrace.domain.event import MAX_TEXT_BYTES, Event, Token

SURELY_SHORT = MAX_TEXT_BYTES // 4
"""Characters that are ``MAX_TEXT_BYTES`` at most, whatever they are."""


def numbered(deltas: Sequence[Delta], seq: int, now: float) -> list[Event]:
    """The visible ones of these deltas as the events after ``seq``. Long text is several events; what else
    a delta has is in the first of them."""
    events: list[Event] = []
    for delta in deltas:
        text, logprobs, calls = delta.text, delta.logprobs, delta.tool_calls
        if len(text) > SURELY_SHORT:
            for part, piece in enumerate(_pieces(text)):
                seq += 1
                events.append(
                    Token(seq, now, piece, delta.index, delta.reasoning, logprobs, calls, part)
                )
                logprobs = calls = None
        elif text or logprobs or calls:
            seq += 1
            events.append(Token(seq, now, text, delta.index, delta.reasoning, logprobs, calls))
    return events


def _pieces(text: str) -> list[str]:
    """A long text in parts of at most ``MAX_TEXT_BYTES`` of UTF-8, split between code points."""
    parts, data, start = [], text.encode("utf-8", "surrogatepass"), 0
    while start < len(data):
        end = min(start + MAX_TEXT_BYTES, len(data))
        while end < len(data) and data[end] & 0xC0 == 0x80:
            end -= 1
        parts.append(data[start:end].decode("utf-8", "surrogatepass"))
        start = end
    return parts
