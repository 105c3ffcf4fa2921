"""What is known of a prompt before its engine has seen it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.admission.estimates import (
    IMAGE_TOKENS,
    MAX_TENANTS,
    MESSAGE_TOKENS,
    Estimates,
    Size,
    size_of,
)
from headrace.domain.request import ImagePart, Message, Request, TextPart


def chat(*contents: str | list[TextPart | ImagePart]) -> Request:
    return Request("m", "chat", tuple(Message("user", content) for content in contents))


def test_tokens_are_counted_and_texts_are_measured() -> None:
    prompts = ((1, 2, 3), (4, 5))
    assert size_of(Request("m", "completion", prompts=prompts)) == Size(0, 5)
    assert Estimates().prompt_tokens(Size(0, 5)) == 5
    assert size_of(chat("abcd", "é€")) == Size(9, 2 * MESSAGE_TOKENS)
    parts: list[TextPart | ImagePart] = [TextPart("abc"), ImagePart({"url": "x"})]
    assert size_of(chat(parts)) == Size(3, MESSAGE_TOKENS + IMAGE_TOKENS)


def test_tools_are_part_of_a_prompt() -> None:
    tools = [{"type": "function", "function": {"name": "weather", "description": "x" * 100}}]
    call = Message("assistant", tool_calls=[{"id": "1", "function": {"arguments": "y" * 50}}])
    request = Request("m", "chat", (call,), tools=tools)
    assert size_of(request).text_bytes > 150


@pytest.mark.parametrize("bytes_per_token", [1.5, 3.0, 6.0])
def test_a_model_s_ratio_is_learned_from_its_usage(bytes_per_token: float) -> None:
    estimates = Estimates()
    for length in range(200, 20_000, 200):
        size = Size(length, 8)
        estimates.learn_prompt(size, 8 + int(length / bytes_per_token))
    assert estimates.prompt_tokens(Size(6000, 8)) == pytest.approx(
        8 + 6000 / bytes_per_token, rel=0.02
    )


@given(st.lists(st.tuples(st.integers(0, 10**7), st.integers(0, 10**4), st.integers(0, 10**8))))
def test_no_usage_makes_an_estimate_senseless(seen: list[tuple[int, int, int]]) -> None:
    estimates = Estimates()
    for text_bytes, tokens, said in seen:
        estimates.learn_prompt(Size(text_bytes, tokens), said)
        estimates.learn_answer(said + 1, 1, float(text_bytes))
    assert 1600 / 16 <= estimates.prompt_tokens(Size(1600, 0)) <= 1600
    assert estimates.likely >= 1
    assert estimates.token_s > 0


def test_a_tenants_prompts_are_expected_in_a_cache_as_those_before_were() -> None:
    estimates = Estimates()
    assert estimates.cached_tokens("a", 1000) == 0
    for _ in range(30):
        estimates.learn_cached("a", 1000, 900)
        estimates.learn_cached("b", 1000, 0)
    assert estimates.cached_tokens("a", 2000) == pytest.approx(1800, rel=0.01)
    assert estimates.cached_tokens("b", 2000) == 0
    for _ in range(30):
        estimates.learn_cached("a", 1000, 0)
    assert estimates.cached_tokens("a", 2000) < 100


def test_no_usage_says_that_a_cache_had_more_than_the_prompt() -> None:
    estimates = Estimates()
    for cached in (10**9, -5):
        estimates.learn_cached("a", 10, cached)
        assert 0 <= estimates.cached_tokens("a", 100) <= 100


def test_so_many_tenants_are_remembered() -> None:
    estimates = Estimates()
    for number in range(3 * MAX_TENANTS):
        estimates.learn_cached(str(number), 10, 10)
        assert estimates.cached_tokens(str(number), 10) == 10
    assert (
        sum(estimates.cached_tokens(str(n), 10) > 0 for n in range(3 * MAX_TENANTS)) <= MAX_TENANTS
    )


def test_few_answers_are_longer_than_is_likely() -> None:
    estimates = Estimates()
    lengths = [20 + (number * 7919) % 300 for number in range(2000)]
    for length in lengths:
        estimates.learn_answer(length, 1, length * 0.01)
    longer = sum(length > estimates.likely for length in lengths)
    assert longer == 0
    assert estimates.likely < 700
    assert estimates.token_s == pytest.approx(0.01, rel=0.05)
