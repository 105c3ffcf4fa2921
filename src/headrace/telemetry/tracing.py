"""Whether anything is exported by OpenTelemetry, and the parts that do: built only where the environment asks."""

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
    """``tracer``: None where only metrics are exported. ``close`` sends what is left; it blocks for some seconds
    at most, so it is not for the event loop's thread."""

    tracer: Tracer | None
    close: Callable[[], None]


NOTHING = Tracing(None, lambda: None)


def tracing(environment: Environment, wanted: Wanted, metrics: Metrics) -> Tracing:
    """What the environment asks for. Raises ``INVALID_REQUEST`` for an environment that says what cannot be,
    and where traces are ``on`` without the packages for them."""
    made = plan(environment, wanted)
    return NOTHING if made is None else _build(made, metrics)


def _build(made: Plan, metrics: Metrics) -> Tracing:
    try:
        from headrace.telemetry.otel import Otel
        from headrace.telemetry.otel_metrics import OtelMetrics
    except ImportError as error:
        if made.required:
            raise HeadraceError(Code.INVALID_REQUEST, f"{_MISSING} ({error})") from None
        _logger.warning("nothing is exported: %s (%s)", _MISSING, error)
        return NOTHING
    try:
        spans = Otel(made)
        pushed = OtelMetrics(made, spans.resource, metrics) if made.metrics else None
    except Exception as error:
        why = f"OpenTelemetry cannot be set up: {error}"
        raise HeadraceError(Code.INVALID_REQUEST, why) from error
    tracer = Tracer(spans, made.sampler, metrics) if made.traces else None

    def close() -> None:
        if tracer is not None:
            tracer.close()
        spans.close()
        if pushed is not None:
            pushed.close()

    return Tracing(tracer, close)
