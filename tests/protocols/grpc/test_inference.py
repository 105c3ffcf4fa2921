"""``headrace.v1`` over gRPC, with grpc's own client."""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest

from headrace.domain.errors import MEANINGS, Code, HeadraceError
from headrace.domain.request import CONTINUE, Sampling

CODES = {code.value[0]: code for code in grpc.StatusCode}


def test_one_request_has_one_whole_answer(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with rpc.talking(service) as (client, _):
            asked = rpc.pb.InferRequest(prompt="Hi", max_tokens=7, temperature=0.5, stop=["x"])
            call = client.Infer(asked, metadata=[("x-request-id", "mine"), ("x-session-id", "s")])
            answer = await call
            metadata = dict(await call.initial_metadata())
        (generation,) = service.generations
        assert answer.text == "Hello wörld 😀\n"
        assert (answer.finish_reason, answer.usage.total_tokens) == ("stop", 8)
        assert (answer.generation_id, answer.last_seq) == (generation.id, 5)
        assert metadata["x-request-id"] == "mine"
        assert metadata["x-generation-id"] == generation.id
        request = generation.request
        assert (request.model, request.prompts, request.stream) == ("scripted", ("Hi",), False)
        assert request.sampling == Sampling(max_tokens=7, temperature=0.5, stop=("x",))
        assert generation.caller.session_id == "s"

    kit.run(main())


def test_a_conversation_and_options_by_their_names_in_json(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with rpc.talking(service) as (client, _):
            asked = rpc.pb.InferRequest(messages=[rpc.pb.Message(role="user", content="Hi")])
            asked.options.update({"n": 2, "top_k": 3, "response_format": {"type": "json_object"}})
            answer = await client.Infer(asked)
        (generation,) = service.generations
        assert [choice.text for choice in answer.choices] == ["Hello wörld 😀\n"] * 2
        assert generation.request.kind == "chat"
        assert generation.request.messages[0].content == "Hi"
        assert generation.request.sampling == Sampling(n=2, top_k=3)
        assert generation.request.response_format == {"type": "json_object"}

    kit.run(main())


def test_a_stream_has_all_events_of_the_log(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            logprob = kit.TokenLogprob("b", -0.5, (98,), (("c", -1.0, (99,)),))
            generation.write(
                kit.progress(1, "queued", position=2),
                kit.progress(2, "prefill", done=0, total=9),
                kit.token(3, "thinks", reasoning=True),
                kit.token(4, "b", logprobs=(logprob,)),
                kit.prompt(5, "user", "and?"),
                kit.token(6, "", index=1, tool_calls=(kit.ToolCallDelta(0, "c1", "f", "{}"),)),
                kit.token(7, "long", part=2),
                kit.finish(8, "stop", "tool_calls"),
            )

        async with rpc.talking(kit.Service(script)) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            events = [event async for event in client.StreamInfer(start)]
            hidden = client.StreamInfer(start, metadata=[("x-stream-events", "token,finish")])
            shown = [event.WhichOneof("payload") async for event in hidden]
        assert [event.seq for event in events] == list(range(1, 9))
        kinds = [event.WhichOneof("payload") for event in events]
        assert kinds == [*["progress"] * 2, *["token"] * 2, "prompt", *["token"] * 2, "finish"]
        assert shown == [*["token"] * 4, "finish"]
        assert {event.generation_id for event in events} == {"gen_01000000000000000000000000"}
        assert events[0].timestamp == 1795346283.013
        assert (events[0].progress.position, events[0].progress.HasField("total")) == (2, False)
        assert events[1].progress.HasField("done")
        assert events[2].token.reasoning
        assert events[3].token.logprobs[0].top[0].token == "c"
        assert events[4].prompt.content == "and?"
        assert (events[5].token.index, events[5].token.tool_calls[0].name) == (1, "f")
        assert events[6].token.part == 2
        assert events[7].finish.reasons == ["stop", "tool_calls"]

    kit.run(main())


def test_a_stream_is_resumed_after_a_cursor(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with rpc.talking(service) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            whole = [event async for event in client.StreamInfer(start)]
            place = rpc.pb.Resume(generation_id=whole[0].generation_id, after=2)
            rest = [
                event async for event in client.StreamInfer(rpc.pb.StreamInferRequest(resume=place))
            ]
            assert rest == whole[2:]
            place.after = 5
            assert [
                e async for e in client.StreamInfer(rpc.pb.StreamInferRequest(resume=place))
            ] == []
            place.after = 6
            error = await rpc.refused(client.StreamInfer(rpc.pb.StreamInferRequest(resume=place)))
            assert error.code() == grpc.StatusCode.OUT_OF_RANGE
            place.generation_id = "gen_unknown"
            error = await rpc.refused(client.StreamInfer(rpc.pb.StreamInferRequest(resume=place)))
            assert error.code() == grpc.StatusCode.NOT_FOUND

    kit.run(main())


def test_a_batch_keeps_its_order_and_each_item_has_its_own_error(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello)) as (client, _):
            requests = [
                rpc.pb.InferRequest(prompt="1"),
                rpc.pb.InferRequest(prompt="2", model="none"),
                rpc.pb.InferRequest(),
            ]
            answer = await client.BatchInfer(rpc.pb.BatchInferRequest(requests=requests))
            empty = await client.BatchInfer(rpc.pb.BatchInferRequest())
        assert answer.results[0].response.text == "Hello wörld 😀\n"
        assert answer.results[1].error.code == "model_not_found"
        assert (answer.results[2].error.code, answer.results[2].error.param) == (
            "invalid_request",
            "prompt",
        )
        assert not empty.results

    kit.run(main())


def test_facts_of_a_model(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello)) as (client, _):
            facts = await client.GetModelInfo(rpc.pb.GetModelInfoRequest(model="nick"))
            assert (facts.name, list(facts.aliases), facts.ready) == (
                "scripted",
                ["nick", "org/nick"],
                True,
            )
            assert await client.GetModelInfo(rpc.pb.GetModelInfoRequest()) == facts

    kit.run(main())


@pytest.mark.parametrize("code", list(Code))
def test_an_error_has_the_status_of_the_table(kit: Any, rpc: Any, code: Code) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            raise HeadraceError(code, "Ünmöglich: 100 %.", param="here", retry_after_s=1.5)

        async with rpc.talking(kit.Service(script)) as (client, _):
            call = client.Infer(rpc.pb.InferRequest(prompt="Hi"))
            error = await rpc.refused(call)
        meaning = MEANINGS[code]
        assert error.code() == CODES[meaning.grpc]
        assert error.details() == "Ünmöglich: 100 %."
        trailers = rpc.trailers(error)
        assert trailers["headrace-code"] == code.value
        assert trailers["retry-after-ms"] == "1500"
        assert trailers["x-should-retry"] == ("true" if meaning.retryable else "false")
        detail = rpc.detail(error)
        assert (detail.code, detail.param, detail.retry_after_s) == (code.value, "here", 1.5)
        assert dict(error.initial_metadata())["x-request-id"].startswith("req_")

    kit.run(main())


def test_a_stream_that_fails_ends_with_the_event_and_its_status(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            generation.write(kit.token(1, "a"), kit.error(2))

        async with rpc.talking(kit.Service(script)) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            call = client.StreamInfer(start)
            seen = [await call.read(), await call.read()]
            assert [event.WhichOneof("payload") for event in seen] == ["token", "error"]
            assert seen[1].error.code == "engine_failed"
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
            assert dict(await call.trailing_metadata())["x-generation-id"] == seen[0].generation_id
            error = await rpc.refused(client.Infer(rpc.pb.InferRequest(prompt="Hi")))
            assert error.details() == "The engine died."
            assert "retry-after-ms" not in rpc.trailers(error)

    kit.run(main())


def test_who_waited_and_was_refused_then_hears_when_to_come_again(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            generation.write(kit.error(1, "queue_full", "Shed.", 6.25))

        async with rpc.talking(kit.Service(script)) as (client, _):
            error = await rpc.refused(client.Infer(rpc.pb.InferRequest(prompt="Hi")))
            assert rpc.trailers(error)["retry-after-ms"] == "6250"
            assert rpc.detail(error).retry_after_s == 6.25
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            call = client.StreamInfer(start)
            assert (await call.read()).error.retry_after_s == 6.25
            assert dict(await call.trailing_metadata())["retry-after-ms"] == "6250"

    kit.run(main())


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({}, "prompt"),
        ({"prompt": "a", "messages": [{"role": "user", "content": "b"}]}, "prompt"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "temperature": 3}, "temperature"),
        ({"messages": [{"role": "nobody", "content": "b"}]}, "messages[0].role"),
        ({"prompt": "a", "options": {"stream": True}}, "options.stream"),
        ({"prompt": "a", "options": {"n": 1.5}}, "n"),
        ({"prompt": "a", "options": {"nonsense": 1}}, "nonsense"),
        ({"prompt": "a", "options": {"n": math.nan}}, "options"),
        ({"prompt": "a", "options": {"stop": [{"a": math.inf}]}}, "options"),
    ],
)
def test_a_mistake_names_its_field(kit: Any, rpc: Any, fields: Any, param: str) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello)) as (client, _):
            error = await rpc.refused(client.Infer(rpc.pb.InferRequest(**fields)))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert rpc.detail(error).param == param

    kit.run(main())


