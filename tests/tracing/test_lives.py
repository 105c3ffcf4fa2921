"""What a generation lives through is in its trace, and whoever comes to it later is led there."""

from __future__ import annotations

import secrets
import signal
from collections.abc import Iterator
from typing import Any, NamedTuple

import httpx
import pytest
from tests.tracing.arena import Collector, Server, collecting

SCRIPT = """
[[scripts]]
when = "hang"
tokens = ["The "]
hang_after = 1
[[scripts]]
when = "slow"
tokens = ["The ", "mill ", "turns."]
delay_ms = 300
[[scripts]]
tokens = ["The ", "mill ", "turns."]
"""


class Mill(NamedTuple):
    """A server that records everything, and what its collector got."""

    server: Server
    collector: Collector

    def ask(self, method: str, path: str, headers: dict[str, str], **body: Any) -> httpx.Response:
        return httpx.request(
            method, self.server.url + path, headers=headers, json=body or None, timeout=30
        )

    def stream(self, headers: dict[str, str], content: str) -> Any:
        body = chat(content) | {"stream": True}
        url = f"{self.server.url}/v1/chat/completions"
        return httpx.stream("POST", url, headers=headers, json=body, timeout=30)


@pytest.fixture(scope="module")
def mill(tmp_path_factory) -> Iterator[Mill]:
    folder = tmp_path_factory.mktemp("lives")
    (folder / "script.toml").write_text(SCRIPT)
    model = f'engine = "scripted"\nscript = "{folder / "script.toml"}"'
    with collecting() as collector:
        server = Server(folder, model, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url})
        server.start()
        yield Mill(server, collector)
        server.end()


def chat(content: str) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


def trace() -> tuple[str, dict[str, str]]:
    """A client's trace: its id, its header."""
    number = secrets.token_hex(16)
    return number, {"traceparent": f"00-{number}-{secrets.token_hex(8)}-01"}


def test_a_prompt_in_mid_stream_ends_an_attempt_and_begins_another(mill: Mill) -> None:
    begun, headers = trace()
    added, later = trace()
    with mill.stream(headers, "slow") as answer:
        lines = answer.iter_lines()
        next(line for line in lines if "The" in line)
        generation_id = answer.headers["x-generation-id"]
        path = f"/v1/generations/{generation_id}/prompts"
        assert mill.ask("POST", path, later, role="user", content="And?").status_code == 200
        assert "data: [DONE]" in list(lines)
    _, generation, _, first, second = mill.collector.trace(begun, 5)
    assert (first.name, second.name) == ("attempt", "attempt")
    assert first.parent == second.parent == generation.id
    assert first.end <= second.start
    assert generation.events == ["first_token", "prompt"]
    assert not any(span.failed or "error.type" in span.attributes for span in (first, generation))
    (prompt,) = mill.collector.trace(added, 1)
    assert prompt.name == "POST /v1/generations/{id}/prompts"
    assert prompt.links == [(begun, generation.id)]


def test_what_is_cancelled_ends_without_a_fault(mill: Mill) -> None:
    begun, headers = trace()
    ended, later = trace()
    with mill.stream(headers, "hang") as answer:
        lines = answer.iter_lines()  # dropping them would mean leaving
        next(line for line in lines if "The" in line)
        path = f"/v1/generations/{answer.headers['x-generation-id']}/cancel"
        assert mill.ask("POST", path, later).status_code == 200
    _, generation, _, attempt = mill.collector.trace(begun, 4)
    assert attempt.attributes["error.type"] == generation.attributes["error.type"] == "cancelled"
    assert [attempt.failed, generation.failed] == [False, False]
    (cancel,) = mill.collector.trace(ended, 1)
    assert cancel.links == [(begun, generation.id)]


def test_reading_later_leads_to_the_trace_of_the_request_that_began(mill: Mill) -> None:
    begun, headers = trace()
    answer = mill.ask("POST", "/v1/chat/completions", headers, **chat("hello"))
    request = mill.collector.trace(begun, 4)[0]
    read, later = trace()
    path = f"/v1/generations/{answer.headers['x-generation-id']}/events"
    assert mill.ask("GET", path, later).status_code == 200
    (reading,) = mill.collector.trace(read, 1)
    assert reading.links == [(begun, request.id)]


