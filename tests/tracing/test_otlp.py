"""What a collector gets of a whole server, and what its engines and its scrapers are told."""

from __future__ import annotations

import secrets
import signal
import socket
import subprocess
import sys

import httpx
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics

SCRIPTED = 'engine = "scripted"'


def parent() -> tuple[str, str, dict[str, str]]:
    """A client's trace: its id, its span, its header."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    return trace, span, {"traceparent": f"00-{trace}-{span}-01"}


def attributes_of(point) -> dict[str, str]:
    return {pair.key: pair.value.string_value for pair in point.attributes}


def openai(*urls: str) -> str:
    replicas = "".join(f'[[models.replicas]]\nurl = "{url}"\n' for url in urls)
    return f'engine = "openai"\n{replicas}'


def test_a_request_is_one_trace_from_its_client_to_its_engine(
    serve, http_collector, upstream
) -> None:
    server = serve(openai(upstream.url), OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, span, headers = parent()
    answer = server.ask(headers, temperature=0.5, max_tokens=9)
    assert answer.status_code == 200
    request, generation, queue, attempt = http_collector.trace(trace, 4)
    assert [s.name for s in (request, generation, queue, attempt)] == [
        "POST /v1/chat/completions",
        "chat m",
        "queue",
        "attempt",
    ]
    assert (request.kind, generation.kind, attempt.kind) == ("server", "internal", "client")
    assert [request.parent, generation.parent, queue.parent, attempt.parent] == [
        span,
        request.id,
        generation.id,
        generation.id,
    ]
    assert generation.attributes == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.response.id": answer.headers["x-generation-id"],
        "gen_ai.request.stream": False,
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.5,
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.cache_read.input_tokens": 0,
        "headrace.generation.id": answer.headers["x-generation-id"],
        "headrace.request.id": answer.headers["x-request-id"],
        "headrace.tenant": "default",
    }
    assert generation.events == attempt.events == ["first_token"]
    assert request.attributes["http.response.status_code"] == 200
    port = int(upstream.url.rpartition(":")[2].removesuffix("/v1"))
    assert (attempt.attributes["server.address"], attempt.attributes["server.port"]) == (
        "127.0.0.1",
        port,
    )
    assert request.resource["service.name"] == "headrace"
    assert not any(one.failed for one in (request, generation, queue, attempt))


def test_spans_go_out_over_grpc_too(serve, grpc_collector) -> None:
    server = serve(
        SCRIPTED,
        OTEL_EXPORTER_OTLP_ENDPOINT=grpc_collector.url,
        OTEL_EXPORTER_OTLP_PROTOCOL="grpc",
        OTEL_SERVICE_NAME="mill",
        OTEL_RESOURCE_ATTRIBUTES="deployment.environment.name=test",
    )
    trace, span, headers = parent()
    assert server.ask(headers, stream=True).text.endswith("data: [DONE]\n\n")
    spans = grpc_collector.trace(trace, 4)
    assert spans[0].parent == span
    assert spans[0].resource["service.name"] == "mill"
    assert spans[0].resource["deployment.environment.name"] == "test"


def test_a_request_without_a_parent_begins_a_trace(serve, http_collector) -> None:
    server = serve(SCRIPTED, OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    assert server.ask({"traceparent": "00-nonsense-01", "tracestate": "a=b"}).status_code == 200
    http_collector.wait(lambda: http_collector.spans)
    spans = http_collector.trace(http_collector.spans[0].trace, 4)
    assert (spans[0].parent, spans[0].tracestate) == ("", "")


def test_the_engine_is_told_the_attempt_as_its_parent(serve, http_collector, upstream) -> None:
    server = serve(openai(upstream.url), OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    server.ask({**headers, "tracestate": "congo=t61rcWkgMzE", "baggage": "user=7,shop=mill"})
    attempt = http_collector.trace(trace, 4)[-1]
    (told,) = upstream.headers
    assert told["traceparent"] == f"00-{trace}-{attempt.id}-01"
    assert told["tracestate"] == attempt.tracestate == "congo=t61rcWkgMzE"
    assert told["baggage"] == "user=7,shop=mill"


def test_each_failed_attempt_is_a_span(serve, http_collector, upstream) -> None:
    upstream.fail = 2
    server = serve(openai(upstream.url), OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    answer = server.ask(headers)
    assert answer.status_code == 200
    spans = http_collector.trace(trace, 8)
    attempts = [span for span in spans if span.name == "attempt"]
    assert [span.failed for span in attempts] == [True, True, False]
    assert [span.attributes.get("error.type") for span in attempts] == [
        "engine_failed",
        "engine_failed",
        None,
    ]
    assert "out of order" in attempts[0].message
    told = [headers["traceparent"] for headers in upstream.headers]
    assert told == [f"00-{trace}-{span.id}-01" for span in attempts]
    (generation,) = [span for span in spans if span.name == "chat m"]
    assert generation.attributes["headrace.attempts"] == 3
    assert generation.events == ["moved", "moved", "first_token"]
    assert len([span for span in spans if span.name == "queue"]) == 3
    # The log says it beside the ids of the trace.
    lines = [line for line in server.log if line.get("code") == "engine_failed"]
    assert [line["message"].partition(":")[0] for line in lines] == [
        "goes on after engine_failed",
        "goes on after engine_failed",
    ]
    assert {(line["trace_id"], line["span_id"]) for line in lines} == {(trace, generation.id)}
    assert lines[0]["generation"] == answer.headers["x-generation-id"]
    assert lines[0]["request_id"] == answer.headers["x-request-id"]


def test_a_generation_that_fails_says_why(serve, http_collector, upstream) -> None:
    upstream.fail = 99
    server = serve(openai(upstream.url), OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    assert server.ask(headers).status_code == 502
    spans = http_collector.trace(trace, 2 + 2 * 5)
    request, generation = spans[:2]
    assert (request.failed, request.attributes["error.type"]) == (True, "502")
    assert (generation.failed, generation.attributes["error.type"]) == (True, "engine_failed")


def test_what_its_client_does_not_record_is_not_recorded(serve, http_collector, upstream) -> None:
    server = serve(openai(upstream.url), OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    silent = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}
    server.ask(silent)
    trace, _, headers = parent()
    server.ask(headers)
    assert {span.trace for span in http_collector.trace(trace, 4)} == {trace}
    assert upstream.headers[0]["traceparent"] == silent["traceparent"]


def test_a_sampler_that_takes_nothing_tells_the_engine_so(serve, http_collector, upstream) -> None:
    server = serve(
        openai(upstream.url),
        OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url,
        OTEL_TRACES_SAMPLER="parentbased_traceidratio",
        OTEL_TRACES_SAMPLER_ARG="0",
    )
    server.ask()
    assert upstream.headers[0]["traceparent"].endswith("-00")
    server.end()
    assert http_collector.spans == []


def test_without_tracing_the_context_is_handed_on_as_it_came(serve, upstream) -> None:
    server = serve(openai(upstream.url))
    _, _, headers = parent()
    server.ask({**headers, "tracestate": "a=b", "baggage": "c=d"})
    server.ask()
    first, second = upstream.headers
    said = {"traceparent": headers["traceparent"], "tracestate": "a=b", "baggage": "c=d"}
    assert {name: first.get(name) for name in said} == said
    assert not second.keys() & said.keys()


def test_lines_of_the_log_name_the_clients_trace_though_nobody_records_it(serve, upstream) -> None:
    upstream.fail = 99
    server = serve(openai(upstream.url))
    trace, span, headers = parent()
    assert server.ask(headers).status_code == 502
    server.end()
    lines = [line for line in server.log if line.get("code") == "engine_failed"]
    assert {(line["trace_id"], line["span_id"]) for line in lines} == {(trace, span)}


def test_a_generation_goes_on_in_its_trace_after_kill_9(serve, http_collector, tmp_path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"scripts": [{"tokens": ["a ", "b ", "c "], "delay_ms": 300}]}')
    server = serve(
        f'{SCRIPTED}\nscript = "{script}"', OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url
    )
    trace, _, headers = parent()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    with httpx.stream(
        "POST",
        f"{server.url}/v1/chat/completions",
        json=body,
        headers={**headers, "x-on-disconnect": "continue"},
    ) as answer:
        next(line for line in answer.iter_lines() if "a " in line)
        generation = answer.headers["x-generation-id"]
        server.end(signal.SIGKILL)
    server.start()
    events = f"{server.url}/v1/generations/{generation}/events"
    httpx.get(events, timeout=30)
    (again,) = http_collector.wait(lambda: [s for s in http_collector.spans if s.name == "chat m"])
    assert again.trace == trace
    assert again.attributes["headrace.recovered"] is True
    assert again.attributes["gen_ai.response.id"] == generation
    assert again.attributes["gen_ai.response.finish_reasons"] == ["stop"]


def test_a_client_that_leaves_is_no_error_of_ours(serve, http_collector, tmp_path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"scripts": [{"tokens": ["a ", "b "], "hang_after": 1}]}')
    server = serve(
        f'{SCRIPTED}\nscript = "{script}"', OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url
    )
    trace, _, headers = parent()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    path = f"{server.url}/v1/chat/completions"
    with httpx.stream("POST", path, json=body, headers=headers) as answer:
        next(answer.iter_lines())
    request, generation, *_ = http_collector.trace(trace, 4)
    assert request.attributes["error.type"] == "client_disconnected"
    assert generation.attributes["error.type"] == "cancelled"
    assert not request.failed
    assert not generation.failed


def test_what_is_under_way_when_the_server_stops_is_sent(serve, http_collector, tmp_path) -> None:
    script = tmp_path / "script.json"
    script.write_text('{"scripts": [{"tokens": ["a ", "b "], "hang_after": 1}]}')
    server = serve(
        f'{SCRIPTED}\nscript = "{script}"', OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url
    )
    trace, _, headers = parent()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    path = f"{server.url}/v1/chat/completions"
    headers["x-on-disconnect"] = "continue"
    with httpx.stream("POST", path, json=body, headers=headers) as answer:
        next(answer.iter_lines())
        assert server.end() == 0
    spans = http_collector.trace(trace, 4)
    assert "server_stopped" in next(span for span in spans if span.name == "chat m").events


def test_a_batch_is_one_trace_with_a_span_for_each_item(serve, http_collector) -> None:
    server = serve(SCRIPTED, OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    items = [{"model": "m", "prompt": "one"}, {"model": "m", "prompt": "two"}]
    answer = httpx.post(f"{server.url}/v1/batch_infer", json=items, headers=headers, timeout=30)
    spans = http_collector.trace(trace, 1 + 2 * 3)
    ids = {span.attributes.get("gen_ai.response.id") for span in spans} - {None}
    assert ids == {item["id"] for item in answer.json()}


def test_a_slow_bucket_leads_to_its_trace(serve, http_collector, upstream) -> None:
    upstream.pause_s = 0.05
    server = serve(openai(upstream.url), OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    server.ask(headers, stream=True)
    (generation,) = [s for s in http_collector.trace(trace, 4) if s.name == "chat m"]
    wanted = {"accept": "application/openmetrics-text; version=1.0.0"}
    scraped = httpx.get(f"{server.url}/metrics", headers=wanted)
    assert scraped.headers["content-type"].startswith("application/openmetrics-text")
    found = {
        sample.name: sample.exemplar
        for family in parse_openmetrics(scraped.text)
        for sample in family.samples
        if sample.exemplar
    }
    assert found.keys() >= {
        "vllm:e2e_request_latency_seconds_bucket",
        "vllm:time_to_first_token_seconds_bucket",
        "vllm:inter_token_latency_seconds_bucket",
        "vllm:request_queue_time_seconds_bucket",
        "gen_ai_server_request_duration_seconds_bucket",
    }
    ids = {"trace_id": trace, "span_id": generation.id}
    assert "gen_ai_server_time_to_first_token_seconds_bucket" in found
    assert all(exemplar.labels == ids for exemplar in found.values())
    assert "trace_id" not in httpx.get(f"{server.url}/metrics").text, "the old format has none"


def test_metrics_are_pushed_where_their_exporter_is_named(serve, http_collector) -> None:
    server = serve(
        SCRIPTED,
        OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url,
        OTEL_METRICS_EXPORTER="otlp",
        OTEL_METRIC_EXPORT_INTERVAL="100",
    )
    chat = server.ask().json()["usage"]
    prompt = {"model": "m", "prompt": "hello", "max_tokens": 2}
    completion = httpx.post(f"{server.url}/v1/completions", json=prompt).json()["usage"]

    def pushed():
        metric = http_collector.metrics.get("gen_ai.client.token.usage")
        points = [point for point in metric.histogram.data_points if point.count] if metric else ()
        return len(points) == 4 and points

    names = ("gen_ai.operation.name", "gen_ai.token.type")
    sums = {
        tuple(attributes_of(point)[name] for name in names): point.sum
        for point in http_collector.wait(pushed)
    }
    assert sums == {
        ("chat", "input"): chat["prompt_tokens"],
        ("chat", "output"): chat["completion_tokens"],
        ("text_completion", "input"): completion["prompt_tokens"],
        ("text_completion", "output"): completion["completion_tokens"],
    }
    assert set(http_collector.metrics) == {
        "gen_ai.client.token.usage",
        "gen_ai.server.request.duration",
        "gen_ai.server.time_to_first_token",
        "gen_ai.server.time_per_output_token",
    }
    duration = http_collector.metrics["gen_ai.server.request.duration"]
    point, _ = duration.histogram.data_points
    assert (point.count, duration.unit) == (1, "s")
    assert sum(point.bucket_counts) == 1
    assert len(point.bucket_counts) == len(point.explicit_bounds) + 1


def test_a_collector_that_is_not_there_harms_nobody(serve) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        url = f"http://127.0.0.1:{free.getsockname()[1]}"
    server = serve(SCRIPTED, OTEL_EXPORTER_OTLP_ENDPOINT=url)
    assert server.ask().status_code == 200
    assert server.end() == 0


def test_nothing_of_opentelemetry_is_imported_where_nobody_asked() -> None:
    code = "import headrace.app, sys; print([m for m in sys.modules if 'opentelemetry' in m])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "[]"


def test_a_stream_over_http2_is_traced_to_its_end(serve, http_collector) -> None:
    server = serve(SCRIPTED, OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "x"}]}
    with httpx.Client(http1=False, http2=True) as client:
        answer = client.post(f"{server.url}/v1/chat/completions", json=body, headers=headers)
    assert (answer.http_version, answer.status_code) == ("HTTP/2", 200)
    request = http_collector.trace(trace, 4)[0]
    assert request.attributes["http.response.status_code"] == 200


def test_an_unknown_model_is_a_span_of_its_request_alone(serve, http_collector) -> None:
    server = serve(SCRIPTED, OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    trace, _, headers = parent()
    assert server.ask(headers, model="other").status_code == 404
    (request,) = http_collector.trace(trace, 1)
    assert request.attributes["http.response.status_code"] == 404
    assert not request.failed
