"""Events of llama.cpp's ``/completion``, folded."""

from __future__ import annotations

import msgspec
import pytest

from headrace.domain.delta import Delta
from headrace.engines.llama_fold import LlamaFold
from headrace.engines.token_gap import TokenGaps


def whole(content: str, stop_type: str) -> str:
    answer = {
        "content": content,
        "tokens": [1, 2],
        "stop": True,
        "stop_type": stop_type,
        "tokens_predicted": 2,
    }
    fold = LlamaFold(0, None, TokenGaps({}), False, lambda done, total: None)
    deltas: list[Delta] = []
    assert fold.take([msgspec.json.encode(answer)], deltas)
    return "".join(delta.text for delta in deltas)


@pytest.mark.parametrize(
    ("content", "stop_type", "text"),
    [
        ("mill \ufffd", "limit", "mill "),  # cut in the middle of a character, as a stream is
        ("\ufffd", "limit", ""),
        ("mill", "limit", "mill"),
        ("mill \ufffd", "eos", "mill \ufffd"),  # the model's own
    ],
)
def test_a_whole_answer_ends_where_a_stream_of_it_would(
    content: str, stop_type: str, text: str
) -> None:
    assert whole(content, stop_type) == text
