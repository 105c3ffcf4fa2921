"""gRPC-Web and Connect on the HTTP port, byte by byte; the real clients are in ``tests/clients``."""

from __future__ import annotations

import gzip
import json
from base64 import b64decode, b64encode, urlsafe_b64encode
from typing import Any

import httpx
import pytest

from headrace.domain.errors import Code, HeadraceError

SERVICE = "/headrace.v1.InferenceService/"
WEB = "application/grpc-web+proto"


def envelope(data: bytes, flags: int = 0) -> bytes:
    return bytes([flags]) + len(data).to_bytes(4, "big") + data


def opened(body: bytes) -> list[tuple[int, bytes]]:
    found = []
    while body:
        size = int.from_bytes(body[1:5], "big")
        found.append((body[0], body[5 : 5 + size]))
        body = body[5 + size :]
    return found


def status(trailers: bytes) -> dict[str, str]:
    return dict(line.split(": ", 1) for line in trailers.decode().split("\r\n") if line)


async def post(client: Any, method: str, body: bytes, kind: str, **headers: str) -> httpx.Response:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    answer: httpx.Response = await client.post(
        SERVICE + method, content=body, headers={"content-type": kind, **named}
    )
    return answer


def talking(kit: Any, rpc: Any, service: Any, **options: Any) -> Any:
    return kit.talking(service, more=rpc.Serving(service, 100_000).routes, **options)


