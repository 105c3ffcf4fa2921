"""The official OpenAI SDK for JavaScript, unchanged, in a process of its own."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SCRIPT = Path(__file__).with_name("openai.mjs")
KEY = {"Authorization": "Bearer sk-test"}
COUNT = "".join(f"{number} " for number in range(1, 41))

Talk = Callable[[str], Any]


@pytest.fixture
def url(server: Callable[..., Any]) -> str:
    url: str = server('api_key = ["sk-test"]').url
    return url


@pytest.fixture
def talk(node: str, sdk: Path, url: str) -> Talk:
    """Have a conversation of ``openai.mjs``; what the SDK saw."""

    def talk(conversation: str) -> Any:
        command = [node, "--no-warnings", str(SCRIPT), str(sdk), f"{url}/v1", conversation]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    return talk


def test_it_reads_a_stream_to_its_usage(talk: Talk) -> None:
    seen = talk("stream")
    chunks = seen["chunks"]
    texts = [chunk["choices"][0]["delta"].get("content") for chunk in chunks[:-1]]
    assert "".join(text or "" for text in texts) == COUNT
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * (len(chunks) - 1)
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["completion_tokens"]) == ([], 40)
    assert {chunk["id"] for chunk in chunks} == {"chatcmpl-" + seen["generation"][4:]}
    assert chunks[-2]["choices"][0]["finish_reason"] == "stop"
    assert seen["request_id"].startswith("req_")


def test_it_leaves_a_stream_and_reads_the_rest_of_it(talk: Talk) -> None:
    assert talk("resume")["text"] == COUNT


def test_its_abort_ends_the_generation(talk: Talk, url: str, ended: Callable[..., Any]) -> None:
    seen = talk("abort")
    assert seen["chunks"] < 10
    state = ended(url, seen["generation"], headers=KEY)
    assert (state["state"], state["error"]["code"]) == ("failed", "cancelled")


def test_its_abort_of_a_whole_answer_is_its_own_error(talk: Talk) -> None:
    assert talk("abort_of_a_whole_answer")["error"]["name"] == "APIUserAbortError"


def test_errors_are_of_its_classes_and_say_what_and_where(talk: Talk) -> None:
    seen = talk("errors")
    found = {what: (error["name"], error["status"], error["code"]) for what, error in seen.items()}
    assert found == {
        "no_model": ("NotFoundError", 404, "model_not_found"),
        "no_message": ("BadRequestError", 400, "invalid_request"),
        "lacking": ("BadRequestError", 400, "unsupported_option"),
        "wrong_key": ("AuthenticationError", 401, "invalid_api_key"),
        "overloaded": ("InternalServerError", 503, "engine_unavailable"),
        "broken_stream": ("APIError", None, "internal"),
    }
    assert [seen[what]["param"] for what in ("no_model", "no_message", "lacking")] == [
        "model",
        "messages",
        "verbosity",
    ]


def test_it_calls_a_tool_and_tells_the_model_what_came_of_it(talk: Talk) -> None:
    assert talk("tools") == {
        "called": ["Paris"],
        "content": "It is sunny.",
        "roles": ["user", "assistant", "tool", "assistant"],
    }


def test_it_has_responses_read_followed_listed_and_deleted(talk: Talk) -> None:
    seen = talk("responses")
    assert seen["deleted"]["name"] == "NotFoundError"
    del seen["deleted"]
    assert seen == {
        "text": COUNT,
        "same": True,
        "metadata": {"a": "b"},
        "followed": "It is sunny.",
        "items": ["sunny"],
    }


def test_it_does_the_rest_of_what_there_is_and_is_refused_the_rest_of_what_there_is_not(
    talk: Talk,
) -> None:
    seen = talk("the_rest")
    text, gone = seen.pop("unstored")
    compacted, effort = seen.pop("compacted"), seen.pop("effort")
    assert seen == {
        "models": ["m"],
        "model": "m",
        "texts": ["It is sunny.", "It is sunny."],
        "streamed": "It is sunny.",
    }
    assert (text, gone["status"], gone["code"]) == ("It is sunny.", 404, "generation_not_found")
    assert (compacted["status"], compacted["code"]) == (404, "not_found")
    assert (effort["code"], effort["param"]) == ("unsupported_option", "reasoning.effort")


def test_it_reads_on_in_a_background_response_and_cancels_another(talk: Talk) -> None:
    seen = talk("background")
    assert seen["numbers"] == list(range(len(seen["numbers"])))
    assert (seen["text"], seen["last"]) == (COUNT, "response.completed")
    assert seen["cancelled"] == "cancelled"


def test_a_response_calls_a_tool_and_is_told_what_came_of_it(talk: Talk) -> None:
    assert talk("response_tools") == {
        "name": "weather",
        "arguments": '{"city":"Paris"}',
        "answers": ["It is sunny.", "It is sunny."],
    }
