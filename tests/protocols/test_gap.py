"""One code path: an event that is missing in the store is missing in everything that is said of its log.

Answers of a real server are finished and stored; then one event is taken out of the stored log, and a newly
started server is asked for it through every way out. Each must show the gap: the event's text is not there,
and either all the rest is as it was or the answer ends with an error. The ways out are found in the code's
own registries, so that a new one without a case here fails.
"""

from __future__ import annotations

import asyncio
import http.client
import importlib
import inspect
import json
import pkgutil
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from tests.kill.arena import Server
from tests.streams.damage import delete_event

import headrace.protocols
from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.collector import Collector
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.fold import Fold
from headrace.protocols.formats import ENCODERS
from headrace.streams.hub import Hub
from headrace.streams.kept import Kept
from headrace.streams.sqlite import SqliteStore

TEXTS = [f"word{place} " for place in range(1, 13)]
ACCEPT = {"sse": "text/event-stream", "ndjson": "application/x-ndjson"}

ASKED: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/v1/stream_infer", {"prompt": "hello"}),
    "openai-chat": ("/v1/chat/completions", {"messages": [{"role": "user", "content": "hello"}]}),
    "openai-completions": ("/v1/completions", {"prompt": "hello"}),
    "responses": ("/v1/responses", {"input": "hello"}),
    "anthropic": (
        "/v1/messages",
        {"messages": [{"role": "user", "content": "hello"}], "max_tokens": 99},
    ),
}
"""How a log is written whose first reader reads this format."""
WHOLE = {"chat_completion": "openai-chat", "text_completion": "openai-completions"} | {
    "infer_answer": "native"
}
"""The functions that make a whole answer of a log, and the format of the log that they are tried on."""
READING = {"/v1/generations/{id}", "/v1/generations/{id}/events"}
"""Routes that say something of a log that exists already; a ``POST`` that resumes is tried for each format."""
MISSING = ("first token", "middle token", "finish")


class Way(NamedTuple):
    """One way out of a stored log: a request without its generation."""

    name: str
    method: str
    path: str
    headers: dict[str, str]


class Stored(NamedTuple):
    """A log with a gap: what was taken out, and what each way said before."""

    id: str
    seq: int
    text: str
    before: dict[str, bytes]


def ways(wire: str) -> list[Way]:
    """All ways out of a log that was written for this format."""
    path, _ = ASKED[wire]
    found = [Way("state", "GET", "/v1/generations/{id}", {})]
    for form in FRAMINGS:
        accept = {"Accept": ACCEPT[form]}
        for asked in ("openai", *ENCODERS):
            events = f"/v1/generations/{{id}}/events?format={asked}"
            found.append(Way(f"{asked} as {form}", "GET", events, accept))
        resumed = accept | {"Last-Event-ID": "0", "X-Generation-Id": "{id}"}
        found.append(Way(f"resumed as {form}", "POST", path, resumed))
        if wire == "responses":
            stream = "/v1/responses/{id}?stream=true"
            found.append(Way(f"responses read as {form}", "GET", stream, accept))
    if wire == "responses":
        found.append(Way("responses at once", "GET", "/v1/responses/{id}", {}))
    return found


def say(server: Server, way: Way, generation: str) -> bytes:
    """What the server says, its status first."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {name: value.replace("{id}", generation) for name, value in way.headers.items()}
    connection.request(way.method, way.path.replace("{id}", generation), headers=headers)
    response = connection.getresponse()
    said = b"%d\n" % response.status + response.read()
    connection.close()
    return said


def write(server: Server, wire: str) -> tuple[str, list[dict[str, Any]]]:
    """A finished answer: its id and its log."""
    path, body = ASKED[wire]
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    headers = {"Content-Type": "application/json", "X-On-Disconnect": "continue"}
    connection.request("POST", path, json.dumps(body | {"model": "m", "stream": True}), headers)
    response = connection.getresponse()
    assert response.status == 200, response.read()
    response.read()
    connection.close()
    generation = response.headers["x-generation-id"]
    return generation, server.log_of(generation)


def chosen(log: list[dict[str, Any]], missing: str) -> dict[str, Any]:
    tokens = [event for event in log if event["type"] == "token"]
    events = {"first token": tokens[0], "middle token": tokens[len(tokens) // 2]}
    return events.get(missing, log[-1])


class House(NamedTuple):
    """``gaps``: by the log's format and what is missing. ``copy``: of the store, for who reads it alone."""

    server: Server
    gaps: dict[tuple[str, str], Stored]
    copy: Path


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    """A server whose stored logs have gaps, one for each format and kind of missing event."""
    folder = tmp_path_factory.mktemp("gap")
    script = folder / "script.json"
    script.write_text(json.dumps({"scripts": [{"tokens": TEXTS, "delay_ms": 1}]}))
    model = f'[[models]]\nname = "m"\nengine = "scripted"\nscript = "{script}"\n'
    server = Server(folder, model)
    server.start()
    assert server.process
    try:
        stored: dict[tuple[str, str], Stored] = {}
        for wire in ASKED:
            for missing in MISSING:
                generation, log = write(server, wire)
                event = chosen(log, missing)
                before = {way.name: say(server, way, generation) for way in ways(wire)}
                text = event["payload"].get("text", "")
                stored[wire, missing] = Stored(generation, event["seq"], text, before)
        server.process.terminate()
        server.process.wait(20.0)
        database = folder / "state" / "headrace.db"
        for gap in stored.values():
            delete_event(database, gap.id, gap.seq)
        copy = folder / "copy.db"
        shutil.copy(database, copy)
        server.start()
        yield House(server, stored, copy)
    finally:
        server.kill()


