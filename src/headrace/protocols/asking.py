"""The headers with which a request says how it wants to be treated, checked and put into words."""

from __future__ import annotations

import re
from typing import Protocol

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import EVENT_TYPES
from headrace.domain.request import CANCEL, CONTINUE, Caller, Leaving, Once, Urgency
from headrace.domain.tenant import LEVELS, Level
from headrace.domain.trace import Trace
from headrace.protocols.accept import StreamForm, require_json, stream_form
from headrace.protocols.call import Call
from headrace.protocols.native import OPTIONAL_EVENTS
from headrace.protocols.port import Generation, Service
from headrace.protocols.terms import Terms
from headrace.protocols.tracing import Span

GRACE = Leaving(30.0)
"""The default of requests that show they want to come back: ``Idempotency-Key``, ``X-Stream-Events``."""
MAX_GRACE_S = 86_400.0
MAX_TOKEN = 256
"""Characters of an abort token, a session id, an idempotency key."""
Names = tuple[bytes, ...]
TTFT: Names = (b"x-llm-d-slo-ttft-ms", b"x-slo-ttft-ms")
TPOT: Names = (b"x-llm-d-slo-tpot-ms", b"x-slo-tpot-ms")
OBJECTIVE: Names = (b"x-llm-d-inference-objective", b"x-gateway-inference-objective")
"""As llm-d's router names them, and as it and the Gateway API Inference Extension did before:
https://llm-d.ai/docs/api-reference/epp-http-headers"""
_VISIBLE = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]*[\x21-\x7e])?")
_MILLISECONDS = re.compile(r"\d{1,9}(?:\.\d{1,9})?")
_SECONDS = re.compile(r"\d{1,6}(?:\.\d{1,3})?")


class Asking(Protocol):
    """A call that asks, over HTTP or gRPC."""

    @property
    def terms(self) -> Terms: ...

    @property
    def tenant(self) -> str: ...

    @property
    def key_id(self) -> str: ...

    @property
    def request_id(self) -> str: ...

    @property
    def trace(self) -> Trace | None: ...

    @property
    def span(self) -> Span | None: ...

    def header(self, name: bytes) -> str | None: ...


def caller_of(call: Asking, session_id: str | None = None) -> Caller:
    """Who asks, and how. ``session_id``: of the body, where the header has none. Raises ``INVALID_REQUEST``."""
    said = call.terms.caller or _conclude(call)
    return Caller(
        call.tenant,
        call.request_id,
        said.session_id or session_id,
        said.abort_token,
        said.leaving,
        said.exact,
        call.trace or said.trace,
        said.once,
        said.retry,
        call.key_id,
        said.urgency,
    )


async def find(call: Asking, service: Service, any_id: str) -> Generation:
    """A generation of the caller's, to which its trace leads from now on. Raises ``GENERATION_NOT_FOUND`` and
    ``CURSOR_GONE``."""
    generation = await service.find(any_id, call.tenant)
    if call.span is not None:
        call.span.about(generation)
    return generation


def take_request(call: Call, service: Service, model: str) -> None:
    """Count a call that computes no answer among its caller's requests. Raises ``RATE_LIMITED``, ``MODEL_NOT_FOUND``
    and ``MODEL_LOADING``."""
    call.reservation = service.take_request(model, call.tenant, call.key_id)


def _conclude(call: Asking) -> Caller:
    """What the head says of its caller; remembered. Raises ``INVALID_REQUEST``."""
    fields = call.terms.fields
    leaving = CANCEL
    if b"x-on-disconnect" in fields:
        leaving = _leaving(call.header(b"x-on-disconnect") or "")
    elif b"idempotency-key" in fields or b"x-stream-events" in fields:
        leaving = GRACE
    key = text_header(call, b"idempotency-key")
    once = None if key is None else Once(key)
    retry = _retry_count(fields.get(b"x-stainless-retry-count"))
    exact = False
    if b"x-continue-mode" in fields:
        exact = _continue_mode(call.header(b"x-continue-mode") or "")
    session_id = text_header(call, b"x-session-id")
    abort_token = text_header(call, b"x-abort-token")
    call.terms.caller = said = Caller(
        "",
        "",
        session_id,
        abort_token,
        leaving,
        exact,
        call.terms.trace,
        once,
        retry,
        "",
        _urgency(call),
    )
    return said


def chosen_form(call: Call) -> StreamForm:
    """The form that ``Accept`` wants a stream in; remembered. Raises ``NOT_ACCEPTABLE``."""
    form = call.terms.form = stream_form(call.header(b"accept"))
    return form


