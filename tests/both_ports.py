"""A whole service on both ports, asked by clients of every protocol."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from headrace.domain.event import Prompt
from headrace.engines.script import Script
from headrace.front.listen import Front, FrontOptions, listen
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.errors import refusal
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.services import Services
from headrace.protocols.grpc.wires import refusal as rpc_refusal
from headrace.streams.sqlite import SqliteStore
from tests.legs import (
    FORMATS,
    JSON,
    SERVICE,
    WEB,
    GrpcLeg,
    HttpLeg,
    Leg,
    lines,
    server_sent,
    web_body,
)
from tests.service.house import House, Witness

GRPC = ("grpc", "converse")
PROTOCOLS = (*FORMATS, "lines", *WEB, *GRPC)
_PATHS = {
    "openai-chat": "/v1/chat/completions",
    "openai-completions": "/v1/completions",
    "responses": "/v1/responses",
    "anthropic": "/v1/messages",
    "native": "/v1/stream_infer",
}


class BothPorts:
    """``witnesses``: a reader of each log that is no client, by the generation's id."""

    front: Front
    port: Front

    def __init__(self, folder: Path, *scripts: Script) -> None:
        self.house = House(*scripts, slots=64, store=SqliteStore(folder / "h.db"))
        service = self.house.service
        self.services = Services(service, 1 << 20)
        self.streams = self.services.streams
        self.api = Api(service, ApiOptions(), more=self.services.wires.routes())
        self.witnesses: dict[str, Witness] = {}

    async def open(self) -> BothPorts:
        await self.house.open()
        self.front = await listen(self.api.handle, FrontOptions(port=0, refuse=refusal))
        alone = self.services.alone(self.api.handle)
        opens = self.services.wires.opens
        self.port = await listen(alone, FrontOptions(port=0, refuse=rpc_refusal, opens=opens))
        self.channel = grpc.aio.insecure_channel(self.port.address)
        return self

    async def close(self) -> None:
        await self.channel.close()
        self.services.close()
        await self.port.close(0.0)
        await self.api.close()
        await self.front.close(0.0)
        await self.house.store.close()

    async def http(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        data = b"" if body is None else json.dumps(body).encode()
        leg = HttpLeg(lambda buffer: [])
        await leg.ask(self.front.port, f"{method} {path} HTTP/1.0\r\n{JSON}", data)
        return leg.status, json.loads(await leg.rest() or b"null")

    async def begin(self, how: str, text: str, fields: dict[str, str]) -> Leg:
        """A new generation, read over the protocol that began it. ``fields``: of its head."""
        infer = pb.InferRequest(prompt=text)
        if how in GRPC:
            return await self._grpc(how, fields, infer=infer)
        if how in WEB:
            leg = await self._web(how, "StreamInfer", [pb.StreamInferRequest(infer=infer)], fields)
        else:
            wire = "native" if how == "lines" else how
            head = f"POST {_PATHS[wire]} HTTP/1.0\r\n{JSON}{_lines(fields)}{_accepting(how)}"
            leg = HttpLeg(lines if how == "lines" else server_sent(FORMATS[how]))
            await leg.ask(self.front.port, head, _body(wire, text))
        assert leg.status == 200
        found = await self.house.service.find(leg.generation, "default")
        self.witnesses[leg.generation] = Witness(found, client=False)
        return leg

    async def resume(self, how: str, id: str, after: int) -> Leg:
        """A generation that exists, behind a cursor."""
        place = pb.Resume(generation_id=id, after=after)
        if how in GRPC:
            return await self._grpc(how, {}, resume=place)
        if how in WEB:
            return await self._web(how, "StreamInfer", [pb.StreamInferRequest(resume=place)], {})
        if how == "lines":
            path, fields = f"/v1/generations/{id}/events?after={after}", _accepting(how)
        else:
            path = f"/v1/generations/{id}/events?format={how}"
            fields = f"last-event-id: {after}\r\n"
        leg = HttpLeg(lines if how == "lines" else server_sent(FORMATS[how]))
        return await leg.ask(self.front.port, f"GET {path} HTTP/1.0\r\n{fields}")

    async def prompt(self, how: str, id: str, content: str) -> None:
        """Add a message, by HTTP or in a conversation. It is in the log, or that has ended, when this returns."""
        if how == "http":
            body = {"role": "user", "content": content}
            status, said = await self.http("POST", f"/v1/generations/{id}/prompts", body)
            assert status in (200, 409), said
            return
        place = pb.ConverseRequest(resume=pb.Resume(generation_id=id))
        prompt = pb.ConverseRequest(prompt=pb.Prompt(role="user", content=content))
        if how in WEB:
            leg: Leg = await self._web(how, "Converse", [place, prompt], {})
        else:
            call = self.channel.stream_stream(SERVICE + "Converse")(
                iter([place.SerializeToString(), prompt.SerializeToString()])
            )
            leg = GrpcLeg(call)
        seen = self.witnesses[id]
        await until(lambda: seen.ended.is_set() or content in prompts_of(seen))
        await leg.leave()

    async def abort(self, how: str, token: str) -> int:
        """How many generations it ended."""
        if how == "grpc":
            asked = pb.AbortRequest(token=token).SerializeToString()
            said = await self.channel.unary_unary(SERVICE + "Abort")(asked)
            return pb.AbortResponse.FromString(said).aborted
        path = "/v1/abort" if how == "http" else SERVICE + "Abort"
        status, answer = await self.http("POST", path, {"token": token})
        assert status == 200
        return int(answer.get("aborted", 0))

    async def _grpc(self, how: str, fields: dict[str, str], **start: Any) -> Leg:
        metadata = tuple(fields.items())
        if how == "converse":
            call = self.channel.stream_stream(SERVICE + "Converse")(metadata=metadata)
            await call.write(pb.ConverseRequest(**start).SerializeToString())
        else:
            sent = pb.StreamInferRequest(**start).SerializeToString()
            call = self.channel.unary_stream(SERVICE + "StreamInfer")(sent, metadata=metadata)
        leg = await GrpcLeg(call).begun()
        if "infer" in start:
            found = await self.house.service.find(leg.generation, "default")
            self.witnesses[leg.generation] = Witness(found, client=False)
        return leg

    async def _web(
        self, kind: str, method: str, messages: list[Any], fields: dict[str, str]
    ) -> HttpLeg:
        head = f"POST {SERVICE}{method} HTTP/1.0\r\ncontent-type: {kind}\r\n{_lines(fields)}"
        leg = HttpLeg(WEB[kind]())
        return await leg.ask(self.front.port, head, web_body(kind, *messages))


def prompts_of(seen: Witness) -> list[str]:
    return [event.content for event in seen.events_seen if isinstance(event, Prompt)]


async def until(condition: Callable[[], bool]) -> None:
    """Wait for what nothing announces."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


def _lines(fields: dict[str, str]) -> str:
    return "".join(f"{name}: {value}\r\n" for name, value in fields.items())


def _accepting(how: str) -> str:
    return "accept: application/x-ndjson\r\n" if how == "lines" else ""


def _body(wire: str, text: str) -> bytes:
    messages = [{"role": "user", "content": text}]
    fields: dict[str, Any] = {
        "openai-chat": {"messages": messages, "stream": True},
        "openai-completions": {"prompt": text, "stream": True, "max_tokens": 99},
        "responses": {"input": text, "stream": True, "background": True},
        "anthropic": {"messages": messages, "stream": True, "max_tokens": 99},
        "native": {"prompt": text},
    }[wire]
    if wire != "native":
        fields["model"] = "m"
    return json.dumps(fields).encode()
