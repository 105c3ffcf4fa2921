"""On which terms a request is made: what its head says, concluded once for all requests that share the head.

The front keeps the terms with the head, and forgets both together. What can fail is concluded when it is
first asked for and remembered if it is good, so that errors come in the same order whether
the head was seen before or not. A key is only taken out here: whose it is, the service says anew each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

from headrace.domain.principal import Scope
from headrace.domain.request import Caller
from headrace.domain.trace import Trace, read_trace
from headrace.protocols.accept import StreamForm
from headrace.protocols.errors import OPENAI, Header, Manner
from headrace.protocols.exchange import Head
from headrace.protocols.pending import Pending

_IN_TRACES = frozenset((b"traceparent", b"baggage"))
_REQUEST_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")


class Terms:
    """``fields``: the head's, the first of each name. ``request_id``: that of the client, None for one of
    ours. ``common``: what every answer has in its head, ``lines`` the same as a text of whole lines."""

    __slots__ = (
        "argument",
        "caller",
        "common",
        "fields",
        "foreign",
        "form",
        "handler",
        "key",
        "lines",
        "manner",
        "open",
        "read_token",
        "request_id",
        "resumes",
        "route",
        "scope",
        "sends_json",
        "shows",
        "takes_json",
        "trace",
    )

    def __init__(self, head: Head) -> None:
        self.fields: dict[bytes, bytes] = dict(reversed(head.headers))
        asked = self.fields.get(b"x-request-id")
        good = asked is not None and _REQUEST_ID.fullmatch(asked)
        self.request_id = asked.decode() if asked is not None and good else None
        self.key = _bearer_key(self.fields.get(b"authorization")) or _key(
            self.fields.get(b"x-api-key")
        )
        self.read_token: str | None = None
        """Of the query, where the route takes one and there is no key."""
        self.manner: Manner = OPENAI
        """Of the route."""
        self.common: tuple[Header, ...] = ()
        self.lines = ""
        self.handler: Callable[[Any, str], Pending | None] | None = None
        """Of the ``route`` (its pattern), with ``argument`` and ``scope``. ``open``: it needs no key."""
        self.route = ""
        self.scope: Scope = "infer"
        self.argument = ""
        self.open = False
        self.foreign: str | None = None
        """By which name the server is called, if that is to be looked at; see :mod:`headrace.protocols.hosts`."""
        self.resumes = b"last-event-id" in self.fields
        self.shows = b"x-stream-events" in self.fields
        self.sends_json = False
        """Whether the body is known to be JSON; so with the answer it takes, and the form of a stream."""
        self.takes_json = False
        self.form: StreamForm | None = None
        self.caller: Caller | None = None
        """What the head says of its caller, but for the tenant."""
        self.trace = _trace(head) if _IN_TRACES & self.fields.keys() else None

    def add_common(self, headers: tuple[Header, ...]) -> None:
        """Headers for every answer; their values are from the head or ours, and have no line breaks."""
        self.common = headers
        block = b"".join([b"%b: %b\r\n" % header for header in headers])
        assert block.count(b"\n") == block.count(b"\r") == len(headers)
        self.lines = block.decode("latin-1")


def _key(value: bytes | None) -> str | None:
    """The key of ``x-api-key``, as Anthropic's SDK sends it."""
    return None if value is None else value.decode("latin-1").strip()


def _trace(head: Head) -> Trace | None:
    """The trace that the client is in. Its lists may have come as several headers."""

    def joined(name: bytes) -> str:
        return ",".join([value.decode("latin-1") for key, value in head.headers if key == name])

    return read_trace(joined(b"traceparent"), joined(b"tracestate"), joined(b"baggage"))


def _bearer_key(value: bytes | None) -> str | None:
    """The key of ``Authorization: Bearer KEY``; None if there is none."""
    if value is None:
        return None
    scheme, _, key = value.decode("latin-1").partition(" ")
    return key.strip() if scheme.lower() == "bearer" else None
