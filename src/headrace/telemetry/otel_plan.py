"""What the environment says about exporting, where OpenTelemetry's specification leaves it to the program.

Everything else (endpoints, headers, certificates, batches, the resource) the SDK reads itself.
https://opentelemetry.io/docs/specs/otel/configuration/sdk-environment-variables/
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.telemetry.sampling import Sampler

Environment = Mapping[str, str]
Wanted = Literal["auto", "on", "off"]
Signal = Literal["TRACES", "METRICS"]

EXPORTERS = ("otlp", "console")
PROTOCOLS = ("http/protobuf", "grpc")


class Plan(msgspec.Struct, frozen=True):
    """``traces``, ``metrics``: the exporters of each; ``…_protocol``: how OTLP speaks. ``service_name``:
    empty where the SDK finds one. ``required``: it is an error if OpenTelemetry is not installed."""

    traces: tuple[str, ...] = ()
    traces_protocol: str = PROTOCOLS[0]
    metrics: tuple[str, ...] = ()
    metrics_protocol: str = PROTOCOLS[0]
    metrics_period_s: float = 60.0
    sampler: Sampler = Sampler()
    service_name: str = "headrace"
    required: bool = False


def plan(environment: Environment, wanted: Wanted) -> Plan | None:
    """None: nothing is exported. ``auto``: traces are if an exporter or an endpoint is named. Metrics are,
    where traces may be, if their exporter is named (scraping is the rule). Raises ``INVALID_REQUEST``."""
    if wanted == "off" or environment.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return None
    asked = wanted == "on" or _has_endpoint(environment)
    traces = _exporters(environment, "TRACES", "otlp" if asked else "none")
    metrics = _exporters(environment, "METRICS", "none")
    if not traces and not metrics:
        return None
    named = environment.get("OTEL_SERVICE_NAME") or "service.name=" in environment.get(
        "OTEL_RESOURCE_ATTRIBUTES", ""
    )
    return Plan(
        traces,
        _protocol(environment, "TRACES"),
        metrics,
        _protocol(environment, "METRICS"),
        _period_s(environment),
        _sampler(environment),
        "" if named else "headrace",
        wanted == "on",
    )


def _has_endpoint(environment: Environment) -> bool:
    names = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
    return any(environment.get(name) for name in names)


def _exporters(environment: Environment, signal: Signal, default: str) -> tuple[str, ...]:
    name = f"OTEL_{signal}_EXPORTER"
    listed = (environment.get(name) or default).split(",")
    asked = tuple(exporter.strip().lower() for exporter in listed)
    if "none" in asked:
        return ()
    for exporter in asked:
        if exporter not in EXPORTERS:
            raise _wrong(name, f"{exporter!r} is none of {', '.join(EXPORTERS)}, none")
    return asked


def _protocol(environment: Environment, signal: Signal) -> str:
    for name in (f"OTEL_EXPORTER_OTLP_{signal}_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"):
        protocol = environment.get(name, "").strip().lower()
        if protocol and protocol not in PROTOCOLS:
            raise _wrong(name, f"{protocol!r} is none of {', '.join(PROTOCOLS)}")
        if protocol:
            return protocol
    return PROTOCOLS[0]


def _period_s(environment: Environment) -> float:
    name = "OTEL_METRIC_EXPORT_INTERVAL"
    try:
        period_s = float(environment.get(name) or 60_000) / 1000
    except ValueError:
        period_s = 0.0
    if period_s <= 0:
        raise _wrong(name, "is not a number of milliseconds above 0")
    return period_s


def _sampler(environment: Environment) -> Sampler:
    name = "OTEL_TRACES_SAMPLER"
    kind = environment.get(name, "").strip().lower() or "parentbased_always_on"
    try:
        return Sampler.named(kind, environment.get(f"{name}_ARG", "").strip())
    except ValueError as error:
        raise _wrong(name, str(error)) from None


def _wrong(name: str, why: str) -> HeadraceError:
    return HeadraceError(Code.INVALID_REQUEST, f"{name}: {why}", param=name)