def test_what_nobody_recorded_is_not_led_to(mill: Mill) -> None:
    silent = {"traceparent": f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"}
    answer = mill.ask("POST", "/v1/chat/completions", silent, **chat("hello"))
    read, later = trace()
    mill.ask("GET", f"/v1/generations/{answer.headers['x-generation-id']}", later)
    (reading,) = mill.collector.trace(read, 1)
    assert reading.links == []


def test_a_response_leads_to_the_one_before_it(mill: Mill) -> None:
    begun, headers = trace()
    before = mill.ask("POST", "/v1/responses", headers, model="m", input="hello").json()["id"]
    request = mill.collector.trace(begun, 4)[0]
    followed, later = trace()
    body = {"model": "m", "input": "and?", "previous_response_id": before}
    assert mill.ask("POST", "/v1/responses", later, **body).status_code == 200
    assert mill.collector.trace(followed, 4)[0].links == [(begun, request.id)]


def test_a_run_that_breaks_in_mid_stream_is_a_failed_attempt(
    serve, http_collector, upstream
) -> None:
    upstream.cut = 1
    replica = f'[[models.replicas]]\nurl = "{upstream.url}"\ndialect = "vllm"\n'
    server = serve(
        f'engine = "openai"\n{replica}{replica}', OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url
    )
    begun, headers = trace()
    said = {**headers, "tracestate": "a=b", "baggage": "user=7"}
    answer = server.ask(said, stream=True)
    assert answer.text.endswith("data: [DONE]\n\n"), answer.text
    spans = http_collector.trace(begun, 6)
    (generation,) = [span for span in spans if span.name == "chat m"]
    broken, whole = [span for span in spans if span.name == "attempt"]
    assert broken.parent == whole.parent == generation.id
    assert (broken.failed, broken.attributes["error.type"]) == (True, "engine_failed")
    assert broken.events == ["first_token"]
    assert [whole.failed, generation.failed] == [False, False]
    assert broken.end <= whole.start
    assert generation.events == ["first_token", "moved"]
    for told, attempt in zip(upstream.headers, (broken, whole), strict=True):
        assert told["traceparent"] == f"00-{begun}-{attempt.id}-01"
        assert (told["tracestate"], told["baggage"]) == ("a=b", "user=7")


def test_a_response_in_the_background_goes_on_in_its_trace_after_kill_9(
    serve, http_collector, tmp_path
) -> None:
    (tmp_path / "script.toml").write_text(SCRIPT)
    model = f'engine = "scripted"\nscript = "{tmp_path / "script.toml"}"'
    server = serve(model, OTEL_EXPORTER_OTLP_ENDPOINT=http_collector.url)
    mill = Mill(server, http_collector)
    begun, headers = trace()
    body = {"model": "m", "input": "slow", "background": True}
    response = mill.ask("POST", "/v1/responses", headers, **body).json()["id"]
    (request,) = http_collector.wait(
        lambda: [s for s in http_collector.spans if s.kind == "server"]
    )
    left, gone = trace()
    with mill.stream(gone, "hang") as answer:
        lines = answer.iter_lines()  # dropping them would mean leaving
        next(line for line in lines if "The" in line)
        server.end(signal.SIGKILL)

    server.start()
    read, later = trace()
    path = f"/v1/responses/{response}?stream=true"
    assert "response.completed" in mill.ask("GET", path, later).text
    # The queue before its end, and the generation that goes on, as a child of the request that began it.
    spans = http_collector.wait(lambda: _named(http_collector, begun, "chat m"))
    (again,) = spans
    assert (again.parent, again.attributes["headrace.recovered"]) == (request.id, True)
    (reading,) = http_collector.trace(read, 1)
    assert reading.links == [(begun, again.id)]

    # What nobody goes on with has its end in its trace, too.
    (cut_off,) = http_collector.wait(lambda: _named(http_collector, left, "chat m"))
    assert (cut_off.failed, cut_off.attributes["error.type"]) == (True, "interrupted")
    assert cut_off.attributes["gen_ai.response.id"] == answer.headers["x-generation-id"]
    assert cut_off.start < again.start < cut_off.end + 30e9


def _named(collector: Collector, trace: str, name: str) -> list[Any]:
    return [span for span in collector.spans if (span.trace, span.name) == (trace, name)]
