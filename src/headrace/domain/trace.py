"""A trace context (W3C Trace Context, Baggage): to which trace a request belongs, as its headers say it."""

from __future__ import annotations

import re

import msgspec

_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}"
)
"""Of a version that is not known only the beginning, which all versions share, is read."""
_KNOWN_BYTES = 55
_TEXT = re.compile(r"[\x20-\x7e]*")
MAX_TRACESTATE = 512
MAX_BAGGAGE = 8192
_SAMPLED = frozenset("13579bdf")


class Trace(msgspec.Struct, frozen=True, gc=False, array_like=True, omit_defaults=True):
    """The three headers' values, checked: printable ASCII. ``traceparent`` is empty where only baggage came;
    its span is the parent of whatever is done for this request."""

    traceparent: str
    tracestate: str = ""
    baggage: str = ""

    @property
    def sampled(self) -> bool:
        """Whether who began this trace, or decided about it, records it."""
        return self.traceparent[-1:] in _SAMPLED

    @property
    def trace_id(self) -> int:
        return int(self.traceparent[3:35], 16)

    @property
    def span_id(self) -> int:
        return int(self.traceparent[36:52], 16)

    @property
    def ids(self) -> tuple[str, str]:
        """Both in hex; empty where only baggage came."""
        return self.traceparent[3:35], self.traceparent[36:52]

    @property
    def lines(self) -> bytes:
        """As header lines of a request, each with its line break."""
        if not self.tracestate and not self.baggage:  # as nearly always
            return f"traceparent: {self.traceparent}\r\n".encode()
        text = f"traceparent: {self.traceparent}\r\n" if self.traceparent else ""
        if self.tracestate:
            text += f"tracestate: {self.tracestate}\r\n"
        if self.baggage:
            text += f"baggage: {self.baggage}\r\n"
        return text.encode()


def read_trace(traceparent: str | None, tracestate: str = "", baggage: str = "") -> Trace | None:
    """From the headers of a request (several of one name joined by commas). What is malformed or too long
    counts as absent, and ``tracestate`` with a bad ``traceparent``; None if nothing is left."""
    parent = (traceparent or "").strip()
    if _TRACEPARENT.match(parent) is None or not _ends_well(parent):
        parent = tracestate = ""
    tracestate = _short_text(tracestate, MAX_TRACESTATE)
    baggage = _short_text(baggage, MAX_BAGGAGE)
    if not parent and not baggage:
        return None
    return Trace("00" + parent[2:_KNOWN_BYTES] if parent else "", tracestate, baggage)


def _ends_well(traceparent: str) -> bool:
    rest = traceparent[_KNOWN_BYTES:]
    return not rest or (rest[0] == "-" and not traceparent.startswith("00"))


def _short_text(value: str, limit: int) -> str:
    value = value.strip()
    return value if len(value) <= limit and _TEXT.fullmatch(value) else ""
