from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.delta import Delta
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Usage
from headrace.engines.chunks import ChatFold
from headrace.engines.solo import SoloRun
from headrace.engines.sse import SseParser


class Told:
    """A sink, and the upstream whose failures are told before."""

    def __init__(self):
        self.seen = []
        self.end = None

    def deltas(self, deltas):
        assert self.end is None
        assert deltas
        self.seen += deltas

    def finished(self, outcome, deltas=()):
        assert self.end is None
        self.seen += deltas
        self.end = (outcome.reasons, outcome.usage)

    def on_failure(self, error):
        assert self.end is None

    def failed(self, error):
        assert self.end is None
        self.end = str(error.code)


def chunk(delta, **more):
    return {"choices": [{"index": 0, "delta": delta, **more}]}


def said(value):
    return b"data: %b\n\n" % json.dumps(value).encode()


EVENTS = [
    *[said(chunk({"content": text})) for text in ("a", "b", "", "é\n")],
    *[said(chunk({"role": "assistant", "content": None})), said(chunk({}, finish_reason="stop"))],
    *[said(chunk({"content": "c", "reasoning": "r"})), said(chunk({"reasoning_content": "r"}))],
    *[said(chunk({"content": "d"}, token_ids=[1, 2])), said(chunk({"content": "f"}, logprobs={}))],
    said(chunk({"content": "e", "tool_calls": []}, finish_reason=None)),
    said(chunk({"tool_calls": [{"index": 0, "id": "x", "function": {"name": "f"}}]})),
    said({**chunk({"content": "u"}), "usage": {"prompt_tokens": 1, "completion_tokens": 2}}),
    said({"choices": [], "usage": {"prompt_tokens": 3, "completion_tokens": 4}}),
    *[said({"choices": [{"text": "t", "finish_reason": None}]}), said({"error": "broken"})],
    said({"choices": [{"index": at, "delta": {"content": "n"}} for at in (0, 1)]}),
    *[b"data: [DONE]\n\n", b"data: [DONE] \n\n", b"data: {nope\n\n", b"data: \n\n"],
    b'data: {"choices":[{"delta":{"content":5}}]}\n\n',
    b'data: {"choices":[{"delta":{"content":"\xff"}}]}\n\n',
]
ODD = [
    *[
        b'data: {"choices":\ndata: []}\n\n',
        b'data: {"choices":\n[]}\n\n',
        b'data: {"choices":\r[]}\n\n',
    ],
    *[b"data: {}\r\n\n", b"data: {}\r\r", b"data: {}\r\n\r\n", b": ping\n\n", b"event: x\n", b"\n"],
    *[said(chunk({"content": "a"}))[:-1] + end for end in (b"x", b"\r", b":")],
    *[b'data: {"choices":[]}\n\r', b'\ndata: {"choices":[]}\n\n'],
    *[b"\r", b"\xef\xbb\xbf", b"data: ", b"data:{}\n\n", b" ", b"{}", b"data: {} {}\n\n"],
]
PLAIN = st.sampled_from(EVENTS[:4])
STREAMS = st.lists(PLAIN | PLAIN | PLAIN | st.sampled_from(EVENTS + ODD), max_size=12)


def in_pieces(pieces):
    """What a run makes of a stream that arrives in these reads."""
    told = Told()
    run = SoloRun(told, ChatFold(0), True, 1, told)
    run.head(200, {})
    for piece in pieces:
        if piece:
            run.body(piece)
    run.end()
    return told.seen, told.end


def plainly(stream):
    """What it should make of it: the parser's events, one by one through the fold that takes any."""
    fold, deltas, told = ChatFold(0), [], Told()
    run = SoloRun(told, fold, True, 1, told)
    try:
        done = any(fold._take(event.data, deltas) for event in SseParser().feed_events(stream))
    except HeadraceError as error:
        return deltas, str(error.code)
    if done or fold.reasons:
        run._done([])
        return deltas, told.end
    return deltas, "engine_failed"


@given(STREAMS, st.lists(st.integers(0, 5000), max_size=12))
@settings(max_examples=400)
def test_however_a_stream_is_cut_into_reads_a_run_makes_the_same_of_it(events, places):
    stream = b"".join(events)
    at = sorted(place % (len(stream) + 1) for place in places)
    pieces = [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]
    assert in_pieces(pieces) == plainly(stream)
    assert in_pieces(events) == plainly(stream)  # as they are sent: an event a read