def check_takes_json(call: Call) -> None:
    """Raise ``NOT_ACCEPTABLE`` if the client does not take JSON; remembered."""
    require_json(call.header(b"accept"))
    call.terms.takes_json = True


def stream_events(call: Asking) -> dict[str, bool] | None:
    """Which optional events ``X-Stream-Events`` wants; None if it says nothing. Raises ``INVALID_REQUEST``."""
    asked = call.header(b"x-stream-events")
    if asked is None:
        return None
    names = {name.strip().lower() for name in asked.split(",")} - {""}
    unknown = names - EVENT_TYPES
    if unknown or not names:
        raise _bad("X-Stream-Events", f"a list of {', '.join(sorted(EVENT_TYPES))}")
    return {name: name in names for name in OPTIONAL_EVENTS}


def last_event_id(call: Call) -> int | None:
    """The cursor of ``Last-Event-ID``; None if it is absent or empty. Raises ``INVALID_REQUEST``."""
    value = call.header(b"last-event-id")
    return cursor(value, "Last-Event-ID") if value else None


def cursor(value: str, param: str) -> int:
    """A ``seq`` as clients write it. Raises ``INVALID_REQUEST``."""
    if not (value.isascii() and value.isdigit() and len(value) <= 15):
        raise _bad(param, "the number of an event")
    return int(value)


def text_header(call: Asking, name: bytes) -> str | None:
    """A header of 1 to ``MAX_TOKEN`` visible characters; None if it is absent. Raises ``INVALID_REQUEST``."""
    value = call.header(name)
    if value is None:
        return None
    if len(value) > MAX_TOKEN or _VISIBLE.fullmatch(value) is None:
        title = "-".join(word.capitalize() for word in name.decode().split("-"))
        raise _bad(title.replace("-Id", "-ID"), f"1 to {MAX_TOKEN} visible ASCII characters")
    return value


def _urgency(call: Asking) -> Urgency | None:
    """How soon its client wants the answer; None if it says nothing. Raises ``INVALID_REQUEST``."""
    ttft_s, tpot_s, level = _target_s(call, TTFT), _target_s(call, TPOT), _objective(call)
    said = ttft_s is not None or tpot_s is not None or level is not None
    return Urgency(ttft_s, tpot_s, level) if said else None


def _target_s(call: Asking, names: Names) -> float | None:
    """A target in milliseconds. Raises ``INVALID_REQUEST``."""
    name, value = _first(call, names)
    if value is None:
        return None
    if _MILLISECONDS.fullmatch(value) is None or not float(value):
        raise _bad(name, "milliseconds above 0")
    return float(value) / 1000


def _objective(call: Asking) -> Level | None:
    """Which of the levels a request says it is of. Raises ``INVALID_REQUEST``."""
    name, value = _first(call, OBJECTIVE)
    if value is None:
        return None
    asked = value.strip().lower()
    for level in LEVELS:
        if level == asked:
            return level
    raise _bad(name, f"one of {', '.join(LEVELS)}")


def _first(call: Asking, names: Names) -> tuple[str, str | None]:
    """Of several headers that mean the same, the first that is there."""
    for name in names:
        value = call.header(name)
        if value is not None:
            return name.decode(), value
    return "", None


def _retry_count(value: bytes | None) -> int | None:
    """Which try the SDKs of OpenAI and Anthropic say it is; None where that cannot be known."""
    return int(value) if value is not None and value.isdigit() and len(value) < 6 else None


def _leaving(value: str) -> Leaving:
    asked = value.strip().lower()
    if asked == "cancel":
        return CANCEL
    if asked == "continue":
        return CONTINUE
    kind, _, seconds = asked.partition("=")
    if kind == "grace" and _SECONDS.fullmatch(seconds) and float(seconds) <= MAX_GRACE_S:
        return Leaving(float(seconds))
    raise _bad("X-On-Disconnect", f"cancel, continue or grace=SECONDS (at most {MAX_GRACE_S:g})")


def _continue_mode(value: str) -> bool:
    asked = value.strip().lower()
    if asked not in ("fast", "exact"):
        raise _bad("X-Continue-Mode", "fast or exact")
    return asked == "exact"


def _bad(name: str, expected: str) -> HeadraceError:
    return HeadraceError(Code.INVALID_REQUEST, f"`{name}` must be {expected}.", param=name)
