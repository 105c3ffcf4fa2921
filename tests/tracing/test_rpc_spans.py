"""Calls over gRPC, gRPC-Web and Connect: a span for each, between its client's and those of its generation."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import grpc
import httpx
import pytest
from tests.kill.arena import free_port
from tests.tracing.arena import Collector, Server, collecting

from headrace.protocols.grpc import headrace_pb2 as pb

SERVICE = "headrace.v1.InferenceService"
SCRIPT = """
[[scripts]]
when = "hang"
tokens = ["The "]
hang_after = 1
[[scripts]]
when = "slow"
tokens = ["The ", "mill ", "turns."]
delay_ms = 200
[[scripts]]
tokens = ["The ", "mill ", "turns."]
"""
KEY = "sk-mill"
SYSTEMS = {"grpc": "grpc", "grpc-web": "grpc", "connect": "connectrpc"}
Ask = Callable[[str, Any, dict[str, str]], None]
"""Method, message and metadata; answered or refused."""


def enveloped(data: bytes) -> bytes:
    return b"\0" + len(data).to_bytes(4, "big") + data


def parent(key: str = KEY) -> tuple[str, str, dict[str, str]]:
    """A client's trace: its id, its span, its metadata."""
    trace, span = secrets.token_hex(16), secrets.token_hex(8)
    said = {"traceparent": f"00-{trace}-{span}-01", "authorization": f"Bearer {key}"}
    return trace, span, said


class Wires:
    """A server, asked over each of its wires."""

    def __init__(self, server: Server, port: int) -> None:
        self.server = server
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port}")

    def ask(self, wire: str) -> Ask:
        ways: dict[str, Ask] = {"grpc": self._grpc, "grpc-web": self._web, "connect": self._connect}
        return ways[wire]

    def _grpc(self, method: str, message: Any, metadata: dict[str, str]) -> None:
        call: Any = self.channel.unary_stream(f"/{SERVICE}/{method}")
        try:
            list(call(message.SerializeToString(), metadata=tuple(metadata.items())))
        except grpc.RpcError:
            pass

    def _web(self, method: str, message: Any, metadata: dict[str, str]) -> None:
        self._post(method, enveloped(message.SerializeToString()), "application/grpc-web", metadata)

    def _connect(self, method: str, message: Any, metadata: dict[str, str]) -> None:
        body = message.SerializeToString()
        if method == "StreamInfer":
            self._post(method, enveloped(body), "application/connect+proto", metadata)
        else:
            self._post(method, body, "application/proto", metadata)

    def _post(self, method: str, body: bytes, kind: str, metadata: dict[str, str]) -> None:
        headers = {"content-type": kind, **metadata}
        url = f"{self.server.url}/{SERVICE}/{method}"
        httpx.post(url, content=body, headers=headers, timeout=30)

    def open(self, method: str, metadata: dict[str, str], **options: Any) -> Any:
        """A call over gRPC, not read yet: a function of its message or messages."""
        path = f"/{SERVICE}/{method}"
        channel = self.channel
        call: Any = (
            channel.stream_stream(path) if method == "Converse" else channel.unary_stream(path)
        )
        return lambda said: call(said, metadata=tuple(metadata.items()), **options)


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def wires(collector, tmp_path_factory) -> Iterator[Wires]:
    folder = tmp_path_factory.mktemp("rpc")
    script = folder / "script.toml"
    script.write_text(SCRIPT)
    port = free_port()
    more = f'grpc_port = {port}\napi_key = ["{KEY}"]'
    model = f'engine = "scripted"\nscript = "{script}"'
    server = Server(folder, model, {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url}, more)
    server.start()
    wires = Wires(server, port)
    yield wires
    wires.channel.close()
    server.end()


def streamed(prompt: str) -> Any:
    return pb.StreamInferRequest(infer=pb.InferRequest(prompt=prompt))


every_wire = pytest.mark.parametrize("wire", list(SYSTEMS))


@every_wire
def test_a_call_is_one_trace_from_its_client_to_its_engine(wires, collector, wire) -> None:
    trace, span, metadata = parent()
    wires.ask(wire)(
        "StreamInfer", streamed("Hi"), {**metadata, "tracestate": "a=b", "x-request-id": "mine"}
    )
    call, generation, queue, attempt = collector.trace(trace, 4)
    assert [s.name for s in (generation, queue, attempt)] == [
        "text_completion m",
        "queue",
        "attempt",
    ]
    assert [s.parent for s in (call, generation, queue, attempt)] == [
        span,
        call.id,
        generation.id,
        generation.id,
    ]
    assert (call.kind, call.name) == ("server", f"{SERVICE}/StreamInfer")
    ok = {"rpc.response.status_code": "OK"} if SYSTEMS[wire] == "grpc" else {}
    assert call.attributes == {
        "rpc.system.name": SYSTEMS[wire],
        "rpc.method": f"{SERVICE}/StreamInfer",
        "headrace.request.id": "mine",
        **ok,
    }
    assert {s.tracestate for s in (call, generation, queue, attempt)} == {"a=b"}
    assert not call.failed


@every_wire
def test_every_method_has_a_span(wires, collector, wire) -> None:
    item = pb.InferRequest(prompt="Hi")
    asked = {
        "Infer": (item, 4),
        "BatchInfer": (pb.BatchInferRequest(requests=[item, item]), 1 + 2 * 3),
        "GetModelInfo": (pb.GetModelInfoRequest(), 1),
        "Abort": (pb.AbortRequest(token="none"), 1),
    }
    for method, (message, count) in asked.items():
        trace, span, metadata = parent()
        wires.ask(wire)(method, message, metadata)
        call = collector.trace(trace, count)[0]
        assert (call.name, call.parent) == (f"{SERVICE}/{method}", span)