WAYS_OUT = [(wire, way) for wire in ASKED for way in ways(wire)]


def messages(said: bytes) -> list[bytes]:
    """The status, then the messages of a stream of either framing."""
    status, _, body = said.partition(b"\n")
    between = b"\n\n" if b"\n\n" in body else b"\n"
    body = body.removeprefix(FRAMINGS["sse"].preamble)
    return [status, *(message for message in body.split(between) if message)]


@pytest.mark.parametrize(("wire", "way"), WAYS_OUT, ids=lambda of: getattr(of, "name", of))
@pytest.mark.parametrize("missing", ["first token", "middle token"])
def test_every_stream_of_a_stored_log_lacks_the_token_that_the_log_lacks(
    house: House, wire: str, way: Way, missing: str
) -> None:
    if way.name == "state":
        return  # it says nothing of tokens
    gap = house.gaps[wire, missing]
    whole = messages(gap.before[way.name])
    if "responses" in way.name or (wire == "responses" and "resumed" in way.name):
        said = messages(say(house.server, way, gap.id))
        assert gap.text.encode() not in b"".join(said)
        rest = [text for text in TEXTS if text != gap.text]
        assert response_texts(said) in (rest, ["".join(rest)]) or tells_a_failure(said[-1])
        return
    rest = [message for message in whole if gap.text.encode() not in message]
    assert len(rest) == len(whole) - 1

    said = messages(say(house.server, way, gap.id))

    assert said == rest or ends_with_error(said, rest)


@pytest.mark.parametrize(("wire", "way"), WAYS_OUT, ids=lambda of: getattr(of, "name", of))
def test_no_way_out_invents_the_end_that_a_stored_log_lacks(
    house: House, wire: str, way: Way
) -> None:
    gap = house.gaps[wire, "finish"]
    before = messages(gap.before[way.name])

    said = messages(say(house.server, way, gap.id))

    assert ends_with_error(said, before)


def response_texts(said: list[bytes]) -> list[str]:
    """What a response says in its deltas, or at once."""
    read = [json.loads(one[one.index(b"{") :]) for one in said if b"{" in one]
    if len(read) == 1 and "output" in read[0]:
        return [read[0]["output"][0]["content"][0]["text"]]
    return [one["delta"] for one in read if one["type"] == "response.output_text.delta"]


def tells_a_failure(message: bytes) -> bool:
    """Whether it is an error, as OpenAI or as Anthropic says one."""
    anthropic = b'"type":"error"' in message and b"stored events are missing" in message
    return b'"store_failed"' in message or anthropic


def ends_with_error(said: list[bytes], expected: list[bytes]) -> bool:
    """Whether it breaks off with an error that tells, and is right until then."""
    *good, last = said
    if good == [b"500"]:
        return tells_a_failure(last)
    end = (
        b'"finish_reason":"stop"',
        b'"type":"finish"',
        b"[DONE]",
        b'"response.completed"',
        b"message_stop",
    )
    no_end = not any(mark in message for mark in end for message in said)
    return no_end and tells_a_failure(last) and good == expected[: len(good)]


@pytest.mark.parametrize("name", WHOLE)
@pytest.mark.parametrize("missing", MISSING)
def test_every_whole_answer_of_a_stored_log_shows_the_gap(
    house: House, run: Any, name: str, missing: str
) -> None:
    wire = WHOLE[name]
    gap = house.gaps[wire, missing]

    async def answer() -> str:
        store = SqliteStore(house.copy)
        await store.open()
        try:
            kept = Kept(await Hub(store).find(gap.id))
            read: asyncio.Future[Fold | HeadraceError] = asyncio.get_running_loop().create_future()
            collector = Collector(done=read.set_result)
            collector.attach(kept, client=False)
            fold = await read
            collector.close()
            if isinstance(fold, HeadraceError):
                raise fold
            return renderers()[name](kept, fold).decode()
        finally:
            await store.close()

    if missing == "finish":
        with pytest.raises(HeadraceError) as raised:
            run(answer())
        assert raised.value.code is Code.STORE_FAILED
    else:
        rest = "".join(text for text in TEXTS if text != gap.text)
        assert json.dumps(rest) in run(answer())


def renderers() -> dict[str, Callable[[Any, Fold], bytes]]:
    """All functions of the protocols that make bytes of a whole log."""
    found: dict[str, Callable[[Any, Fold], bytes]] = {}
    for module in pkgutil.iter_modules(headrace.protocols.__path__, "headrace.protocols."):
        loaded = importlib.import_module(module.name)
        for name, function in inspect.getmembers(loaded, inspect.isfunction):
            taken = [
                str(each.annotation) for each in inspect.signature(function).parameters.values()
            ]
            if taken == ["Generation", "Fold"] and function.__annotations__["return"] == "bytes":
                found[name] = function
    return found


def test_every_way_out_has_its_case_here() -> None:
    routes = Api(None, ApiOptions()).routes  # type: ignore[arg-type]
    reading = {each.path for each in routes if each.method == "GET" and "{id}" in each.path}

    assert set(ASKED) == set(ENCODERS)
    assert set(ACCEPT) == set(FRAMINGS)
    assert set(WHOLE) == set(renderers())
    assert {path for path in reading if "generations" in path} == READING
