"""`docs/MISTAKES.md`, row by row: what each protocol answers to the same mistake."""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.admission.sizes import Sizes
from headrace.domain.errors import Code, HeadraceError
from headrace.front.limits import Limits
from headrace.jobs.jobs import Jobs
from headrace.jobs.limits import Limits as JobLimits
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.rows import Rows

DOCUMENT = Path(__file__).parents[3] / "docs" / "MISTAKES.md"
COLUMNS = ("HTTP", "Anthropic", "gRPC", "gRPC-Web", "Connect")
MINE = {"authorization": "Bearer mine"}
SERVICE = "/headrace.v1.InferenceService/"
MESSAGE_BYTES = 200_000
LONG = "x" * (64 * 1024 + 1)
ID = "gen_01M8AMS68SQD6SFHQQYRP72VXZ"
SIZES: Any = Sizes(max_prompt_tokens=50_000, max_tokens=1000, max_n=4)
LENGTHY = "x" * 60_000
OF_NOBODY = pb.Resume(generation_id=ID)


class Place:
    """A server with one finished generation of the tenant ``a`` and one of ``b``, and a running one of ``a``."""

    def __init__(
        self, client: httpx.AsyncClient, rpc: Any, mine: str, theirs: str, running: str
    ) -> None:
        self.client, self.rpc = client, rpc
        self.mine, self.theirs, self.running = mine, theirs, running

    # One way of asking for each column; the answer as the table has it.

    async def http(self, method: str, path: str, **options: Any) -> str:
        options.setdefault("headers", MINE)
        answer = await self.client.request(method, path, **options)
        return f"{answer.status_code} {answer.json()['error']['code']}"

    async def anthropic(
        self, body: Any, headers: Any = MINE, method: str = "POST", path: str = "/v1/messages"
    ) -> str:
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        kind = {"content-type": "application/json"}
        answer = await self.client.request(method, path, content=data, headers=headers | kind)
        return f"{answer.status_code} {answer.json()['error']['type']}"

    async def grpc(
        self, method: str, message: Any, headers: Any = MINE, timeout_s: float | None = None
    ) -> str:
        metadata = tuple(headers.items())
        many = message if isinstance(message, list) else [message]
        sent = [one if isinstance(one, bytes) else one.SerializeToString() for one in many]
        path = SERVICE + method
        options: dict[str, Any] = {"metadata": metadata, "timeout": timeout_s}
        try:
            if method == "StreamInfer":
                async for _ in self.rpc.unary_stream(path)(sent[0], **options):
                    pass
            elif method == "Converse":
                async for _ in self.rpc.stream_stream(path)(iter(sent), **options):
                    pass
            else:
                await self.rpc.unary_unary(path)(sent[0], **options)
        except grpc.aio.AioRpcError as error:
            said = dict(error.trailing_metadata() or ()).get("headrace-code", "")
            return f"{error.code().name} {said}".strip()
        return "OK"

    async def web(self, method: str, message: Any, headers: Any = MINE) -> str:
        messages = message if isinstance(message, list) else [message]
        body = b"".join(_envelope(one) for one in messages)
        kind = {"content-type": "application/grpc-web+proto"}
        answer = await self.client.post(SERVICE + method, content=body, headers=headers | kind)
        if answer.status_code != 200:
            said = answer.json()
            return f"{answer.status_code} {said.get('error', said)['code']}"
        trailers = dict(answer.headers)
        data = answer.content
        while data:
            size = int.from_bytes(data[1:5], "big")
            if data[0] & 0x80:
                lines = data[5 : 5 + size].decode().split("\r\n")
                trailers |= dict(line.split(": ", 1) for line in lines if line)
            data = data[5 + size :]
        number = int(trailers["grpc-status"])
        name = next(code.name for code in grpc.StatusCode if code.value[0] == number)
        return f"{name} {trailers.get('headrace-code', '')}".strip()

    async def connect(self, method: str, message: Any, headers: Any = MINE) -> str:
        """In JSON: one message unframed, streams in envelopes."""
        streams = method in ("StreamInfer", "Converse")
        messages = message if isinstance(message, list) else [message]
        kind = "application/connect+json" if streams else "application/json"
        body = b"".join(_envelope(one) if streams else one for one in map(_json, messages))
        answer = await self.client.post(
            SERVICE + method, content=body, headers=headers | {"content-type": kind}
        )
        if not streams or answer.status_code != 200:
            said = answer.json()
            if "error" in said:
                return f"{answer.status_code} {said['error']['code']}"
            return f"{answer.status_code} {said['code']}"
        data, end = answer.content, b"{}"
        while data:
            size = int.from_bytes(data[1:5], "big")
            if data[0] & 0x02:
                end = data[5 : 5 + size]
            data = data[5 + size :]
        return f"200 {json.loads(end).get('error', {}).get('code', '')}".strip()


