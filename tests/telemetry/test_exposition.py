from __future__ import annotations

import shutil
import subprocess
import threading
from collections.abc import Mapping
from pathlib import Path

import msgspec
import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from headrace.domain.event import Usage
from headrace.telemetry.collector import GcWatch
from headrace.telemetry.exposition import Exposition
from headrace.telemetry.metrics import (
    OF_A_MODEL,
    OF_A_REPLICA,
    OF_THE_SERVER,
    REPLICA_LABELS,
    Metrics,
)

README = Path(__file__).parents[2] / "README.md"
PROMTOOL = shutil.which("promtool")
Key = tuple[str, frozenset[tuple[str, str]]]


def busy_metrics() -> Metrics:
    metrics = Metrics(GcWatch(), now=lambda: 1795346282.5)
    model = metrics.model("smollm2-135m")
    model.watch("waiting", lambda: 3)
    model.watch("running", lambda: 2)
    model.watch("running", lambda: 2)
    for in_use in (2, 3):  # two of one name
        model.watch_replica("in_use", "a", lambda in_use=in_use: in_use)
    metrics.watch("readers", lambda: 7)
    metrics.watch("store_commits", lambda: 11)
    chat, completion = model.of("chat"), model.of("text_completion")
    chat.admitted_count += 3
    completion.admitted_count += 2
    chat.started(0.003)
    chat.waited(1.0, 0.75)
    completion.waited(1.0, 4.0)
    chat.first_token(0.05)
    chat.tokens(1, 0.02)
    chat.finished("stop", 0.4, Usage(10, 20, 4))
    chat.failed("engine_failed", "the engine died", 2, 0.7)
    chat.target("shop", "ttft", True)
    completion.target("shop", "ttft", True)
    chat.target("shop", "tpot", False)
    completion.started(0.003)
    completion.first_token(0.09)
    completion.finished("length", 0.2, Usage(1, 2))
    return metrics


def scrape(metrics: Metrics, accept: str = "text/plain") -> dict[Key, float]:
    _, body = Exposition(metrics).render(accept)
    families = list(text_string_to_metric_families(body.decode()))
    return {(s.name, frozenset(s.labels.items())): s.value for f in families for s in f.samples}


def key(name: str, labels: Mapping[str, str] | None = None) -> Key:
    return name, frozenset((labels or {}).items())


MODEL = {"model_name": "smollm2-135m"}
GEN_AI = {
    "gen_ai_operation_name": "chat",
    "gen_ai_provider_name": "headrace",
    "gen_ai_request_model": "smollm2-135m",
    "gen_ai_response_model": "smollm2-135m",
}
COMPLETION = {**GEN_AI, "gen_ai_operation_name": "text_completion"}


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("vllm:num_requests_waiting", MODEL, 3),
        ("vllm:num_requests_running", MODEL, 4),
        ("vllm:prompt_tokens_total", MODEL, 11),
        ("vllm:generation_tokens_total", MODEL, 24),
        ("vllm:request_success_total", {**MODEL, "finished_reason": "stop"}, 1),
        ("vllm:time_to_first_token_seconds_bucket", {**MODEL, "le": "0.04"}, 0),
        ("vllm:time_to_first_token_seconds_bucket", {**MODEL, "le": "0.06"}, 1),
        ("vllm:time_to_first_token_seconds_bucket", {**MODEL, "le": "0.1"}, 2),
        ("vllm:inter_token_latency_seconds_count", MODEL, 1),
        ("vllm:e2e_request_latency_seconds_count", MODEL, 2),
        ("vllm:request_queue_time_seconds_count", MODEL, 2),
        ("headrace_requests_total", MODEL, 5),
        ("headrace_cached_prompt_tokens_total", MODEL, 4),
        ("headrace_errors_total", {**MODEL, "code": "engine_failed"}, 1),
        ("gen_ai_server_request_duration_seconds_count", {**GEN_AI, "error_type": ""}, 1),
        (
            "gen_ai_server_request_duration_seconds_bucket",
            {**GEN_AI, "error_type": "engine_failed", "le": "1.28"},
            1,
        ),
        ("gen_ai_server_time_to_first_token_seconds_bucket", {**GEN_AI, "le": "0.04"}, 0),
        ("gen_ai_server_time_to_first_token_seconds_bucket", {**GEN_AI, "le": "0.06"}, 1),
        ("gen_ai_server_time_to_first_token_seconds_count", GEN_AI, 1),
        ("gen_ai_server_time_to_first_token_seconds_sum", COMPLETION, 0.09),
        ("gen_ai_server_time_per_output_token_seconds_sum", GEN_AI, 0.02),
        ("gen_ai_client_token_usage_sum", {**GEN_AI, "gen_ai_token_type": "input"}, 10),
        ("gen_ai_client_token_usage_sum", {**GEN_AI, "gen_ai_token_type": "output"}, 20),
        ("gen_ai_client_token_usage_sum", {**COMPLETION, "gen_ai_token_type": "output"}, 2),
        (
            "gen_ai_client_token_usage_bucket",
            {**GEN_AI, "gen_ai_token_type": "output", "le": "16.0"},
            0,
        ),
        ("headrace_wait_estimate_error_seconds_sum", {**MODEL, "wait": "shorter"}, 0.25),
        ("headrace_wait_estimate_error_seconds_sum", {**MODEL, "wait": "longer"}, 3.0),
        (
            "headrace_wait_estimate_error_seconds_bucket",
            {**MODEL, "wait": "longer", "le": "2.5"},
            0,
        ),
        (
            "headrace_slo_requests_total",
            {**MODEL, "tenant": "shop", "target": "ttft", "met": "true"},
            2,
        ),
        (
            "headrace_slo_requests_total",
            {**MODEL, "tenant": "shop", "target": "tpot", "met": "false"},
            1,
        ),
        ("headrace_replica_in_use", {**MODEL, "replica": "a"}, 5),
        ("headrace_readers", {}, 7),
        ("headrace_store_commits_total", {}, 11),
        ("headrace_gc_pause_seconds_count", {"generation": "2"}, 0),
    ],
)
def test_a_scrape_says_what_was_counted(name: str, labels: dict[str, str], value: float) -> None:
    assert scrape(busy_metrics())[key(name, labels)] == value


