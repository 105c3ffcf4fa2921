"""openai-python reads every answer unchanged, with its strict validation on where OpenAI's own
answers pass it (its schema of legacy completions forbids the null ``finish_reason`` of streams)."""

from __future__ import annotations

from typing import Any

import openai
import pytest
from tests.openai_client import talk

MESSAGES: Any = [{"role": "user", "content": "Hi."}]
HELLO = "Hello wörld 😀\n"
ASKED = {"X-Stream-Events": "token,progress,prompt"}


def test_models(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        page = await client.models.list()
        assert [model.id for model in page.data] == ["scripted", "nick", "org/nick"]
        assert page._request_id
        assert (await client.models.retrieve("org/nick")).id == "org/nick"
        with pytest.raises(openai.NotFoundError) as caught:
            await client.models.retrieve("other")
        assert caught.value.code == "model_not_found"

    talk(kit, kit.Service(kit.hello), conversation)


def test_a_whole_chat(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(model="scripted", messages=MESSAGES, n=2)
        assert [choice.message.content for choice in answer.choices] == [HELLO, HELLO]
        assert answer.usage is not None
        assert answer.usage.total_tokens == 8

    talk(kit, kit.Service(kit.hello), conversation)


@pytest.mark.parametrize("headers", [{}, ASKED])
def test_a_chat_stream(kit: Any, headers: dict[str, str]) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="scripted",
            messages=MESSAGES,
            stream=True,
            stream_options={"include_usage": True},
            extra_headers=headers,
        )
        chunks = [chunk async for chunk in stream]
        texts = [chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices]
        assert "".join(texts) == HELLO
        assert len({chunk.id for chunk in chunks}) == 1
        assert [chunk.usage for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
        assert chunks[-1].usage is not None

    talk(kit, kit.Service(kit.hello), conversation)


@pytest.mark.parametrize("headers", [{}, ASKED])
def test_the_stream_helper_puts_the_answer_together(kit: Any, headers: dict[str, str]) -> None:
    def script(generation: Any) -> None:
        call = kit.ToolCallDelta
        generation.write(
            kit.progress(1, "prefill", done=1, total=2),
            kit.token(2, "Let me see. "),
            kit.prompt(3, "user", "Hurry."),
            kit.token(4, "", tool_calls=(call(0, "call_1", "weather", ""),)),
            kit.token(5, "", tool_calls=(call(0, None, None, '{"city":'),)),
            kit.token(6, "", tool_calls=(call(0, None, None, '"Paris"}'),)),
            kit.finish(7, "tool_calls"),
        )

    async def conversation(client: openai.AsyncOpenAI) -> None:
        async with client.chat.completions.stream(
            model="scripted", messages=MESSAGES, extra_headers=headers
        ) as stream:
            answer = await stream.get_final_completion()
        (choice,) = answer.choices
        assert choice.finish_reason == "tool_calls"
        assert choice.message.content == "Let me see. "
        assert choice.message.tool_calls is not None
        function = choice.message.tool_calls[0].function
        assert (function.name, function.arguments) == ("weather", '{"city":"Paris"}')

    talk(kit, kit.Service(script), conversation)


def test_a_stream_that_is_silent_at_first_and_between(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="scripted", messages=MESSAGES, stream=True
        )
        (generation,) = service.generations
        generation.write(kit.token(1, "a"))
        texts = []
        async for chunk in stream:
            texts.append(chunk.choices[0].delta.content or "")
            if texts[-1] == "a":
                for subscription in generation.readers:
                    for _ in range(3):
                        subscription.reader.sweep()
                generation.write(kit.token(2, "b"), kit.finish(3))
        assert "".join(texts) == "ab"

    service = kit.Service(lambda generation: generation.write(kit.progress(1)))

    async def main() -> None:
        async with (
            kit.serving(service, heartbeat_s=0.003) as url,
            openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="sk-x", max_retries=0) as client,
        ):
            await conversation(client)

    kit.run(main())


def test_an_error_in_mid_stream_is_an_api_error(kit: Any) -> None:
    def script(generation: Any) -> None:
        generation.write(kit.token(1, "a"), kit.error(2, "engine_failed", "It died."))

    async def conversation(client: openai.AsyncOpenAI) -> None:
        stream = await client.chat.completions.create(
            model="scripted", messages=MESSAGES, stream=True
        )
        with pytest.raises(openai.APIError, match=r"It died\.") as caught:
            async for _ in stream:
                pass
        assert caught.value.code == "engine_failed"

    talk(kit, kit.Service(script), conversation)


def test_an_error_before_the_stream_is_its_status(kit: Any) -> None:
    def script(generation: Any) -> None:
        generation.write(kit.progress(1), kit.error(2, "queue_timeout", "Too long."))

    async def conversation(client: openai.AsyncOpenAI) -> None:
        with pytest.raises(openai.APIStatusError) as caught:
            await client.chat.completions.create(model="scripted", messages=MESSAGES, stream=True)
        assert caught.value.status_code == 408

    talk(kit, kit.Service(script), conversation)


def test_bad_requests_and_keys_are_their_own_exceptions(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        bad: Any = "x"
        with pytest.raises(openai.AuthenticationError):
            await client.chat.completions.create(model="scripted", messages=MESSAGES)
        client.api_key = "sk-1"
        with pytest.raises(openai.BadRequestError) as caught:
            await client.chat.completions.create(model="scripted", messages=bad)
        assert caught.value.param == "messages"
        assert caught.value.request_id

    talk(kit, kit.Service(kit.hello, keys={"sk-1": "alice"}), conversation)


def test_logprobs(kit: Any) -> None:
    entry = kit.TokenLogprob("a", -0.5, (97,), (("a", -0.5, (97,)), ("b", -1.5, (98,))))

    async def conversation(client: openai.AsyncOpenAI) -> None:
        answer = await client.chat.completions.create(
            model="scripted", messages=MESSAGES, logprobs=True, top_logprobs=2
        )
        assert answer.choices[0].logprobs is not None
        assert answer.choices[0].logprobs.content is not None
        found = answer.choices[0].logprobs.content[0]
        assert (found.token, found.logprob, len(found.top_logprobs)) == ("a", -0.5, 2)

    def script(generation: Any) -> None:
        generation.write(kit.token(1, "a", logprobs=(entry,)), kit.finish(2))

    talk(kit, kit.Service(script), conversation)


def test_legacy_completions(kit: Any) -> None:
    async def conversation(client: openai.AsyncOpenAI) -> None:
        answer = await client.completions.create(model="scripted", prompt=["One", "Two"])
        assert [choice.text for choice in answer.choices] == [HELLO, HELLO]
        stream = await client.completions.create(model="scripted", prompt="One", stream=True)
        texts = [chunk.choices[0].text async for chunk in stream]
        assert "".join(texts) == HELLO

    talk(kit, kit.Service(kit.hello), conversation, strict=False)
