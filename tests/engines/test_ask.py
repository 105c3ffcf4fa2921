from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.delta import Prefix
from headrace.domain.request import Message, Request, Sampling
from headrace.engines.ask import Asking
from headrace.engines.dialect import LLAMA, OPENAI, SGLANG, VLLM


def mostly_unset(**fields):
    return st.fixed_dictionaries({}, optional={name: st.just(of) for name, of in fields.items()})


SAMPLINGS = mostly_unset(
    max_tokens=9, temperature=0.0, top_p=0.5, stop=("x", "y"), seed=0, presence_penalty=1.0,
    frequency_penalty=2.0, logit_bias={"5": -1.0}, n=2,
) | mostly_unset(
    max_tokens=9, top_k=4, min_p=0.1, repeat_penalty=1.1, logprobs=0, ignore_eos=True, n=3
)  # fmt: skip
OPTIONS = st.just({}) | mostly_unset(
    tools=[{"type": "function", "function": {"name": "f"}}], tool_choice="auto",
    parallel_tool_calls=False, response_format={"type": "json_object"}, user="u",
    extra={"min_tokens": 1},
)  # fmt: skip
ASKINGS = [
    Asking("m", OPENAI),
    Asking("org/m", VLLM, stream_usage=False),
    Asking("m", OPENAI, "max_completion_tokens"),
    Asking("m", OPENAI, extra={"cache_salt": "s"}),
]


@given(SAMPLINGS, OPTIONS, st.sampled_from(ASKINGS), st.booleans(), mostly_unset(id_slot=1))
def test_a_plain_chat_is_asked_in_the_same_words_as_any_other(
    sampling, options, asking, stream, more
):
    messages = (Message("system", 'be "short"'), Message("user", "é"))
    request = Request("named", "chat", messages, sampling=Sampling(**sampling), **options)
    body = asking.body(request, stream, more)
    assert json.loads(body) == json.loads(asking._any_body(request, stream, more))


def test_a_chat_without_options_has_none():
    request = Request("named", "chat", (Message("user", "hi"),))
    messages = [{"role": "user", "content": "hi"}]
    assert json.loads(ASKINGS[0].body(request, False)) == {"model": "m", "messages": messages}


@pytest.mark.parametrize(
    ("dialect", "priority", "told"),
    [
        (VLLM, 5, 5),
        (SGLANG, 5, -5),  # there the higher is sooner
        (VLLM, -5, None),
        (SGLANG, -5, None),
        (VLLM, 0, None),
        (OPENAI, 5, None),
        (LLAMA, 5, None),
    ],
)
def test_an_engine_that_knows_priorities_is_told_who_steps_back(dialect, priority, told):
    asking = Asking("m", dialect)
    chat = Request("m", "chat", (Message("user", "hi"),), priority=priority)
    completion = Request("m", "completion", prompts=("hi",), priority=priority)
    for request in (chat, completion):
        for body in (
            asking.body(request, True),
            asking.continuation(request, 0, Prefix("said", ()), True),
        ):
            assert json.loads(body).get("priority") == told
