"""gRPC-Web and Connect on the HTTP port, byte by byte; the real clients are in ``tests/clients``."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
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
    return kit.talking(service, more=rpc.Serving(service).routes, **options)


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
        (envelope(b"abc", 1), "12"),
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
            zipped = await post(client, "Infer", b"", kind, content_encoding="gzip")
            assert zipped.json()["code"] == "unimplemented"

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