def _envelope(message: Any) -> bytes:
    data = message if isinstance(message, bytes) else message.SerializeToString()
    return b"\0" + len(data).to_bytes(4, "big") + data


def _json(message: Any) -> bytes:
    from google.protobuf.json_format import MessageToJson

    return message if isinstance(message, bytes) else MessageToJson(message).encode()


def resumed(id: str, after: int = 0) -> pb.StreamInferRequest:
    return pb.StreamInferRequest(resume=pb.Resume(generation_id=id, after=after))


def prompted(id: str, content: str) -> list[pb.ConverseRequest]:
    return [
        pb.ConverseRequest(resume=pb.Resume(generation_id=id)),
        pb.ConverseRequest(prompt=pb.Prompt(role="user", content=content)),
    ]


def chat(**fields: Any) -> dict[str, Any]:
    return {"model": "scripted", "messages": [{"role": "user", "content": "x"}]} | fields


def saying(text: str, **fields: Any) -> dict[str, Any]:
    return chat(messages=[{"role": "user", "content": text}], **fields)


def message(**fields: Any) -> dict[str, Any]:
    return chat(max_tokens=5) | fields


Ask = Callable[[Place], Awaitable[str]]


def everywhere(method: str, asked: Callable[[Place], Any], headers: Any = MINE) -> dict[str, Ask]:
    """The three columns of gRPC."""
    return {
        "gRPC": lambda place: place.grpc(method, asked(place), headers),
        "gRPC-Web": lambda place: place.web(method, asked(place), headers),
        "Connect": lambda place: place.connect(method, asked(place), headers),
    }


def events(place: Place, id: str, after: str) -> Awaitable[str]:
    return place.http("GET", f"/v1/generations/{id}/events", params={"after": after})


def post(place: Place, path: str, body: Any, headers: Any = MINE) -> Awaitable[str]:
    return place.http("POST", path, json=body, headers=headers)


async def in_no_time(place: Place) -> str:
    """Without a code, which is there if the server is the first to notice."""
    said = await place.grpc("Infer", pb.InferRequest(prompt="hang"), timeout_s=0.0)
    return said.partition(" ")[0]


def choosing(count: int) -> pb.InferRequest:
    asked = pb.InferRequest(prompt="x")
    asked.options.update({"n": count})
    return asked


async def upload(place: Place, data: bytes) -> str:
    """A second one; the place has room for one."""
    form: dict[str, Any] = {"files": {"file": data}, "data": {"purpose": "batch"}}
    await place.client.post("/v1/files", headers=MINE, **form)
    return await place.http("POST", "/v1/files", **form)


