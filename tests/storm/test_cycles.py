"""Answers leave no reference cycles behind: the garbage collector has nothing to find."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.storm.arena import Crowd, Watched, traced
from tests.storm.storms import FRONT, UPSTREAM, quiet

SHORT = """
[[scripts]]
when = "mill"
repeat = 100
tokens = ["The ", "mill ", "turns ", "slowly. "]
delay_ms = 250
[[scripts]]
tokens = ["The ", "mill ", "turns ", "slowly. "]
delay_ms = 1
"""
CHAT = {"messages": [{"role": "user", "content": "hello"}]}
WAYS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": CHAT,
    "/v1/completions": {"prompt": "hello"},
    "/v1/infer": {"prompt": "hello"},
    "/v1/stream_infer": {"prompt": "hello"},
    "/v1/responses": {"input": "hello"},
    "/v1/messages": CHAT | {"max_tokens": 99},
}
REQUESTS = 200
NEARLY_NONE = 20
"""Objects, of all requests together: what the standard library leaves now and then."""


@pytest.fixture(scope="module", params=[False, True], ids=["", "traced"])
def front(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Watched]:
    """A server that collects no garbage by itself, with an engine of its own and an upstream."""
    folder = tmp_path_factory.mktemp("cycles")
    with traced(request.param) as environment:
        upstream = Watched(folder, "upstream", UPSTREAM, script=SHORT)
        models = FRONT.format(url=upstream.url)
        server = Watched(folder, "front", models, "--no-gc", script=SHORT, environment=environment)
        try:
            upstream.wait_ready()
            server.wait_ready()
            yield server
        finally:
            server.stop()
            upstream.stop()


def ask(front: Watched, model: str, count: int) -> None:
    """Whole answers and streams of every kind, one after the other on one connection."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    for number in range(count):
        path = list(WAYS)[number % len(WAYS)]
        body = WAYS[path] | {"model": model}
        if not path.endswith("infer"):
            body |= {"stream": number // len(WAYS) % 2 == 0}
        connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        assert b"slowly" in answer
    connection.close()


@pytest.mark.parametrize("model", ["near", "far"])
def test_answers_leave_no_reference_cycles(front: Watched, model: str) -> None:
    ask(front, model, 8)
    quiet(front)
    front.garbage()

    ask(front, model, REQUESTS)
    quiet(front)

    found = front.garbage()
    assert sum(found.values()) <= NEARLY_NONE, found


UNKNOWN = "01M8AMS68SQD6SFHQQYRP72VXZ"
MISTAKES: list[tuple[str, str, Any]] = [
    ("GET", "/v1/generations/none", None),
    ("GET", f"/v1/generations/gen_{UNKNOWN}", None),
    ("GET", f"/v1/generations/gen_{UNKNOWN}/events", None),
    ("GET", f"/v1/responses/resp_{UNKNOWN}", None),
    ("GET", "/v1/generations/{id}/events?after=99", None),
    ("GET", "/v1/generations/{id}/events?format=none", None),
    ("POST", "/v1/generations/{id}/prompts", {"role": "user", "content": "late"}),
    ("POST", "/v1/generations/{id}/prompts", {"role": "nobody"}),
    ("POST", "/v1/chat/completions", CHAT | {"model": "none"}),
    ("POST", "/v1/chat/completions", CHAT | {"model": "near", "unheard_of": 1}),
    ("POST", "/v1/chat/completions", {"model": "near"}),
    ("POST", "/v1/messages", CHAT | {"model": "near"}),
    ("POST", "/v1/responses", {"model": "near", "input": []}),
    ("POST", "/tokenize", {"content": "a"}),
    ("PUT", "/v1/models", {}),
    ("GET", "/none", None),
]


def err(front: Watched, id: str, count: int) -> None:
    """So many mistakes, which all are refused."""
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    for number in range(count):
        method, path, body = MISTAKES[number % len(MISTAKES)]
        sent = None if body is None else json.dumps(body)
        headers = {"Content-Type": "application/json"}
        connection.request(method, path.format(id=id), sent, headers)
        response = connection.getresponse()
        answer = response.read()
        assert 400 <= response.status < 500, answer
    connection.close()


def test_mistakes_leave_no_reference_cycles(front: Watched) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", front.port, timeout=30)
    connection.request("POST", "/v1/infer", json.dumps({"prompt": "a", "model": "near"}))
    response = connection.getresponse()
    id = json.loads(response.read())["id"]
    connection.close()
    err(front, id, len(MISTAKES))
    quiet(front)
    front.garbage()

    err(front, id, 10 * len(MISTAKES))
    quiet(front)

    found = front.garbage()
    assert sum(found.values()) <= NEARLY_NONE, found


@pytest.mark.parametrize("model", ["near", "far"])
def test_clients_that_leave_leave_no_reference_cycles(front: Watched, model: str) -> None:
    for count in (8, REQUESTS):
        crowd = Crowd(front.port, [model], count)
        wrong = crowd.until_mid_stream()
        crowd.leave()
        assert wrong == []
        quiet(front)
        found = front.garbage()

    assert sum(found.values()) <= NEARLY_NONE, found
