"""The endpoints through a real front: statuses, headers, bodies."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import CANCEL, CONTINUE, Leaving
from headrace.front.limits import Limits

MESSAGES = [{"role": "user", "content": "Hi."}]
CHAT = {"model": "scripted", "messages": MESSAGES}
STREAM = CHAT | {"stream": True}


def ask(kit: Any, method: str, path: str, service: Any = None, **request: Any) -> httpx.Response:
    """One request to a service, by default one that says hello."""
    answers: list[httpx.Response] = []

    async def main() -> None:
        async with kit.talking(service or kit.Service(kit.hello)) as client:
            answers.append(await client.request(method, path, **request))

    kit.run(main())
    return answers[0]


def error_of(answer: httpx.Response) -> dict[str, Any]:
    body = answer.json()
    assert list(body) == ["error"]
    assert list(body["error"]) == ["message", "type", "param", "code"]
    assert answer.headers["content-type"] == "application/json"
    assert answer.headers["x-request-id"]
    return dict(body["error"])


def test_a_chat_is_answered_whole(kit: Any) -> None:
    answer = ask(kit, "POST", "/v1/chat/completions", json=CHAT)

    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "Hello wörld 😀\n"
    assert answer.headers["x-generation-id"].startswith("gen_")
    assert answer.headers["x-request-id"].startswith("req_")
    assert answer.headers["openai-processing-ms"].isdigit()


def test_a_chat_is_answered_as_a_stream(kit: Any) -> None:
    answer = ask(kit, "POST", "/v1/chat/completions", json=STREAM)

    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.text.startswith("retry: 5000\n")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_a_chat_is_answered_in_lines(kit: Any) -> None:
    headers = {"accept": "application/x-ndjson"}
    answer = ask(kit, "POST", "/v1/chat/completions", json=STREAM, headers=headers)

    assert answer.headers["content-type"].startswith("application/x-ndjson")
    chunks = [json.loads(line) for line in answer.text.splitlines()]
    assert chunks[-1]["choices"][0]["finish_reason"] == "stop"


def test_a_log_that_ends_with_an_error_is_an_http_error(kit: Any) -> None:
    def failing(generation: Any) -> None:
        generation.write(kit.token(1, "a"), kit.error(2, "engine_timeout", "Too slow."))

    answer = ask(kit, "POST", "/v1/chat/completions", kit.Service(failing), json=CHAT)

    assert answer.status_code == 504
    assert error_of(answer)["code"] == "engine_timeout"
    assert answer.headers["x-generation-id"]


def test_a_request_id_comes_back_if_it_is_one(kit: Any) -> None:
    good = ask(kit, "GET", "/v1/models", headers={"x-request-id": "my-id:1"})
    bad = ask(kit, "GET", "/v1/models", headers={"x-request-id": "a b"})

    assert good.headers["x-request-id"] == "my-id:1"
    assert bad.headers["x-request-id"].startswith("req_")


@pytest.mark.parametrize(
    ("method", "path", "request_", "status", "code", "param"),
    [
        ("GET", "/nothing", {}, 404, "not_found", None),
        ("GET", "/robots.txt", {}, 404, "not_found", None),
        ("GET", "/v1/models/other", {}, 404, "model_not_found", "model"),
        (
            "POST",
            "/v1/chat/completions",
            {"json": CHAT | {"model": "x"}},
            404,
            "model_not_found",
            "model",
        ),
        ("POST", "/v1/chat/completions", {"content": b""}, 400, "invalid_json", None),
        ("POST", "/v1/chat/completions", {"content": b"{"}, 400, "invalid_json", None),
        ("POST", "/v1/chat/completions", {"content": b"[]"}, 400, "invalid_request", None),
        (
            "POST",
            "/v1/chat/completions",
            {"content": b"{}", "headers": {"content-type": "text/plain"}},
            415,
            "unsupported_media_type",
            None,
        ),
        (
            "POST",
            "/v1/chat/completions",
            {"json": STREAM, "headers": {"accept": "text/html"}},
            406,
            "not_acceptable",
            None,
        ),
        (
            "POST",
            "/v1/chat/completions",
            {"json": CHAT | {"mirostat": 1}},
            400,
            "unsupported_option",
            "mirostat",
        ),
        (
            "POST",
            "/v1/chat/completions",
            {"json": STREAM, "headers": {"last-event-id": "1"}},
            400,
            "invalid_request",
            "X-Generation-Id",
        ),
        ("GET", "/v1/generations/gen_nope", {}, 404, "generation_not_found", None),
        ("GET", "/v1/generations?limit=0", {}, 400, "invalid_request", "limit"),
        ("GET", "/v1/generations?limit=x", {}, 400, "invalid_request", "limit"),
        ("POST", "/v1/abort", {"json": {}}, 400, "invalid_request", "token"),
        ("POST", "/v1/batch_infer", {"json": {"prompt": "x"}}, 400, "invalid_request", None),
        ("POST", "/v1/infer", {"json": {"prompt": ""}}, 400, "invalid_request", "prompt"),
        ("GET", "/metrics", {}, 404, "not_found", None),
    ],
)
def test_a_wrong_request_gets_its_error(
    kit: Any, method: str, path: str, request_: Any, status: int, code: str, param: str | None
) -> None:
    answer = ask(kit, method, path, **request_)

    error = error_of(answer)
    assert (answer.status_code, error["code"], error["param"]) == (status, code, param)
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("X-On-Disconnect", "maybe"),
        ("X-On-Disconnect", "grace"),
        ("X-On-Disconnect", "grace=-1"),
        ("X-On-Disconnect", "grace=99999999"),
        ("X-On-Disconnect", ""),
        ("X-Stream-Events", "tokens"),
        ("X-Stream-Events", ""),
        ("X-Continue-Mode", "slow"),
        ("X-Abort-Token", "x" * 257),
        ("X-Session-ID", ""),
        ("Idempotency-Key", "x" * 300),
    ],
)
def test_a_wrong_header_is_refused_by_name(kit: Any, name: str, value: str) -> None:
    service = kit.Service(kit.hello)
    answer = ask(kit, "POST", "/v1/chat/completions", service, json=STREAM, headers={name: value})

    assert answer.status_code == 400
    assert error_of(answer)["param"] == name
    assert service.generations == []


@pytest.mark.parametrize(
    ("headers", "leaving"),
    [
        ({}, CANCEL),
        ({"X-On-Disconnect": "cancel", "Idempotency-Key": "k"}, CANCEL),
        ({"X-On-Disconnect": "continue"}, CONTINUE),
        ({"X-On-Disconnect": "Grace=2.5"}, Leaving(2.5)),
        ({"Idempotency-Key": "k"}, Leaving(30.0)),
        ({"X-Stream-Events": "token"}, Leaving(30.0)),
    ],
)
def test_the_headers_say_what_becomes_of_a_generation_without_client(
    kit: Any, headers: dict[str, str], leaving: Leaving
) -> None:
    service = kit.Service(kit.hello)
    ask(kit, "POST", "/v1/chat/completions", service, json=STREAM, headers=headers)

    assert service.generations[0].caller.leaving == leaving


def test_the_caller_knows_its_session_abort_token_and_mode(kit: Any) -> None:
    service = kit.Service(kit.hello)
    headers = {
        "X-Session-ID": "s1",
        "X-Abort-Token": "a1",
        "X-Continue-Mode": "exact",
        "X-Request-ID": "r1",
    }
    ask(kit, "POST", "/v1/chat/completions", service, json=CHAT, headers=headers)
    ask(kit, "POST", "/v1/chat/completions", service, json=CHAT | {"session_id": "s2"})

    caller = service.generations[0].caller
    assert (caller.session_id, caller.abort_token, caller.exact) == ("s1", "a1", True)
    assert caller.request_id == "r1"
    assert service.generations[1].caller.session_id == "s2"


def test_a_key_names_the_tenant_and_no_key_is_401(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys={"sk-1": "alice"})
        async with kit.talking(service) as client:
            refused = await client.post("/v1/chat/completions", json=CHAT)
            assert refused.status_code == 401
            assert refused.headers["www-authenticate"].startswith("Bearer ")
            assert error_of(refused)["type"] == "authentication_error"
            headers = {"authorization": "bearer sk-1"}
            answer = await client.post("/v1/chat/completions", json=CHAT, headers=headers)
            assert answer.status_code == 200
            assert service.generations[0].caller.tenant == "alice"
            assert (await client.get("/livez")).status_code == 200
            assert (await client.get("/openapi.json")).status_code == 200

    kit.run(main())


def test_another_tenants_generation_is_not_found(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys={"sk-1": "alice", "sk-2": "bob"})
        async with kit.talking(service) as client:
            alice, bob = {"authorization": "Bearer sk-1"}, {"authorization": "Bearer sk-2"}
            await client.post("/v1/chat/completions", json=CHAT, headers=alice)
            path = f"/v1/generations/{service.generations[0].id}"
            assert (await client.get(path, headers=alice)).status_code == 200
            for tail in ("", "/events"):
                assert (await client.get(path + tail, headers=bob)).status_code == 404
            assert (await client.post(path + "/cancel", headers=bob)).status_code == 404
            assert (await client.get("/v1/generations", headers=bob)).json()["data"] == []

    kit.run(main())


def test_a_method_that_is_not_allowed_says_which_are(kit: Any) -> None:
    answer = ask(kit, "DELETE", "/v1/models")

    assert answer.status_code == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"
    assert error_of(answer)["code"] == "method_not_allowed"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/responses/compact"),
        ("DELETE", "/v1/generations/all"),
        ("POST", "/v1/responses/r/compact"),
    ],
)
def test_an_operation_that_is_not_there_is_404_though_ids_have_other_verbs(
    kit: Any, method: str, path: str
) -> None:
    assert error_of(ask(kit, method, path))["code"] == "not_found"
    id = "/v1/responses/resp_01000000000000000000000000"
    assert ask(kit, "POST", id).headers["allow"] == "DELETE, GET, HEAD, OPTIONS"


def test_what_the_front_refuses_is_said_as_the_api_of_that_path_says_errors(kit: Any) -> None:
    async def main() -> None:
        limits = Limits(body_bytes=100)
        page = "http://page"
        headers = {"x-request-id": "mine", "origin": page, "content-type": "application/json"}
        options: Any = {"limits": limits, "cors_origins": (page,)}
        async with kit.talking(kit.Service(kit.hello), **options) as client:
            for path in ("/v1/messages", "/v1/messages/count_tokens", "/v1/messages/batches"):
                answer = await client.post(path, content=b"x" * 101, headers=headers)
                assert answer.status_code == 413
                assert answer.json()["type"] == "error"
                assert answer.json()["error"]["type"] == "request_too_large"
                assert answer.json()["request_id"] == "mine"
                assert answer.headers["request-id"] == answer.headers["x-request-id"] == "mine"
                assert answer.headers["access-control-allow-origin"] == page
            answer = await client.post("/v1/responses", content=b"x" * 101, headers=headers)
            assert error_of(answer)["code"] == "body_too_large"
            assert answer.headers["x-should-retry"] == "false"
            assert answer.headers["access-control-allow-origin"] == page
            long = await client.post("/v1/messages", headers={"x-long": "y" * 70_000})
            assert (long.status_code, long.json()["error"]["type"]) == (
                431,
                "invalid_request_error",
            )

    kit.run(main())


def test_a_wrong_verb_and_a_missing_path_are_said_so_too(kit: Any) -> None:
    for method, path, status in (
        ("GET", "/v1/messages", 405),
        ("POST", "/v1/messages/batches", 404),
    ):
        answer = ask(kit, method, path)
        assert (answer.status_code, answer.json()["type"]) == (status, "error")
        assert answer.headers["request-id"]


def test_head_is_get_without_the_body(kit: Any) -> None:
    answer = ask(kit, "HEAD", "/v1/models")

    assert (answer.status_code, answer.content) == (200, b"")


def test_options_says_what_is_allowed(kit: Any) -> None:
    answer = ask(kit, "OPTIONS", "/v1/chat/completions")

    assert (answer.status_code, answer.headers["allow"]) == (204, "OPTIONS, POST")
    assert "access-control-allow-origin" not in answer.headers


def test_a_page_must_say_that_it_sends_json_so_that_its_browser_asks_first(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            body = b'{"model": "scripted", "messages": [{"role": "user", "content": "x"}]}'
            page = {"origin": "https://evil.example"}
            path = "/v1/chat/completions"
            assert (await client.post(path, content=body, headers=page)).status_code == 415
            assert not service.generations
            assert (await client.post(path, content=body)).status_code == 200
            page["content-type"] = "application/json"
            assert (await client.post(path, content=body, headers=page)).status_code == 200

    kit.run(main())


@pytest.mark.parametrize("configured", ["https://a.example", "*"])
def test_pages_of_configured_origins_may_ask(kit: Any, configured: str) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service, cors_origins=(configured,)) as client:
            headers = {
                "origin": "https://a.example",
                "access-control-request-method": "POST",
                "access-control-request-headers": "authorization, x-on-disconnect",
            }
            preflight = await client.options("/v1/chat/completions", headers=headers)
            allowed = "*" if configured == "*" else "https://a.example"
            assert preflight.headers["access-control-allow-origin"] == allowed
            assert preflight.headers["access-control-allow-methods"] == "OPTIONS, POST"
            assert "x-on-disconnect" in preflight.headers["access-control-allow-headers"]
            answer = await client.get("/v1/nothing", headers={"origin": "https://a.example"})
            assert answer.headers["access-control-allow-origin"] == allowed
            assert "x-generation-id" in answer.headers["access-control-expose-headers"]
            other = await client.get("/v1/models", headers={"origin": "https://b.example"})
            assert ("access-control-allow-origin" in other.headers) == (configured == "*")

    kit.run(main())


def test_models_are_listed_with_their_aliases(kit: Any) -> None:
    listed = ask(kit, "GET", "/v1/models").json()
    one = ask(kit, "GET", "/v1/models/org/nick").json()
    info = ask(kit, "GET", "/v1/model_info?model=nick").json()

    assert [model["id"] for model in listed["data"]] == ["scripted", "nick", "org/nick"]
    assert (one["id"], one["root"], one["object"]) == ("org/nick", "scripted", "model")
    for field in ("name", "version", "type", "parameters", "max_tokens", "created_at"):
        assert field in info
    assert info["name"] == "scripted"


def test_health_says_why_it_cannot_serve(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.talking(service) as client:
            for path in ("/health", "/readyz", "/livez", "/ping"):
                answer = await client.get(path)
                assert (answer.status_code, answer.json()["status"]) == (200, "ok")
                assert isinstance(answer.json()["time"], float)
            service.ready = (False, "loading the model")
            for path in ("/health", "/readyz"):
                answer = await client.get(path)
                assert answer.status_code == 503
                assert answer.json()["reason"] == "loading the model"
                assert answer.headers["retry-after"] == "1"
            assert (await client.get("/livez")).status_code == 200

    kit.run(main())


def test_metrics_are_what_the_app_gives(kit: Any) -> None:
    async def main() -> None:
        def metrics(accept: str) -> tuple[str, bytes]:
            return ("application/json", b"{}") if "json" in accept else ("text/plain", b"up 1\n")

        async with kit.talking(kit.Service(kit.hello), metrics=metrics, version="9") as client:
            text = await client.get("/metrics")
            assert (text.headers["content-type"], text.text) == ("text/plain", "up 1\n")
            as_json = await client.get("/metrics", headers={"accept": "application/json"})
            assert as_json.json() == {}
            assert (await client.get("/version")).json() == {"name": "headrace", "version": "9"}

    kit.run(main())


def test_a_fault_of_ours_is_a_500_and_logged_once_with_the_request_id(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(generation: Any) -> None:
        raise ZeroDivisionError

    headers = {"x-request-id": "find-me"}
    answer = ask(
        kit, "POST", "/v1/chat/completions", kit.Service(broken), json=CHAT, headers=headers
    )

    assert answer.status_code == 500
    assert error_of(answer)["code"] == "internal"
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert "find-me" in caplog.records[0].getMessage()


def test_retry_hints_are_those_that_the_sdks_read(kit: Any) -> None:
    def full(generation: Any) -> None:
        raise HeadraceError(Code.QUEUE_FULL, "Full.", retry_after_s=0.25)

    answer = ask(kit, "POST", "/v1/chat/completions", kit.Service(full), json=CHAT)

    assert answer.status_code == 503
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["retry-after-ms"] == "250"
    assert answer.headers["retry-after"] == "1"


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize(
    ("path", "asked"),
    [
        ("/v1/chat/completions", {"messages": MESSAGES}),
        ("/v1/completions", {"prompt": "Hi."}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 5}),
        ("/v1/responses", {"input": "Hi."}),
    ],
)
def test_who_waited_and_was_refused_then_hears_when_to_come_again(
    kit: Any, path: str, asked: dict[str, Any], stream: bool
) -> None:
    def shed(generation: Any) -> None:
        generation.write(kit.error(1, "queue_full", "Shed.", 6.2501))

    body = {"model": "scripted", "stream": stream} | asked
    answer = ask(kit, "POST", path, kit.Service(shed), json=body)

    assert answer.status_code in (503, 529)
    assert answer.headers["x-should-retry"] == "true"
    assert answer.headers["retry-after-ms"] == "6251"
    assert answer.headers["retry-after"] == "7"


@pytest.mark.parametrize(("path", "status"), [("/v1/infer", 408), ("/v1/stream_infer", 200)])
def test_the_native_api_says_when_to_come_again_too(kit: Any, path: str, status: int) -> None:
    def shed(generation: Any) -> None:
        generation.write(kit.progress(1), kit.error(2, "queue_timeout", "Late.", 6.25))

    answer = ask(kit, "POST", path, kit.Service(shed), json={"prompt": "Hi."})

    assert answer.status_code == status
    if status == 200:  # what its streams show first is where it stands
        assert '"retryable":true,"retry_after_s":6.25}' in answer.text
    else:
        assert answer.headers["retry-after-ms"] == "6250"


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_is_noticed(kit: Any, stream: bool) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with kit.serving(service) as url:
            host, port = url.removeprefix("http://").split(":")
            _, writer = await asyncio.open_connection(host, int(port))
            body = json.dumps(CHAT | {"stream": stream}).encode()
            writer.write(
                b"POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n%b"
                % (len(body), body)
            )
            generation = await service.generation(0)
            await generation.attached.wait()
            writer.close()
            await generation.left.wait()
            assert generation.clients == 0

    kit.run(main())