@every_wire
def test_what_a_call_is_refused_with(wires, collector, wire) -> None:
    lower = SYSTEMS[wire] == "connectrpc"
    refusals = (
        ("UNAUTHENTICATED", "sk-wrong", pb.InferRequest(prompt="Hi")),
        ("NOT_FOUND", KEY, pb.InferRequest(prompt="Hi", model="none")),
        ("INVALID_ARGUMENT", KEY, pb.InferRequest()),
    )
    for code, key, message in refusals:
        trace, _, metadata = parent(key)
        wires.ask(wire)("Infer", message, metadata)
        (call,) = collector.trace(trace, 1)
        wanted = code.lower() if lower else code
        assert call.attributes["rpc.response.status_code"] == wanted
        assert not call.failed, "a client's mistake is no error of the server"
        assert "error.type" not in call.attributes


@every_wire
def test_a_deadline_that_passes_is_an_error(wires, collector, wire) -> None:
    trace, _, metadata = parent()
    asked = streamed("hang")
    if wire == "grpc":
        call = wires.open("StreamInfer", metadata, timeout=0.5)
        with pytest.raises(grpc.RpcError, match="DEADLINE_EXCEEDED"):
            list(call(asked.SerializeToString()))
    else:
        limit = {"grpc-timeout": "500m"} if wire == "grpc-web" else {"connect-timeout-ms": "500"}
        wires.ask(wire)("StreamInfer", asked, metadata | limit)
    span = collector.trace(trace, 4)[0]
    code = span.attributes["rpc.response.status_code"]
    assert code.upper() == "DEADLINE_EXCEEDED"
    assert (span.attributes["error.type"], span.failed) == (code, True)
    assert "deadline" in span.message.lower()


def left(span) -> None:
    assert span.attributes["error.type"] == "client_disconnected"
    assert span.attributes["rpc.response.status_code"].upper() in ("CANCELLED", "CANCELED")
    assert not span.failed


def test_a_client_that_leaves_is_no_error_of_ours(wires, collector) -> None:
    asked = streamed("hang").SerializeToString()

    trace, _, metadata = parent()
    call = wires.open("StreamInfer", metadata)(asked)
    next(call)
    call.cancel()
    left(collector.trace(trace, 4)[0])

    trace, _, metadata = parent()
    headers = {"content-type": "application/connect+proto", **metadata}
    url = f"{wires.server.url}/{SERVICE}/StreamInfer"
    with httpx.stream("POST", url, content=enveloped(asked), headers=headers) as answer:
        next(answer.iter_raw())
    left(collector.trace(trace, 4)[0])


def test_a_client_that_leaves_before_its_first_word_has_a_span(wires, collector) -> None:
    trace, _, metadata = parent()
    with Saying() as saying:
        call = wires.open("Converse", metadata)(saying)
        # Another call on the connection is answered, so this one has come.
        list(wires.open("GetModelInfo", parent()[2])(b""))
        call.cancel()
        (span,) = collector.trace(trace, 1)
    # To the server it looks as if the client had nothing to say.
    assert span.attributes["rpc.response.status_code"] in ("INVALID_ARGUMENT", "CANCELLED")
    assert not span.failed


def test_a_prompt_in_mid_stream_ends_an_attempt_and_begins_another(wires, collector) -> None:
    trace, span, metadata = parent()
    with Saying(pb.ConverseRequest(infer=pb.InferRequest(prompt="slow"))) as saying:
        events = map(pb.Event.FromString, wires.open("Converse", metadata)(saying))
        next(event for event in events if event.HasField("token"))
        saying.say(pb.ConverseRequest(prompt=pb.Prompt(role="user", content="Shorter.")))
        assert "prompt" in [event.WhichOneof("payload") for event in events]
    call, generation, *rest = collector.trace(trace, 5)
    assert (call.name, call.parent, generation.parent) == (f"{SERVICE}/Converse", span, call.id)
    assert [each.name for each in rest] == ["queue", "attempt", "attempt"]
    assert {each.parent for each in rest} == {generation.id}
    assert generation.events == ["first_token", "prompt"]
    _, first, second = rest
    assert first.end <= second.start
    assert not first.failed
    assert "error.type" not in first.attributes
    assert second.end <= generation.end


@every_wire
def test_reading_on_leads_to_the_trace_of_the_generation(wires, collector, wire) -> None:
    begun, _, metadata = parent()
    call = wires.open("StreamInfer", metadata)(streamed("Hi").SerializeToString())
    generation_id = dict(call.initial_metadata())["x-generation-id"]
    assert list(call)
    original = collector.trace(begun, 4)[0]

    trace, span, metadata = parent()
    resume = pb.StreamInferRequest(resume=pb.Resume(generation_id=generation_id, after=2))
    wires.ask(wire)("StreamInfer", resume, metadata)
    (again,) = collector.trace(trace, 1)
    assert again.parent == span
    assert again.links == [(begun, original.id)]


class Saying:
    """What a client of ``Converse`` says, until it leaves the block."""

    def __init__(self, *first: Any) -> None:
        self._said: Sequence[Any] = list(first)
        self._more = threading.Condition()
        self._over = False

    def __enter__(self) -> Saying:
        return self

    def __exit__(self, *_: object) -> None:
        with self._more:
            self._over = True
            self._more.notify()

    def say(self, message: Any) -> None:
        with self._more:
            self._said = [*self._said, message]
            self._more.notify()

    def __iter__(self) -> Saying:
        return self

    def __next__(self) -> bytes:
        with self._more:
            self._more.wait_for(lambda: self._said or self._over)
            if not self._said:
                raise StopIteration
            message, *self._said = self._said
            return message.SerializeToString()
