"""``/tokenize`` and ``/detokenize`` in the words of llama.cpp and of vLLM."""

from __future__ import annotations

from typing import Any

import pytest

ABC = [97, 98, 99]


def ask(kit: Any, path: str, body: Any) -> Any:
    found: list[Any] = []

    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            found.append(await client.post(path, json=body))

    kit.run(main())
    return found[0]


@pytest.mark.parametrize(
    ("body", "tokens"),
    [
        ({"content": "abc"}, ABC),
        ({"content": "abc", "add_special": True}, [1, *ABC]),
        ({"prompt": "abc"}, [1, *ABC]),
        ({"prompt": "abc", "add_special_tokens": False, "model": "nick"}, ABC),
        ({"prompt": ""}, [1]),
        ({"content": "", "parse_special": True}, []),
    ],
)
def test_a_text_is_its_tokens(kit: Any, body: Any, tokens: list[int]) -> None:
    expected = {
        "tokens": tokens,
        "count": len(tokens),
        "max_model_len": 128,
        "token_strs": None,
    }
    assert ask(kit, "/tokenize", body).json() == expected


def test_tokens_come_with_their_texts_if_they_are_asked_for(kit: Any) -> None:
    pieces = ask(kit, "/tokenize", {"content": "ab", "with_pieces": True}).json()
    assert pieces["tokens"] == [{"id": 97, "piece": "a"}, {"id": 98, "piece": "b"}]
    strings = ask(kit, "/tokenize", {"prompt": "ab", "return_token_strs": True}).json()
    assert (strings["tokens"], strings["token_strs"]) == ([1, 97, 98], ["<s>", "a", "b"])


def test_tokens_are_their_text_under_both_names(kit: Any) -> None:
    answer = ask(kit, "/detokenize", {"tokens": ABC})
    assert answer.json() == {"content": "abc", "prompt": "abc"}
    assert ask(kit, "/detokenize", {"tokens": []}).json()["content"] == ""


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("/tokenize", {}, "content", "invalid_request"),
        ("/tokenize", {"content": "a", "prompt": "a"}, "prompt", "invalid_request"),
        ("/tokenize", {"content": 3}, "content", "invalid_request"),
        ("/tokenize", {"content": "a", "other": 1}, "other", "invalid_request"),
        ("/tokenize", {"messages": []}, "messages", "unsupported_option"),
        (
            "/tokenize",
            {"content": "a", "parse_special": False},
            *("parse_special", "unsupported_option"),
        ),
        ("/tokenize", {"content": "a", "model": "x"}, "model", "model_not_found"),
        ("/detokenize", {}, "tokens", "invalid_request"),
        ("/detokenize", {"tokens": "a"}, "tokens", "invalid_request"),
        ("/detokenize", {"tokens": [-1]}, "tokens[0]", "invalid_request"),
        ("/detokenize", {"tokens": [2**31 - 1]}, "tokens", "invalid_request"),
    ],
)
def test_what_is_wrong_is_refused_by_its_name(
    kit: Any, path: str, body: Any, param: str, code: str
) -> None:
    error = ask(kit, path, body).json()["error"]
    assert (error["param"], error["code"]) == (param, code)