CHANGES = {
    ("content",): [None, "", 5],
    ("reasoning_content",): [None, "", "why"],
    ("reasoning",): [None, "", "why"],
    ("refusal",): [None, "", "no"],
    ("tool_calls",): [None, [], [{"id": "1", "function": {"name": "f", "arguments": "{}"}}]],
    ("choice", "index"): [0, 1],
    ("choice", "delta"): [None, {}, {"content": "other"}],
    ("choice", "message"): [None, {}, {"content": "other"}],
    ("choice", "text"): [None, "", "more"],
    ("choice", "finish_reason"): [None, "", "stop", "length", "tool_calls", "eos", "abort"],
    ("choice", "logprobs"): [None, {}, {"content": [{"token": "t", "logprob": -1.0}]}],
    ("choice", "token_ids"): [None, [], [7]],
    ("chunk", "choices"): [[], [{"delta": {"content": "a"}}, {"message": {"content": "b"}}]],
    ("chunk", "error"): [None, {"message": "broken"}],
    ("chunk", "usage"): [
        *[None, {}, {"prompt_tokens": 5}, {"prompt_tokens": None, "completion_tokens": 2}],
        *[{"prompt_tokens_details": value} for value in (None, {}, {"cached_tokens": 3})],
    ],
}
"""What may be there besides plain text, by its place."""
EACH = [(place, value) for place, values in CHANGES.items() for value in values]


def changed(content, changes):
    """A piece or a message of plain text, but for these."""
    inner = {"content": "text"}
    choice = {"index": 0, content: inner, "finish_reason": None if content == "delta" else "stop"}
    value = {"id": "x", "choices": [choice]}
    if content == "message":
        value["usage"] = {"prompt_tokens": 1, "completion_tokens": 2}
    for (*where, name), new in changes:
        {"choice": choice, "chunk": value}.get("".join(where), inner)[name] = new
    return json.dumps(value).encode()


SOME = st.lists(st.sampled_from(EACH), max_size=3)


def folded(fold, payload):
    deltas = []
    try:
        over = fold.take((payload,), deltas)
    except HeadraceError as error:
        over = str(error.code)
    return over, deltas, fold.reasons, fold.usage()


@pytest.mark.parametrize("content", ["delta", "message"])
def test_what_is_taken_for_plain_text_is_folded_like_anything_else(content):
    @given(SOME)
    def check(changes):
        payload = changed(content, changes)
        assert folded(ChatFold(2, _plain=True), payload) == folded(ChatFold(2), payload)

    check()
    for change in EACH:
        check.hypothesis.inner_test([change])


def test_plain_text_is_taken_for_it():
    fold = ChatFold(0, _plain=True)
    plain = json.dumps(chunk({"content": "a"}, finish_reason=None, logprobs=None)).encode()
    assert folded(fold, plain) == (False, [Delta("a")], {}, Usage(0, 1, 0))
    assert fold._plain
    folded(fold, b'{"choices":[{"delta":{},"finish_reason":"stop"}]}')
    assert not fold._plain
    folded(fold, plain)
    assert fold._plain


def whole(body, choices, at_once):
    told = Told()
    run = SoloRun(told, ChatFold(0), False, choices, told)
    if at_once:
        run.whole(200, {}, body)
    else:
        run.head(200, {})
        run.body(body[:9])
        run.body(body[9:])
        run.end()
    return told.seen, told.end


def wholly(body, choices):
    """The same by the fold that takes any answer."""
    told = Told()
    run = SoloRun(told, ChatFold(0), False, choices, told)
    deltas = []
    try:
        run.fold._take(body, deltas)
    except HeadraceError as error:
        run.failed(error)
    else:
        run._done(deltas)
    return told.seen, told.end


@pytest.mark.parametrize("at_once", [True, False])
def test_a_whole_answer_of_plain_text_is_told_like_any_other(at_once):
    @given(st.sampled_from(["message", "message", "delta"]), SOME, st.integers(1, 2))
    def check(content, changes, choices):
        body = changed(content, changes)
        assert whole(body, choices, at_once) == wholly(body, choices)

    check()
    for change in EACH:
        check.hypothesis.inner_test("message", [change], 1)