def test_an_operation_that_nobody_asked_for_has_no_series() -> None:
    metrics = Metrics()
    metrics.model("m").by_kind()["chat"].admitted_count += 1
    operations = {dict(labels).get("gen_ai_operation_name") for _, labels in scrape(metrics)}
    assert operations == {None, "chat"}


def test_a_number_that_nobody_knows_is_left_out() -> None:
    names = {name for name, _ in scrape(busy_metrics())}
    assert "vllm:kv_cache_usage_perc" not in names
    assert "headrace_connections" not in names


def test_there_are_no_more_labels_of_replicas_than_there_may_be() -> None:
    metrics = Metrics()
    for n in range(REPLICA_LABELS + 3):
        metrics.model("m").watch_replica("places", f"r{n}", lambda: 1)
    labels = {"model_name": "m", "replica": "other"}
    found = scrape(metrics)
    assert found[key("headrace_replica_places", labels)] == 3
    of_replicas = [name for name, _ in found if name == "headrace_replica_places"]
    assert len(of_replicas) == REPLICA_LABELS + 1


def test_the_readme_names_every_metric() -> None:
    metrics = busy_metrics()
    for number in OF_A_MODEL:
        metrics.model("m").watch(number, lambda: 1)
    for number in OF_A_REPLICA:
        metrics.model("m").watch_replica(number, "a", lambda: 1)
    for number in OF_THE_SERVER:
        metrics.watch(number, lambda: 1)
    body = Exposition(metrics).render("text/plain")[1].decode()
    families = text_string_to_metric_families(body)
    names = {f.name + "_total" * (f.type == "counter") for f in families}
    readme = README.read_text()
    ours = {name for name in names if name.startswith(("vllm:", "headrace_", "gen_ai_"))}
    assert {name for name in ours if f"`{name}" not in readme} == set()


def test_the_process_is_measured_too() -> None:
    assert scrape(Metrics())[key("process_resident_memory_bytes")] > 0


def test_openmetrics_is_spoken_to_a_scraper_that_asks_for_it() -> None:
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    content_type, body = Exposition(busy_metrics()).render(accept)
    assert content_type.startswith("application/openmetrics-text")
    families = {family.name: family for family in parse_openmetrics(body.decode())}
    samples = families["vllm:time_to_first_token_seconds"].samples
    assert samples[0].name == "vllm:time_to_first_token_seconds_bucket"


def test_two_servers_in_one_process_do_not_share_numbers() -> None:
    busy_metrics()
    assert key("headrace_requests_total", MODEL) not in scrape(Metrics())


def test_the_json_form_answers_the_first_questions() -> None:
    content_type, body = Exposition(busy_metrics()).render("application/json")
    said = msgspec.json.decode(body)
    assert content_type == "application/json"
    assert said["totals"] == {
        "requests": 5,
        "succeeded": 2,
        "failed": 1,
        "cancelled": 0,
        "prompt_tokens": 11,
        "completion_tokens": 24,
    }
    assert said["failures"] == {"engine_failed": 1}
    assert (said["queue_size"], said["active"]) == (3, 4)
    assert said["last_error"] == {"code": "engine_failed", "message": "the engine died"}
    assert said["last_error_time"] == 1795346282.5
    first = said["latency"]["smollm2-135m"]["time_to_first_token_s"]
    assert first == {"count": 2, "mean": 0.07, "p50": 0.06, "p99": 0.1}


def test_no_error_yet_is_null() -> None:
    said = msgspec.json.decode(Exposition(Metrics()).render("application/json")[1])
    assert (said["last_error"], said["last_error_time"]) == (None, None)


def test_scrapes_stay_whole_while_counters_are_written() -> None:
    metrics = Metrics()
    exposition, stop = Exposition(metrics), threading.Event()

    def write() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            model = metrics.model(f"m{number % 40}")
            model.of("chat").first_token(0.01)
            model.of("chat").finished(f"reason{number % 7}", 0.1, Usage(1, 1))

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for _ in range(5):
            body = exposition.render("text/plain")[1].decode()
            assert list(text_string_to_metric_families(body))
    finally:
        stop.set()
        writer.join()


@pytest.mark.skipif(PROMTOOL is None, reason="promtool (Debian: prometheus) is not installed")
def test_promtool_has_no_complaint_but_the_colons() -> None:
    body = Exposition(busy_metrics()).render("text/plain")[1]
    lint = subprocess.run([str(PROMTOOL), "check", "metrics"], input=body, capture_output=True)
    complaints = [line for line in lint.stderr.decode().splitlines() if "contain ':'" not in line]
    assert complaints == []
