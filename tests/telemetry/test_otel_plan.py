from __future__ import annotations

import pytest

from headrace.domain.errors import HeadraceError
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.otel_plan import Wanted, plan
from headrace.telemetry.sampling import Sampler
from headrace.telemetry.tracing import NOTHING, tracing

URL = "http://127.0.0.1:4318"


@pytest.mark.parametrize(
    ("environment", "wanted", "traces"),
    [
        ({}, "auto", None),
        ({"OTEL_SERVICE_NAME": "mill"}, "auto", None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "auto", ("otlp",)),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": URL}, "auto", ("otlp",)),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, "auto", ("otlp", "console")),
        ({"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "auto", None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": ""}, "auto", None),
        ({"OTEL_EXPORTER_OTLP_ENDPOINT": URL}, "off", None),
        ({}, "on", ("otlp",)),
        ({"OTEL_SDK_DISABLED": "true"}, "on", None),
    ],
)
def test_the_environment_says_whether_there_are_traces(
    environment: dict[str, str], wanted: Wanted, traces: tuple[str, ...] | None
) -> None:
    made = plan(environment, wanted)
    assert (made and made.traces) == traces


def test_the_protocol_is_http_unless_it_is_said() -> None:
    both = {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_METRICS_EXPORTER": "otlp"}
    made = plan(both, "auto")
    assert made is not None
    assert (made.traces_protocol, made.metrics_protocol) == ("http/protobuf", "http/protobuf")
    grpc = both | {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "grpc"}
    made = plan(grpc, "auto")
    assert made is not None
    assert (made.traces_protocol, made.metrics_protocol) == ("grpc", "http/protobuf")


def test_a_name_that_is_given_is_left_to_the_sdk() -> None:
    for given in ({"OTEL_SERVICE_NAME": "mill"}, {"OTEL_RESOURCE_ATTRIBUTES": "service.name=mill"}):
        made = plan(given, "on")
        assert made is not None
        assert made.service_name == ""


def test_the_sampler_is_as_the_environment_says() -> None:
    said = {"OTEL_TRACES_SAMPLER": "traceidratio", "OTEL_TRACES_SAMPLER_ARG": "0.25"}
    made = plan(said, "on")
    assert made is not None
    assert made.sampler == Sampler(1 << 62, parent_based=False)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OTEL_TRACES_EXPORTER", "jaeger"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "carrier-pigeon"),
        ("OTEL_TRACES_SAMPLER", "often"),
        ("OTEL_METRIC_EXPORT_INTERVAL", "soon"),
    ],
)
def test_what_cannot_be_stops_the_start_with_its_name(name: str, value: str) -> None:
    with pytest.raises(HeadraceError, match=name):
        plan({name: value}, "on")


def test_where_nobody_asks_there_is_nothing() -> None:
    assert tracing({}, "auto", Metrics()) is NOTHING
