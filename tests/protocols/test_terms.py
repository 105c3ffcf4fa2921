"""What is concluded once of a head changes nothing that is said to the requests that share it."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.domain.errors import HeadraceError
from headrace.domain.request import Caller
from headrace.protocols.asking import caller_of
from headrace.protocols.call import Call
from headrace.protocols.openai_request import _chat, chat_request, decode_chat
from headrace.protocols.terms import Terms

CHAT = b'{"model": "scripted", "messages": [{"role": "user", "content": "Hi."}]}'
STREAM = CHAT[:-1] + b', "stream": true}'


class Wire:
    """One raw connection: nothing but what a test says is in a head."""

    def __init__(self, url: str) -> None:
        self.port = int(url.rpartition(":")[2])

    async def open(self) -> Wire:
        self.reader, self.writer = await asyncio.open_connection("127.0.0.1", self.port)
        return self

    async def ask(
        self, line: str, body: bytes = b"", **headers: str
    ) -> tuple[int, dict[str, str], bytes]:
        said = [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        length = [f"Content-Length: {len(body)}"] if body else []
        head = "\r\n".join([f"{line} HTTP/1.1", "Host: h", *said, *length, "", ""])
        self.writer.write(head.encode("latin-1") + body)
        lines = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")[:-2]
        fields = dict(tuple(each.split(": ", 1)) for each in lines[1:])
        if "content-length" in fields:
            answer = await self.reader.readexactly(int(fields["content-length"]))
        elif "transfer-encoding" in fields:
            answer = await self.reader.readuntil(b"\r\n0\r\n\r\n")
        else:
            answer = b""
        return int(lines[0].split()[1]), fields, answer


CASES: list[tuple[str, bytes, dict[str, str], int]] = [
    ("POST /v1/chat/completions", CHAT, {}, 200),
    ("POST /v1/chat/completions", STREAM, {}, 200),
    ("POST /v1/chat/completions", CHAT, {"X_Session_Id": "s", "X_On_Disconnect": "continue"}, 200),
    ("POST /v1/chat/completions", CHAT, {"X_Request_Id": "mine"}, 200),
    ("POST /v1/chat/completions", CHAT, {"X_Request_Id": "not mine!"}, 200),
    ("POST /v1/chat/completions", STREAM, {"X_Stream_Events": "progress"}, 200),
    ("POST /v1/chat/completions", STREAM, {"X_Stream_Events": "nothing"}, 400),
    ("POST /v1/chat/completions", CHAT, {"X_On_Disconnect": "never"}, 400),
    ("POST /v1/chat/completions", CHAT, {"Content_Type": "text/plain"}, 415),
    ("POST /v1/chat/completions", CHAT, {"Content_Type": "application/json; charset=utf-8"}, 200),
    ("POST /v1/chat/completions", CHAT, {"Accept": "image/png"}, 406),
    ("POST /v1/chat/completions", b"{", {}, 400),
    ("POST /v1/chat/completions", b"", {}, 400),
    ("POST /v1/chat/completions", CHAT, {"Last_Event_Id": "1"}, 400),
    ("POST /v1/completions", b'{"model": "scripted", "prompt": "a"}', {}, 200),
    ("POST /v1/infer", b'{"prompt": "a"}', {}, 200),
    ("POST /v1/stream_infer", b'{"prompt": "a"}', {}, 200),
    ("POST /v1/batch_infer", b'[{"prompt": "a"}]', {}, 200),
    ("GET /v1/chat/completions", b"", {}, 405),
    ("GET /v1/nothing", b"", {}, 404),
    ("GET /v1/models", b"", {"Origin": "https://a.example"}, 200),
    ("GET /v1/models", b"", {"Origin": "https://b.example"}, 200),
    ("OPTIONS /v1/models", b"", {"Origin": "https://a.example"}, 204),
    ("OPTIONS /v1/nothing", b"", {}, 404),
    ("GET /livez", b"", {}, 200),
]


def said(answer: tuple[int, dict[str, str], bytes]) -> Any:
    """An answer without what differs by nature: ids, times."""
    status, fields, body = answer
    own = ("date", "x-request-id", "x-generation-id", "openai-processing-ms", "content-length")
    same = [(name, None if name in own else value) for name, value in fields.items()]
    plain = re.sub(rb"(gen_|cmpl-)[0-9A-Z]{26}|\d{10}\.\d+|latency\D+[0-9.]+", b"ID", body)
    return status, same, plain


@pytest.mark.parametrize(("line", "body", "headers", "status"), CASES)
def test_the_third_request_with_a_head_is_answered_as_the_first(
    kit: Any, line: str, body: bytes, headers: dict[str, str], status: int
) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with kit.serving(service, cors_origins=("https://a.example",)) as url:
            wire = await Wire(url).open()
            answers = [await wire.ask(line, body, **headers) for _ in range(3)]
            wire.writer.close()
        assert answers[0][0] == status
        assert said(answers[0]) == said(answers[1]) == said(answers[2])
        ids = {answer[1]["x-request-id"] for answer in answers}
        assert len(ids) == (1 if headers.get("X_Request_Id") == "mine" else 3)
        generations = [answer[1].get("x-generation-id") for answer in answers]
        assert len(set(generations)) == (3 if generations[0] else 1)

    kit.run(main())


def test_a_key_is_asked_for_anew_with_every_request(kit: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello, keys={"sk-1": "alice"})
        async with kit.serving(service) as url:
            wire = await Wire(url).open()
            path, key = "POST /v1/chat/completions", "Bearer sk-1"
            statuses = [(await wire.ask(path, CHAT, Authorization=key))[0]]
            service.keys = {"sk-1": "bob"}
            statuses.append((await wire.ask(path, CHAT, Authorization=key))[0])
            service.keys = {"sk-2": "bob"}
            statuses.append((await wire.ask(path, CHAT, Authorization=key))[0])
            statuses.append((await wire.ask(path, CHAT))[0])
            wire.writer.close()
        assert statuses == [200, 200, 401, 401]
        assert [each.caller.tenant for each in service.generations] == ["alice", "bob"]

    kit.run(main())


def test_streams_and_whole_answers_share_a_head_and_each_is_judged_by_itself(kit: Any) -> None:
    async def main() -> None:
        async with kit.serving(kit.Service(kit.hello)) as url:
            wire = await Wire(url).open()
            got = []
            for body in (STREAM, CHAT, STREAM, CHAT):
                accept = "application/x-ndjson"
                status, fields, _ = await wire.ask("POST /v1/chat/completions", body, Accept=accept)
                got.append((status, fields["content-type"].partition(";")[0]))
            wire.writer.close()
        assert got == [(200, "application/x-ndjson"), (406, "application/json")] * 2

    kit.run(main())


def test_the_session_of_a_body_is_that_requests_alone(kit: Any) -> None:
    class Head:
        headers: tuple[tuple[bytes, bytes], ...] = ((b"x-abort-token", b"t"),)

    terms = Terms(Head())  # type: ignore[arg-type]

    def caller(number: int, session_id: str | None) -> Caller:
        call = Call(None, terms, f"req_{number}", 0.0, f"tenant {number}")  # type: ignore[arg-type]
        return caller_of(call, session_id)

    assert caller(1, "s") == Caller("tenant 1", "req_1", "s", "t")
    assert caller(2, None) == Caller("tenant 2", "req_2", None, "t")


def test_the_first_field_of_a_name_counts() -> None:
    class Head:
        headers = ((b"accept", b"a"), (b"accept", b"b"), (b"authorization", b"bearer  k "))

    terms = Terms(Head())  # type: ignore[arg-type]

    assert terms.fields[b"accept"] == b"a"
    assert terms.key == "k"


values = st.one_of(
    st.none(), st.booleans(), st.integers(0, 3), st.floats(0, 1), st.text(max_size=3)
)
fields = st.dictionaries(st.sampled_from(sorted(_chat._known - {"messages"})), values, max_size=5)
messages = st.lists(
    st.fixed_dictionaries(
        {"role": st.sampled_from(["user", "assistant", "tool"])},
        optional={"content": st.text(max_size=3) | st.none(), "name": st.text(max_size=3)},
    ),
    min_size=1,
    max_size=3,
)


@settings(deadline=None, max_examples=300)
@given(fields, messages)
def test_the_short_way_of_a_body_leads_where_the_long_one_does(
    fields: dict[str, Any], messages: list[dict[str, Any]]
) -> None:
    body = msgspec.json.encode({"model": "m", "messages": messages, **fields})

    def outcome(decode: Any) -> Any:
        try:
            return decode()
        except HeadraceError as error:
            return error.code, error.message, error.param

    assert outcome(lambda: decode_chat(body)) == outcome(lambda: chat_request(*_chat.decode(body)))
