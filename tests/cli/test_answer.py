"""An answer has every token once, wherever the connection breaks."""

from __future__ import annotations

import json
from typing import Any

import pytest

from headrace.cli.answer import Answer
from headrace.cli.connection import Server
from headrace.domain.errors import HeadraceError

BODY = {"model": "tiny", "messages": [{"role": "user", "content": "hi"}]}


@pytest.fixture
def answer(server: Any, monkeypatch: pytest.MonkeyPatch) -> Answer:
    monkeypatch.setattr("headrace.cli.answer.FIRST_WAIT_S", 0.0)
    return Answer(Server(server.url, "key"), BODY, lambda why: None)


def test_a_stream_is_read_to_its_end_and_its_tokens_counted(server: Any, answer: Answer) -> None:
    server.tell("Hel", "lo", " ", "wörld")
    assert "".join(answer.pieces()) == "Hello wörld"
    assert answer.tokens == 4
    method, path, headers, body = server.requests[0]
    assert (method, path) == ("POST", "/v1/chat/completions")
    assert headers["x-on-disconnect"] == "grace=180"
    assert headers["authorization"] == "Bearer key"
    assert body["stream"] is True


def test_cut_at_any_byte_the_text_is_the_same(server: Any, answer: Answer) -> None:
    server.tell("a", "b", "ö", "c")
    server.log[1] = (2, [server.log[1][1][0], server.log[0][1][0]])
    whole = "abaöc"
    for cut in range(0, len(server.body(0)), 7):
        server.breaks = [cut, 70]
        one = Answer(Server(server.url, None), BODY, lambda why: None)
        assert "".join(one.pieces()) == whole, cut


def test_after_a_break_the_generation_is_read_on_and_not_computed_again(
    server: Any, answer: Answer
) -> None:
    server.tell("a", "b")
    server.breaks = [len(server.body(0)) - len(server.body(1)) + 26]
    assert "".join(answer.pieces()) == "ab"
    paths = [path for _, path, _, _ in server.requests]
    assert paths == [
        "/v1/chat/completions",
        "/v1/generations/gen_1/events?format=openai&after=1",
    ]


def test_a_server_that_cannot_serve_yet_is_asked_again(server: Any, answer: Answer) -> None:
    server.tell("a")
    server.refusals = [(503, "the model is loading")]
    assert "".join(answer.pieces()) == "a"
    first, second = (headers["idempotency-key"] for _, _, headers, _ in server.requests)
    assert first == second


def test_a_request_that_is_wrong_is_not_repeated(server: Any, answer: Answer) -> None:
    server.refusals = [(404, "there is no model tiny")]
    with pytest.raises(HeadraceError, match="there is no model tiny"):
        list(answer.pieces())
    assert len(server.requests) == 1


def test_an_error_in_the_stream_ends_the_answer_with_its_message(
    server: Any, answer: Answer
) -> None:
    server.tell("a")
    server.log[1] = (2, ['{"error": {"message": "the engine died", "code": "engine_failed"}}'])
    pieces = answer.pieces()
    assert next(piece for piece in pieces if piece) == "a"
    with pytest.raises(HeadraceError, match="the engine died"):
        list(pieces)


def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("headrace.cli.answer.PATIENCE_S", 0.0)
    lost: list[str] = []
    answer = Answer(Server("http://127.0.0.1:1", None), BODY, lost.append)
    with pytest.raises(HeadraceError, match=r"127\.0\.0\.1:1: .*refused"):
        list(answer.pieces())


def prompt_chunk(text: str) -> str:
    payload = {"role": "user", "content": text}
    return json.dumps({"choices": [], "headrace": {"type": "prompt", "payload": payload}})


def test_an_added_message_is_told_in_its_place_between_the_pieces(server: Any) -> None:
    server.tell("a", "b")
    server.log.insert(1, (2, [prompt_chunk("hint")]))
    server.log[2:] = [(seq + 1, messages) for seq, messages in server.log[2:]]
    shown: list[str] = []
    answer = Answer(
        Server(server.url, None), BODY, shown.append, lambda role, text: shown.append(f"<{text}>")
    )
    for piece in answer.pieces():
        shown.append(piece)
    assert "".join(shown) == "a<hint>b"


def test_a_prompt_goes_to_the_generation_and_is_too_late_after_its_end(
    server: Any, answer: Answer
) -> None:
    server.tell("a")
    server.hang = True
    pieces = answer.pieces()
    next(pieces)
    assert answer.prompt("more")
    method, path, _, body = server.requests[-1]
    assert (method, path) == ("POST", "/v1/generations/gen_1/prompts")
    assert body == {"role": "user", "content": "more"}
    server.prompt_refusals = [(409, "it is over"), (503, "away")]
    assert not answer.prompt("more")
    assert not answer.prompt("more")
    server.prompt_refusals = [(400, "has tools")]
    with pytest.raises(HeadraceError, match="has tools"):
        answer.prompt("more")
    server.cancelled.set()


def test_a_prompt_before_the_answer_was_asked_for_waits_for_it(answer: Answer) -> None:
    answer.over = True
    assert not answer.prompt("more")