def test_one_answer_and_its_trailers_are_in_one_body(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with talking(kit, rpc, service) as client:
            body = envelope(rpc.pb.InferRequest(prompt="Hi").SerializeToString())
            answer = await post(client, "Infer", body, WEB, x_request_id="mine")
        assert answer.status_code == 200
        assert answer.headers["content-type"] == WEB
        assert answer.headers["x-request-id"] == "mine"
        assert answer.headers["x-generation-id"] == service.generations[0].id
        (flags, message), (last, trailers) = opened(answer.content)
        assert (flags, last) == (0, 0x80)
        assert rpc.pb.InferResponse.FromString(message).text == "Hello wörld 😀\n"
        assert status(trailers) == {"grpc-status": "0"}

    kit.run(main())


def test_a_stream_in_text_mode(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            whole = envelope(start.SerializeToString())
            body = b64encode(whole[:4]) + b64encode(whole[4:])  # padded in the middle
            answer = await post(client, "StreamInfer", body, "application/grpc-web-text")
        assert answer.headers["content-type"] == "application/grpc-web-text"
        groups = [answer.content[at : at + 4] for at in range(0, len(answer.content), 4)]
        *messages, (last, trailers) = opened(b"".join(map(b64decode, groups)))
        events = [rpc.pb.Event.FromString(message) for _, message in messages]
        assert [event.seq for event in events] == [1, 2, 3, 4, 5]
        assert (last, status(trailers)["grpc-status"]) == (0x80, "0")

    kit.run(main())


def test_an_error_is_in_the_trailers(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            raise HeadraceError(Code.QUEUE_FULL, "Zu voll:\n100 %", retry_after_s=1.0)

        service = kit.Service(script, keys={"k": "acme"})
        async with talking(kit, rpc, service) as client:
            body = envelope(rpc.pb.InferRequest(prompt="Hi").SerializeToString())
            closed = await post(client, "Infer", body, WEB)
            answer = await post(client, "Infer", body, WEB, x_api_key="k")
        ((_, trailers),) = opened(closed.content)
        assert status(trailers)["grpc-status"] == "16"
        ((_, trailers),) = opened(answer.content)
        said = status(trailers)
        assert (said["grpc-status"], said["grpc-message"]) == ("14", "Zu voll:%0A100 %25")
        assert (said["headrace-code"], said["retry-after-ms"]) == ("queue_full", "1000")
        detail = said["grpc-status-details-bin"]
        details = rpc.pb.StatusDetails.FromString(b64decode(detail + "=" * (-len(detail) % 4)))
        assert details.code == 14

    kit.run(main())


@pytest.mark.parametrize("kind", [WEB, "application/connect+proto"])
def test_a_deadline_ends_the_call_and_the_client_has_left(kit: Any, rpc: Any, kind: str) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with talking(kit, rpc, service) as client:
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            body = envelope(start.SerializeToString())
            limit = {"grpc_timeout": "50m"} if kind == WEB else {"connect_timeout_ms": "50"}
            answer = await post(client, "StreamInfer", body, kind, **limit)
            bad = await post(client, "StreamInfer", body, WEB, grpc_timeout="soon")
        first, (_, end) = opened(answer.content)
        assert rpc.pb.Event.FromString(first[1]).token.text == "a"
        if kind == WEB:
            assert status(end)["grpc-status"] == "4"
        else:
            assert json.loads(end)["error"]["code"] == "deadline_exceeded"
        assert service.generations[0].left.is_set()
        assert status(opened(bad.content)[0][1])["grpc-status"] == "3"
        assert len(service.generations) == 1

    kit.run(main())


def test_a_client_that_leaves_is_known_to_the_log(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with talking(kit, rpc, service) as client:
            for method, message in (
                ("Infer", rpc.pb.InferRequest(prompt="Hi")),
                ("StreamInfer", rpc.pb.StreamInferRequest(infer={"prompt": "Hi"})),
            ):
                body = envelope(message.SerializeToString())
                with pytest.raises(httpx.ReadTimeout):
                    await client.post(
                        SERVICE + method, content=body, headers={"content-type": WEB}, timeout=0.3
                    )
                await service.generations[-1].left.wait()

    kit.run(main())


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "3"),
        (b"\0\0\0", "3"),
        (b"\0\0\0\0\x09abc", "3"),
        (envelope(b"\xff\xff"), "3"),
        (envelope(b"") * 2, "3"),
        (envelope(b"abc", 1), "3"),
    ],
)
def test_a_body_that_is_no_message_is_refused(kit: Any, rpc: Any, body: bytes, code: str) -> None:
    async def main() -> None:
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            answer = await post(client, "Infer", body, WEB)
        ((_, trailers),) = opened(answer.content)
        assert status(trailers)["grpc-status"] == code

    kit.run(main())


def test_other_content_types_are_refused_in_words(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            for kind in ("application/grpc", "text/plain", "application/connect+json"):
                answer = await post(client, "Infer", b"{}", kind)
                assert answer.status_code == 415
            unknown = await post(client, "Nothing", b"", WEB)
            assert unknown.status_code == 404  # which gRPC-Web takes for UNIMPLEMENTED
            assert (await client.get(SERVICE + "Infer")).status_code == 405

    kit.run(main())


def test_connect_is_plain_json(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            kind = "application/json"
            answer = await post(client, "Infer", b'{"prompt": "Hi", "maxTokens": 3}', kind)
            assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
            assert answer.json()["finishReason"] == "stop"
            wrong = await post(client, "Infer", b'{"prompt": "Hi", "model": "x"}', kind)
            assert (wrong.status_code, wrong.json()["code"]) == (404, "not_found")
            assert wrong.json()["details"][0]["type"] == "headrace.v1.Error"
            bad = await post(client, "Infer", b'{"promt": 1}', kind)
            assert (bad.status_code, bad.json()["code"]) == (400, "invalid_argument")

    kit.run(main())


def test_json_of_too_many_values_is_refused_before_it_is_read(kit: Any, rpc: Any) -> None:
    """Reading it would take seconds, for which everybody waits. Commas in a text are none."""

    async def main() -> None:
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            kind = "application/json"
            many = b'{"requests": [' + b",".join([b"{}"] * 70_000) + b"]}"
            answer = await post(client, "BatchInfer", many, kind)
            assert (answer.status_code, answer.json()["code"]) == (429, "resource_exhausted")
            text = json.dumps({"prompt": "a, " * 70_000}).encode()
            assert (await post(client, "Infer", text, kind)).status_code == 200

    kit.run(main())


def test_a_connect_stream_ends_with_its_error_in_json(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            generation.write(kit.token(1, "a"), kit.error(2))

        async with talking(kit, rpc, kit.Service(script)) as client:
            body = envelope(b'{"infer": {"prompt": "Hi"}}')
            answer = await post(client, "StreamInfer", body, "application/connect+json")
        (_, token), (_, error), (flags, end) = opened(answer.content)
        assert json.loads(token)["token"] == {"text": "a"}
        assert json.loads(error)["error"]["code"] == "engine_failed"
        assert flags == 2
        assert json.loads(end)["error"]["code"] == "unavailable"
        assert json.loads(end)["metadata"]["headrace-code"] == ["engine_failed"]

    kit.run(main())


TEXT = "Hi. " * 100


def test_messages_may_come_as_gzip(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        message = gzip.compress(rpc.pb.InferRequest(prompt=TEXT).SerializeToString())
        plain_json = gzip.compress(json.dumps({"prompt": TEXT}).encode())
        start = gzip.compress(json.dumps({"infer": {"prompt": TEXT}}).encode())
        stream = "application/connect+json"
        async with talking(kit, rpc, service) as client:
            for method, body, kind, header in (
                ("Infer", envelope(message, 1), WEB, "grpc_encoding"),
                ("Infer", message, "application/proto", "content_encoding"),
                ("Infer", plain_json, "application/json", "content_encoding"),
                ("StreamInfer", envelope(start, 1), stream, "connect_content_encoding"),
            ):
                answer = await post(client, method, body, kind, **{header: "gzip"})
                accepts = header.replace("content_encoding", "encoding").replace("_", "-")
                accepts = accepts.replace("encoding", "accept-encoding")
                assert answer.headers[accepts] == "gzip"
                assert answer.headers.get("content-encoding") is None
            plain = envelope(rpc.pb.InferRequest(prompt=TEXT).SerializeToString())
            await post(
                client, "Infer", plain, WEB, grpc_encoding="gzip"
            )  # a small one is not compressed
        assert [one.request.prompts for one in service.generations] == [(TEXT,)] * 5

    kit.run(main())


@pytest.mark.parametrize(
    ("data", "coding", "code"),
    [
        (b"abc", "gzip", "invalid_argument"),
        (gzip.compress(b"{}")[:-1], "gzip", "invalid_argument"),
        (gzip.compress(b" " * 100_001), "gzip", "resource_exhausted"),
        (gzip.compress(b"{}") + gzip.compress(b""), "gzip", "invalid_argument"),
        (b"{}", "br", "unimplemented"),
    ],
)
def test_what_cannot_be_decompressed_is_refused_and_never_held_whole(
    kit: Any, rpc: Any, data: bytes, coding: str, code: str
) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with talking(kit, rpc, service) as client:
            kind = "application/json"
            answer = await post(client, "Infer", data, kind, content_encoding=coding)
            assert (answer.json()["code"], answer.headers["accept-encoding"]) == (code, "gzip")
            if coding != "gzip":
                answer = await post(client, "Infer", envelope(data), WEB, grpc_encoding=coding)
                ((_, trailers),) = opened(answer.content)
                assert status(trailers)["grpc-status"] == "12"
                assert answer.headers["grpc-accept-encoding"] == "gzip"
        assert service.generations == []

    kit.run(main())


def test_all_compressed_messages_of_a_call_are_bounded_together(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        large = rpc.pb.ConverseRequest(infer=rpc.pb.InferRequest(prompt="x" * 60_000))
        body = envelope(gzip.compress(large.SerializeToString()), 1) * 2
        async with talking(kit, rpc, service) as client:
            answer = await post(client, "Converse", body, WEB, grpc_encoding="gzip")
        ((_, trailers),) = opened(answer.content)
        assert status(trailers)["headrace-code"] == "body_too_large"
        assert service.generations == []

    kit.run(main())


def test_what_changes_nothing_may_be_got(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys={"k": "acme"})
        path = SERVICE + "GetModelInfo"
        binary = rpc.pb.GetModelInfoRequest(model="nick").SerializeToString()
        forms = [
            {"encoding": "json", "message": '{"model": "nick"}'},
            {"encoding": "proto", "base64": "1", "message": urlsafe_b64encode(binary).decode()},
            {"encoding": "proto", "message": binary.decode("latin-1")},
            {
                "encoding": "json",
                "base64": "1",
                "compression": "gzip",
                "message": urlsafe_b64encode(gzip.compress(b"{}")).rstrip(b"=").decode(),
            },
        ]
        key = {"x-api-key": "k"}
        async with talking(kit, rpc, service) as client:
            for form in forms:
                answer = await client.get(path, params={"connect": "v1"} | form, headers=key)
                kind = f"application/{form['encoding']}"
                assert (answer.status_code, answer.headers["content-type"]) == (200, kind)
                if form["encoding"] == "json":
                    assert answer.json()["name"] == "scripted"
                else:
                    info = rpc.pb.GetModelInfoResponse.FromString(answer.content)
                    assert info.name == "scripted"
            unknown = await client.get(path, params=forms[0])
            assert (unknown.status_code, unknown.json()["code"]) == (401, "unauthenticated")
            assert (await client.options(path)).headers["allow"] == "GET, HEAD, OPTIONS, POST"

    kit.run(main())


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"encoding": "json"}, 400),
        ({"encoding": "xml", "message": "{}"}, 415),
        ({"message": "{}"}, 415),
        ({"encoding": "json", "message": "{}", "connect": "v2"}, 400),
        ({"encoding": "json", "message": "{", "connect": "v1"}, 400),
        ({"encoding": "proto", "message": "a!", "base64": "1"}, 400),
        ({"encoding": "json", "message": "{}", "compression": "br"}, 501),
        ({str(number): "" for number in range(40)}, 400),
    ],
)
def test_a_query_that_is_no_call_is_refused(
    kit: Any, rpc: Any, query: dict[str, str], code: int
) -> None:
    async def main() -> None:
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            answer = await client.get(SERVICE + "GetModelInfo", params=query)
        expected = "unimplemented" if code == 501 else "invalid_argument"
        assert (answer.status_code, answer.json()["code"]) == (code, expected)

    kit.run(main())


def test_a_version_of_connect_that_is_not_known_is_refused(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        kind = "application/json"
        async with talking(kit, rpc, kit.Service(kit.hello)) as client:
            for version, code in (("1", 200), ("2", 400)):
                answer = await post(
                    client, "GetModelInfo", b"{}", kind, connect_protocol_version=version
                )
                assert answer.status_code == code

    kit.run(main())


def test_a_conversation_whose_messages_all_come_at_once(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with talking(kit, rpc, service) as client:
            says = [{"infer": {"prompt": "Hi"}}, {"abort": {}}]
            body = b"".join(
                envelope(rpc.pb.ConverseRequest(**said).SerializeToString()) for said in says
            )
            answer = await post(client, "Converse", body, WEB)
        *_, (_, trailers) = opened(answer.content)
        assert status(trailers)["grpc-status"] == "1"

    kit.run(main())


def test_a_call_that_others_end_has_a_client_less(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with talking(kit, rpc, service) as client:
            says = [{"infer": {"prompt": "Hi"}}, {"prompt": {"role": "nobody"}}]
            body = b"".join(
                envelope(rpc.pb.ConverseRequest(**said).SerializeToString()) for said in says
            )
            answer = await post(client, "Converse", body, WEB)
        *_, (_, trailers) = opened(answer.content)
        assert status(trailers)["grpc-status"] == "3"
        assert service.generations[0].left.is_set()

    kit.run(main())


def test_a_resumed_stream(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with talking(kit, rpc, service) as client:
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            body = envelope(start.SerializeToString())
            whole = await post(client, "StreamInfer", body, WEB)
            place = rpc.pb.Resume(generation_id=service.generations[0].id, after=2)
            start = rpc.pb.StreamInferRequest(resume=place)
            rest = await post(client, "StreamInfer", envelope(start.SerializeToString()), WEB)
        assert opened(rest.content) == opened(whole.content)[2:]

    kit.run(main())


def test_pages_of_allowed_origins_may_call(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with talking(kit, rpc, service, cors_origins=("http://page",)) as client:
            wanted = "content-type,x-grpc-web,x-user-agent,grpc-timeout"
            headers = {
                "origin": "http://page",
                "access-control-request-method": "POST",
                "access-control-request-headers": wanted,
            }
            asked = await client.options(SERVICE + "Infer", headers=headers)
            assert asked.status_code == 204
            assert asked.headers["access-control-allow-headers"] == wanted
            body = envelope(rpc.pb.InferRequest(prompt="Hi").SerializeToString())
            for method in ("Infer", "StreamInfer"):
                answer = await post(client, method, body, WEB, origin="http://page")
                assert answer.headers["access-control-allow-origin"] == "http://page"
                assert "grpc-status" in answer.headers["access-control-expose-headers"]

    kit.run(main())