CHAT = "/v1/chat/completions"
ORDER = {"input_file_id": "file-none", "endpoint": CHAT, "completion_window": "24h"}
ASKED = pb.InferRequest(prompt="x")
SCRAPER = {"authorization": "Bearer metrics"}
WRONG_KEY = {"authorization": "Bearer wrong"}
USED = MINE | {"idempotency-key": "used"}
IN_BROTLI = MINE | {"content-encoding": "br"}
NO_JSON = {"headers": MINE | {"content-type": "application/json"}, "content": b"{"}
ROWS: dict[str, dict[str, Ask]] = {
    "a cursor beyond the newest event": {
        "HTTP": lambda place: events(place, place.mine, "99"),
        **everywhere("StreamInfer", lambda place: resumed(place.mine, 99)),
    },
    "a cursor that is no number": {"HTTP": lambda place: events(place, place.mine, "x")},
    "a generation of somebody else": {
        "HTTP": lambda place: events(place, place.theirs, "0"),
        **everywhere("StreamInfer", lambda place: resumed(place.theirs)),
    },
    "a generation that never was": {
        "HTTP": lambda place: events(place, ID, "0"),
        **everywhere("StreamInfer", lambda place: resumed(ID)),
    },
    "a prompt to a generation that is over": {
        "HTTP": lambda place: post(
            place, f"/v1/generations/{place.mine}/prompts", {"role": "user", "content": "x"}
        ),
        **everywhere("Converse", lambda place: prompted(place.mine, "x")),
    },
    "a prompt of more than 64 KiB": {
        "HTTP": lambda place: post(
            place, f"/v1/generations/{place.running}/prompts", {"role": "user", "content": LONG}
        ),
        **everywhere("Converse", lambda place: prompted(place.running, LONG)),
    },
    "a message larger than the server takes": {
        "HTTP": lambda place: post(place, CHAT, chat(user="x" * MESSAGE_BYTES)),
        "Anthropic": lambda place: place.anthropic(message(system="x" * MESSAGE_BYTES)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="x" * MESSAGE_BYTES)),
    },
    "a deadline of 0": {
        "gRPC": lambda place: in_no_time(place),
        "gRPC-Web": lambda place: place.web("Infer", ASKED, MINE | {"grpc-timeout": "0m"}),
        "Connect": lambda place: place.connect("Infer", ASKED, MINE | {"connect-timeout-ms": "0"}),
    },
    "a path or method that is not there": {
        "HTTP": lambda place: post(place, "/v1/nothing", {}),
        "Anthropic": lambda place: place.anthropic(message(), path="/v1/messages/nothing"),
        **everywhere("Nothing", lambda place: ASKED),
    },
    "a verb that the path lacks": {
        "HTTP": lambda place: place.http("DELETE", CHAT),
        "Anthropic": lambda place: place.anthropic(b"", method="DELETE"),
    },
    "an operation that is not there, where ids have others": {
        "HTTP": lambda place: post(place, "/v1/responses/compact", {}),
    },
    "a model that is not there": {
        "HTTP": lambda place: post(place, CHAT, chat(model="nope")),
        "Anthropic": lambda place: place.anthropic(message(model="nope")),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="x", model="nope")),
    },
    "a key that is not known": {
        "HTTP": lambda place: post(place, CHAT, chat(), WRONG_KEY),
        "Anthropic": lambda place: place.anthropic(message(), WRONG_KEY),
        **everywhere("Infer", lambda place: ASKED, WRONG_KEY),
    },
    "a key that lacks the scope": {
        "HTTP": lambda place: post(place, CHAT, chat(), SCRAPER),
        "Anthropic": lambda place: place.anthropic(message(), SCRAPER),
        **everywhere("Infer", lambda place: ASKED, SCRAPER),
    },
    "an administrator's path without that scope": {
        "HTTP": lambda place: place.http("GET", "/admin/keys"),
    },
    "a body that is none": {
        "HTTP": lambda place: place.http("POST", CHAT, **NO_JSON),
        "Anthropic": lambda place: place.anthropic(b"{"),
        **everywhere("Infer", lambda place: b"\xff\xff"),
    },
    "a body in an encoding that is not taken": {
        "HTTP": lambda place: post(place, CHAT, chat(), IN_BROTLI),
        "Anthropic": lambda place: place.anthropic(message(), IN_BROTLI),
        "gRPC-Web": lambda place: place.web("Infer", ASKED, MINE | {"grpc-encoding": "br"}),
        "Connect": lambda place: place.connect("Infer", ASKED, IN_BROTLI),
    },
    "a value out of its range": {
        "HTTP": lambda place: post(place, CHAT, chat(temperature=9)),
        "Anthropic": lambda place: place.anthropic(message(temperature=9)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="x", temperature=9)),
    },
    "one request more than a limit allows": {
        "HTTP": lambda place: post(place, CHAT, saying("often")),
        "Anthropic": lambda place: place.anthropic(saying("often", max_tokens=5)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="often")),
    },
    "one generation more than may run at once": {
        "HTTP": lambda place: post(place, CHAT, saying("many")),
        "Anthropic": lambda place: place.anthropic(saying("many", max_tokens=5)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="many")),
    },
    "a request larger than its limit ever allows": {
        "HTTP": lambda place: post(place, CHAT, saying("large")),
        "Anthropic": lambda place: place.anthropic(saying("large", max_tokens=5)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="large")),
    },
    "more tokens of an answer than the server allows": {
        "HTTP": lambda place: post(place, CHAT, chat(max_tokens=SIZES.max_tokens + 1)),
        "Anthropic": lambda place: place.anthropic(message(max_tokens=SIZES.max_tokens + 1)),
        **everywhere(
            "Infer", lambda place: pb.InferRequest(prompt="x", max_tokens=SIZES.max_tokens + 1)
        ),
    },
    "a longer prompt than the server allows": {
        "HTTP": lambda place: post(place, CHAT, saying(LENGTHY)),
        "Anthropic": lambda place: place.anthropic(saying(LENGTHY, max_tokens=5)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt=LENGTHY)),
    },
    "more choices than the server allows": {
        "HTTP": lambda place: post(place, CHAT, chat(n=SIZES.max_n + 1)),
        **everywhere("Infer", lambda place: choosing(SIZES.max_n + 1)),
    },
    "a queue that is full": {
        "HTTP": lambda place: post(place, CHAT, saying("full")),
        "Anthropic": lambda place: place.anthropic(saying("full", max_tokens=5)),
        **everywhere("Infer", lambda place: pb.InferRequest(prompt="full")),
    },
    "an idempotency key that was another request's": {
        "HTTP": lambda place: post(place, CHAT, chat(), USED),
        "Anthropic": lambda place: place.anthropic(message(), USED),
        **everywhere("Infer", lambda place: ASKED, USED),
    },
    "a file of somebody else, or that never was": {
        "HTTP": lambda place: place.http("GET", "/v1/files/file-none"),
    },
    "a batch of somebody else, or that never was": {
        "HTTP": lambda place: place.http("POST", "/v1/batches/batch_none/cancel"),
    },
    "a batch of a file that is not there": {
        "HTTP": lambda place: post(place, "/v1/batches", ORDER),
    },
    "a file that does not come as a form": {
        "HTTP": lambda place: post(place, "/v1/files", {}),
    },
    "a form that lacks the file": {
        "HTTP": lambda place: place.http("POST", "/v1/files", files={"purpose": (None, "batch")}),
    },
    "one file more than a tenant may have": {
        "HTTP": lambda place: upload(place, b"x"),
    },
    "an option that the engine lacks": {
        "HTTP": lambda place: post(place, CHAT, chat(mirostat=1)),
        "Anthropic": lambda place: place.anthropic(
            message(thinking={"type": "enabled", "budget_tokens": 1024})
        ),
    },
}