def test_options_are_the_values_that_json_would_have(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with rpc.talking(service) as (client, _):
            asked = rpc.pb.InferRequest(messages=[rpc.pb.Message(role="user", content="Hi")])
            schema = {"type": "json_object", "a": [3, 1e300, 0.5, None, True, {"b": "c"}]}
            asked.options["response_format"] = schema
            await client.Infer(asked)
            assert service.generations[0].request.response_format == schema
            asked.options["response_format"]["a"][0] = "x" * 300_000
            error = await rpc.refused(client.Infer(asked))
            assert rpc.detail(error).code == "body_too_large"

    kit.run(main())


def test_a_long_message_still_fits_into_the_trailers_that_clients_take(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello)) as (client, _):
            asked = rpc.pb.InferRequest(prompt="Hi", options={"日" * 20_000: 1})
            error = await rpc.refused(client.Infer(asked))
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert error.details().startswith("`日日")
            assert error.details().endswith("…")
            assert len(rpc.detail(error).param.encode()) < 1010

    kit.run(main())


def test_metadata_is_read_as_http_headers_are(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys={"k1": "acme"})
        async with rpc.talking(service) as (client, _):
            asked = rpc.pb.InferRequest(prompt="Hi")
            assert (
                await rpc.refused(client.Infer(asked))
            ).code() == grpc.StatusCode.UNAUTHENTICATED
            wrong = client.Infer(asked, metadata=[("authorization", "Bearer k2")])
            assert (await rpc.refused(wrong)).code() == grpc.StatusCode.UNAUTHENTICATED
            await client.Infer(asked, metadata=[("x-api-key", "k1")])
            metadata = [
                ("authorization", "Bearer k1"),
                ("x-abort-token", "t"),
                ("x-on-disconnect", "continue"),
                ("x-continue-mode", "exact"),
                ("some-bin", b"\xff\x00"),
            ]
            await client.Infer(asked, metadata=metadata)
            caller = service.generations[1].caller
            assert (caller.tenant, caller.abort_token) == ("acme", "t")
            assert (caller.leaving, caller.exact) == (CONTINUE, True)
            bad = client.Infer(asked, metadata=[("x-api-key", "k1"), ("x-on-disconnect", "stay")])
            assert rpc.detail(await rpc.refused(bad)).param == "X-On-Disconnect"

    kit.run(main())


