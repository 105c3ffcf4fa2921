"""What a caller has left of its limits, over all three wires of gRPC: OpenAI's names, as metadata."""

from __future__ import annotations

import json
from typing import Any

import grpc
import pytest

from headrace.domain.allowance import Allowance, Left
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage

LEFT = Allowance(Left(60, 59, 1.0), Left(10_000, 4000, 36.0))
NAMED = {
    "x-ratelimit-limit-requests": "60",
    "x-ratelimit-remaining-requests": "59",
    "x-ratelimit-reset-requests": "1s",
    "x-ratelimit-limit-tokens": "10000",
    "x-ratelimit-remaining-tokens": "4000",
    "x-ratelimit-reset-tokens": "36s",
}


class Reservation:
    def allowance(self, now: float, wall: float) -> Allowance:
        return LEFT


def limited(kit: Any) -> Any:
    def script(generation: Any) -> None:
        generation.reservation = Reservation()
        usage = Usage(5, 3, 2, "tenant.tokens_per_day")
        generation.write(kit.token(1, "Hello"), kit.finish(2, "length", usage=usage))

    return kit.Service(script)


def refusing(kit: Any) -> Any:
    service = limited(kit)
    error = HeadraceError(Code.RATE_LIMITED, "Too often.", retry_after_s=1.5, allowance=LEFT)
    service.refuse = lambda request: error
    return service


def only(found: Any) -> dict[str, Any]:
    return {name: value for name, value in dict(found).items() if "ratelimit" in name}


def test_an_answer_says_what_is_left_and_which_limit_ended_it(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(limited(kit)) as (client, _):
            asked = rpc.pb.InferRequest(prompt="Hi")
            call = client.Infer(asked)
            answer = await call
            assert only(await call.initial_metadata()) == NAMED
            assert answer.usage.limited_by == "tenant.tokens_per_day"
            stream = client.StreamInfer(rpc.pb.StreamInferRequest(infer=asked))
            events = [event async for event in stream]
            assert only(await stream.initial_metadata()) == NAMED
            assert events[-1].finish.usage.limited_by == "tenant.tokens_per_day"

    kit.run(main())


def test_a_refusal_says_it_in_its_trailers(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(refusing(kit)) as (client, _):
            error = await rpc.refused(client.Infer(rpc.pb.InferRequest(prompt="Hi")))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
            said = rpc.trailers(error)
            assert only(said) == NAMED
            assert said["retry-after-ms"] == "1500"
            assert rpc.detail(error).retry_after_s == 1.5

    kit.run(main())


@pytest.mark.parametrize("kind", ["application/grpc-web+proto", "application/json"])
def test_gRPC_Web_and_Connect_have_them_as_headers(kit: Any, rpc: Any, kind: str) -> None:
    async def main() -> None:
        path = "/headrace.v1.InferenceService/Infer"
        message = rpc.pb.InferRequest(prompt="Hi").SerializeToString()
        body = json.dumps({"prompt": "Hi"}).encode()
        if kind != "application/json":
            body = b"\0" + len(message).to_bytes(4, "big") + message
        for service in (limited(kit), refusing(kit)):
            async with kit.talking(service, more=rpc.Serving(service).routes) as client:
                answer = await client.post(path, content=body, headers={"content-type": kind})
                assert only(answer.headers) == NAMED

    kit.run(main())