LIMITS = {
    "often": Code.RATE_LIMITED,
    "many": Code.CONCURRENCY_LIMIT,
    "large": Code.REQUEST_TOO_LARGE,
    "full": Code.QUEUE_FULL,
}


def _said(request: Any) -> list[Any]:
    return [*request.prompts, *(message.content for message in request.messages)]


def _hangs(request: Any) -> bool:
    return "hang" in _said(request)


def _refusal(request: Any) -> HeadraceError | None:
    for word in _said(request):
        if word in LIMITS:
            return HeadraceError(LIMITS[word], "Too much.", retry_after_s=1.5)
    SIZES.check(request)
    SIZES.check_prompt(sum(len(word) for word in _said(request) if isinstance(word, str)))
    return None


@asynccontextmanager
async def having_jobs(service: Any) -> AsyncIterator[Jobs]:
    with tempfile.TemporaryDirectory() as folder:
        jobs = Jobs(Path(folder), Rows(service), JobLimits(files=1))
        await jobs.open()
        yield jobs
        await jobs.close()


@asynccontextmanager
async def serving(kit: Any, rpc: Any) -> AsyncIterator[Place]:
    def script(generation: Any) -> None:
        if not _hangs(generation.request):
            kit.hello(generation)

    service = kit.Service(script, keys={"mine": "a", "theirs": "b", "metrics": "c"})
    service.refuse = _refusal
    options = {"message_bytes": MESSAGE_BYTES}
    async with having_jobs(service) as jobs, rpc.talking(service, **options) as (_, server):
        async with (
            kit.serving(
                service, more=server.routes, limits=Limits(body_bytes=MESSAGE_BYTES), jobs=jobs
            ) as url,
            httpx.AsyncClient(base_url=url, timeout=20) as client,
            grpc.aio.insecure_channel(server.address) as channel,
        ):
            for key in ("mine", "theirs"):
                await client.post(CHAT, json=chat(), headers={"authorization": f"Bearer {key}"})
            hang = [{"role": "user", "content": "hang"}]
            headers = {"x-on-disconnect": "continue"} | MINE
            body = chat(messages=hang, stream=True)
            waits = asyncio.create_task(client.post(CHAT, json=body, headers=headers))
            running = await service.generation(2)
            mine, theirs, _ = service.generations
            await client.post(CHAT, json=saying("another"), headers=USED)
            yield Place(client, channel, mine.id, theirs.id, running.id)
            await client.post(f"/v1/generations/{running.id}/cancel", headers=MINE)
            await waits


def documented() -> dict[str, dict[str, str]]:
    """The table, by row and column."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## Tensors\n")[0]
    lines = [line for line in text.splitlines() if "|" in line]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0][1:]) == COLUMNS
    return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in cells[2:]}


@pytest.mark.parametrize("title", ROWS)
def test_a_mistake_has_the_status_that_the_table_says(kit: Any, rpc: Any, title: str) -> None:
    async def main() -> None:
        async with serving(kit, rpc) as place:
            found = dict.fromkeys(COLUMNS, "–")
            for column, ask in ROWS[title].items():
                found[column] = await ask(place)
            print("| " + " | ".join([title, *found.values()]) + " |")
            assert documented()[title] == found

    kit.run(main())


def test_the_table_has_these_rows() -> None:
    assert list(documented()) == list(ROWS)