@pytest.mark.parametrize("way", ["cancel", "deadline"])
@pytest.mark.parametrize("method", ["Infer", "StreamInfer", "Converse"])
def test_a_client_that_leaves_is_known_to_the_log(
    kit: Any, rpc: Any, method: str, way: str
) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            infer = rpc.pb.InferRequest(prompt="Hi")
            timeout = 0.5 if way == "deadline" else None
            if method == "Infer":
                call = client.Infer(infer, timeout=timeout)
            elif method == "StreamInfer":
                call = client.StreamInfer(rpc.pb.StreamInferRequest(infer=infer), timeout=timeout)
            else:
                call = client.Converse(timeout=timeout)
                await call.write(rpc.pb.ConverseRequest(infer=infer))
            generation = await service.generation(0)
            await generation.attached.wait()
            if way == "cancel":
                call.cancel()
            await generation.left.wait()
            assert not generation.readers

    kit.run(main())


def test_reading_on_never_cancels(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            owner = client.StreamInfer(start)
            first = await owner.read()
            place = rpc.pb.Resume(generation_id=first.generation_id)
            other = client.StreamInfer(rpc.pb.StreamInferRequest(resume=place))
            assert await other.read() == first
            generation = service.generations[0]
            other.cancel()
            while len(generation.readers) > 1:
                await client.GetModelInfo(rpc.pb.GetModelInfoRequest())  # behind the cancelling
            assert (generation.clients, generation.left.is_set()) == (1, False)
            generation.write(kit.finish(2))
            assert (await owner.read()).finish.reason == "stop"

    kit.run(main())


def test_a_conversation_takes_prompts_and_an_abort(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            call = client.Converse()
            await call.write(rpc.pb.ConverseRequest(infer=rpc.pb.InferRequest(prompt="Hi")))
            assert (await call.read()).token.text == "a"
            said = rpc.pb.Prompt(role="user", content="and?")
            await call.write(rpc.pb.ConverseRequest(prompt=said))
            assert (await call.read()).prompt == said
            await call.write(rpc.pb.ConverseRequest(abort={}))
            assert (await call.read()).error.code == "cancelled"
            assert await call.code() == grpc.StatusCode.CANCELLED
            assert service.cancelled == [service.generations[0].id]

    kit.run(main())


def test_a_conversation_joins_a_generation_and_closing_its_side_leaves_it_running(
    kit: Any, rpc: Any
) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            first = await client.StreamInfer(start).read()
            call = client.Converse()
            place = rpc.pb.Resume(generation_id=first.generation_id)
            await call.write(rpc.pb.ConverseRequest(resume=place))
            assert await call.read() == first
            await call.done_writing()
            service.generations[0].write(kit.finish(2))
            assert (await call.read()).finish.reason == "stop"
            assert await call.code() == grpc.StatusCode.OK

    kit.run(main())


@pytest.mark.parametrize("messages", [[], [{"prompt": {}}], [{"infer": {"prompt": "a"}}] * 2])
def test_what_a_conversation_does_not_understand_ends_it(
    kit: Any, rpc: Any, messages: list[Any]
) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            call = client.Converse()
            for message in messages:
                await call.write(rpc.pb.ConverseRequest(**message))
            await call.done_writing()
            error = await rpc.refused(call)
            assert error.code() == grpc.StatusCode.INVALID_ARGUMENT
            assert rpc.detail(error).param == "say"

    kit.run(main())


@pytest.mark.parametrize(
    ("prompt", "code"),
    [
        ({"role": "nobody", "content": "a"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"role": "user"}, grpc.StatusCode.INVALID_ARGUMENT),
        ({"role": "user", "content": "a" * 70_000}, grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
)
def test_a_prompt_that_cannot_be_added_ends_the_conversation(
    kit: Any, rpc: Any, prompt: Any, code: Any
) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            call = client.Converse()
            await call.write(rpc.pb.ConverseRequest(infer=rpc.pb.InferRequest(prompt="Hi")))
            await call.write(rpc.pb.ConverseRequest(prompt=prompt))
            error = await rpc.refused(call)
            assert error.code() == code
            assert rpc.detail(error).param.startswith("prompt.")
            await service.generations[0].left.wait()

    kit.run(main())


def test_an_abort_token_ends_what_carries_it(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            call = client.StreamInfer(start, metadata=[("x-abort-token", "t")])
            await call.read()
            assert (await client.Abort(rpc.pb.AbortRequest(token="t"))).aborted == 1
            assert (await call.read()).error.code == "cancelled"
            assert await call.code() == grpc.StatusCode.CANCELLED
            assert (await client.Abort(rpc.pb.AbortRequest(token="t"))).aborted == 0

    kit.run(main())


def test_a_message_that_is_too_large_is_refused(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello), message_bytes=4096) as (client, _):
            error = await rpc.refused(client.Infer(rpc.pb.InferRequest(prompt="x" * 5000)))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    kit.run(main())


def test_a_log_that_cannot_be_read_on_ends_the_stream(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            call = client.StreamInfer(start)
            await call.read()
            service.generations[0].lose(HeadraceError(Code.STORE_FAILED, "The disk is full."))
            assert await call.code() == grpc.StatusCode.INTERNAL
            assert await call.details() == "The disk is full."

    kit.run(main())


def test_what_fails_in_the_server_is_an_internal_error_that_names_the_request(
    kit: Any, rpc: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        def script(generation: Any) -> None:
            raise RuntimeError("a secret")

        async with rpc.talking(kit.Service(script)) as (client, _):
            call = client.Infer(rpc.pb.InferRequest(prompt="Hi"), metadata=[("x-request-id", "r1")])
            error = await rpc.refused(call)
            assert error.code() == grpc.StatusCode.INTERNAL
            assert "r1" in error.details()
            assert "secret" not in error.details()

    kit.run(main())
    assert "a secret" in caplog.text


def test_a_stream_that_the_server_breaks_off_says_where_to_read_on(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, serving):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            call = client.StreamInfer(start)
            first = await call.read()
            serving.services.streams.close()
            last = await call.read()
            assert (last.seq, last.error.code) == (0, "interrupted")
            assert last.error.resume == rpc.pb.Resume(generation_id=first.generation_id, after=1)
            assert await call.code() == grpc.StatusCode.UNAVAILABLE
            assert not len(serving.services.streams)

    kit.run(main())


def test_an_answer_that_the_server_breaks_off_says_where_to_read_it(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(lambda generation: generation.write(kit.token(1, "a")))
        async with rpc.talking(service) as (client, serving):
            call = client.Infer(rpc.pb.InferRequest(prompt="Hi"))
            generation = await service.generation(0)
            await generation.attached.wait()
            serving.services.streams.close()
            error = await rpc.refused(call)
            assert error.code() == grpc.StatusCode.UNAVAILABLE
            assert rpc.detail(error).code == "interrupted"
            assert rpc.trailers(error)["x-generation-id"] == generation.id
            assert not len(serving.services.streams)

    kit.run(main())
