"""Clients of every protocol that read one generation a little at a time: what came, by the log's numbers."""

from __future__ import annotations

import asyncio
import json
from abc import ABC, abstractmethod
from base64 import b64decode, b64encode
from collections.abc import Callable
from typing import Any, NamedTuple

import grpc
from google.protobuf.json_format import MessageToJson

from headrace.protocols.grpc import headrace_pb2 as pb

SERVICE = "/headrace.v1.InferenceService/"
JSON = "content-type: application/json\r\n"


class Seen(NamedTuple):
    """What a client may keep up to a cursor: ``text`` of tokens, ``ends`` of the log that were in it."""

    seq: int
    text: str
    ends: int


class Leg(ABC):
    """One connection. ``generation``: what it reads, as soon as that is known."""

    generation = ""

    @abstractmethod
    async def more(self) -> list[Seen] | None:
        """What is whole of the next that came; None at the end."""

    @abstractmethod
    async def leave(self) -> None:
        """The client is gone."""


class HttpLeg(Leg):
    """``parse``: takes whole units off the beginning of a buffer."""

    def __init__(self, parse: Callable[[bytearray], list[Seen]]) -> None:
        self._parse = parse
        self._buffer = bytearray()
        self.status = 0

    async def ask(self, port: int, head: str, body: bytes = b"") -> HttpLeg:
        self._reader, self._writer = await asyncio.open_connection("127.0.0.1", port)
        self._writer.write(
            f"{head}host: localhost\r\ncontent-length: {len(body)}\r\n\r\n".encode() + body
        )
        answered = await self._reader.readuntil(b"\r\n\r\n")
        lines = answered.decode("latin-1").split("\r\n")
        self.status = int(lines[0].split(" ")[1])
        fields = dict(line.split(": ", 1) for line in lines[1:] if line)
        self.generation = fields.get("x-generation-id", "")
        return self

    async def more(self) -> list[Seen] | None:
        data = await self._reader.read(1 << 16)
        if not data:
            assert not self._buffer, bytes(self._buffer)
            self._writer.close()
            return None
        self._buffer += data
        return self._parse(self._buffer)

    async def rest(self) -> bytes:
        """The body of an answer that is no stream."""
        body = await self._reader.read()
        self._writer.close()
        return body

    async def leave(self) -> None:
        self._writer.transport.abort()
        await asyncio.sleep(0)


class GrpcLeg(Leg):
    def __init__(self, call: Any) -> None:
        self._call = call

    async def begun(self) -> GrpcLeg:
        metadata = dict(await self._call.initial_metadata())
        self.generation = metadata["x-generation-id"]
        return self

    async def more(self) -> list[Seen] | None:
        try:
            event = await self._call.read()
        except grpc.aio.AioRpcError as error:
            if error.code() != grpc.StatusCode.CANCELLED:
                raise
            return None
        if event is grpc.aio.EOF:
            return None
        return [seen_event(pb.Event.FromString(event))]

    async def leave(self) -> None:
        self._call.cancel()
        await asyncio.sleep(0)


def seen_event(event: pb.Event) -> Seen:
    ends = event.WhichOneof("payload") in ("finish", "error")
    return Seen(event.seq, event.token.text, ends)


# What units look like on the wires of HTTP.


def server_sent(said: Callable[[Any], tuple[str, int]]) -> Callable[[bytearray], list[Seen]]:
    """Blocks; what came since the last id counts only with the next one. ``said``: text and ends of one message."""
    texts: list[str] = []
    ends = 0

    def parse(buffer: bytearray) -> list[Seen]:
        nonlocal ends
        found = []
        while (at := buffer.find(b"\n\n")) >= 0:
            block = bytes(buffer[:at])
            del buffer[: at + 2]
            fields = dict(
                line.split(": ", 1)
                for line in block.decode().split("\n")
                if line and not line.startswith(":")
            )
            if data := fields.get("data"):
                text, end = ("", 0) if data == "[DONE]" else said(json.loads(data))
                texts.append(text)
                ends += end
            if id := fields.get("id"):
                found.append(Seen(int(id), "".join(texts), ends))
                texts.clear()
                ends = 0
        return found

    return parse


def lines(buffer: bytearray) -> list[Seen]:
    """Native events, one a line."""
    found = []
    while (at := buffer.find(b"\n")) >= 0:
        event = json.loads(buffer[:at])
        del buffer[: at + 1]
        found.append(Seen(event["seq"], *native(event)))
    return found


def envelopes(decode: Callable[[bytes], Seen]) -> Callable[[bytearray], list[Seen]]:
    def parse(buffer: bytearray) -> list[Seen]:
        found = []
        while len(buffer) >= 5 and len(buffer) >= (end := 5 + int.from_bytes(buffer[1:5], "big")):
            if not buffer[0]:
                found.append(decode(bytes(buffer[5:end])))
            del buffer[:end]
        return found

    return parse


def in_base64(parse: Callable[[bytearray], list[Seen]]) -> Callable[[bytearray], list[Seen]]:
    plain = bytearray()

    def parse_text(buffer: bytearray) -> list[Seen]:
        whole = len(buffer) // 4 * 4
        plain.extend(b"".join(b64decode(buffer[at : at + 4]) for at in range(0, whole, 4)))
        del buffer[:whole]
        return parse(plain)

    return parse_text


def from_json(data: bytes) -> Seen:
    """A message in Connect's JSON, where what is empty is left out."""
    event = json.loads(data)
    text = event.get("token", {}).get("text", "")
    return Seen(event.get("seq", 0), text, "finish" in event or "error" in event)


def from_proto(data: bytes) -> Seen:
    return seen_event(pb.Event.FromString(data))


# What one message says in each format: its text, and whether it is the end.


def native(event: Any) -> tuple[str, int]:
    text = event["payload"]["text"] if event["type"] == "token" else ""
    return text, event["type"] in ("finish", "error")


def chat(chunk: Any) -> tuple[str, int]:
    if "error" in chunk:
        return "", 1
    texts = [choice["delta"].get("content") or "" for choice in chunk["choices"]]
    return "".join(texts), any(choice["finish_reason"] for choice in chunk["choices"])


def completion(chunk: Any) -> tuple[str, int]:
    if "error" in chunk:
        return "", 1
    texts = [choice["text"] for choice in chunk["choices"]]
    return "".join(texts), any(choice["finish_reason"] for choice in chunk["choices"])


def response(event: Any) -> tuple[str, int]:
    text = event["delta"] if event["type"] == "response.output_text.delta" else ""
    return text, event["type"] in (
        "response.completed",
        "response.incomplete",
        "response.failed",
    )


def anthropic(event: Any) -> tuple[str, int]:
    text = event["delta"]["text"] if event["type"] == "content_block_delta" else ""
    return text, event["type"] in ("message_stop", "error")


FORMATS = {
    "native": native,
    "openai-chat": chat,
    "openai-completions": completion,
    "responses": response,
    "anthropic": anthropic,
}
WEB: dict[str, Callable[[], Callable[[bytearray], list[Seen]]]] = {
    "application/grpc-web+proto": lambda: envelopes(from_proto),
    "application/grpc-web-text": lambda: in_base64(envelopes(from_proto)),
    "application/connect+proto": lambda: envelopes(from_proto),
    "application/connect+json": lambda: envelopes(from_json),
}


def web_body(kind: str, *messages: Any) -> bytes:
    data = [
        MessageToJson(one).encode() if kind.endswith("json") else one.SerializeToString()
        for one in messages
    ]
    body = b"".join(b"\0" + len(one).to_bytes(4, "big") + one for one in data)
    return b64encode(body) if "text" in kind else body
