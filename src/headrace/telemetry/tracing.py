"""Whether there are traces, and the parts that make them: built only where the environment asks for them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import NamedTuple

from headrace.domain.errors import Code, HeadraceError
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.otel_plan import Environment, Plan, Wanted, plan
from headrace.telemetry.tracer import Tracer

_logger = logging.getLogger("headrace.telemetry")
_MISSING = "OpenTelemetry is not installed; pip install 'headrace[otel]'"


class Tracing(NamedTuple):
    """``close`` ends what is under way and sends what is left. It blocks for some seconds at most."""

    tracer: Tracer
    close: Callable[[], None]


def tracing(environment: Environment, wanted: Wanted, metrics: Metrics) -> Tracing | None:
    """None where nothing is recorded. Raises ``INVALID_REQUEST`` for an environment that says what cannot be,
    and where traces are ``on`` without the packages for them."""
    made = plan(environment, wanted)
    return None if made is None else _build(made, metrics)


def _build(made: Plan, metrics: Metrics) -> Tracing | None:
    try:
        from headrace.telemetry.otel import Otel
    except ImportError as error:
        if made.required:
            raise HeadraceError(Code.INVALID_REQUEST, f"{_MISSING} ({error})") from None
        _logger.warning("no traces: %s (%s)", _MISSING, error)
        return None
    try:
        spans = Otel(made)
    except Exception as error:
        why = f"OpenTelemetry cannot be set up: {error}"
        raise HeadraceError(Code.INVALID_REQUEST, why) from error
    tracer = Tracer(spans, made.sampler, metrics)

    def close() -> None:
        tracer.close()
        spans.close()

    return Tracing(tracer, close)
