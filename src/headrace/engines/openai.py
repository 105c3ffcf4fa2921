"""The engine for any OpenAI-compatible upstream: another server's URL, or a child of ours.

A run is one HTTP request; a continued one is a request per choice, since each goes on from its own
text. An upstream that cannot be reached is asked for its models again until it answers.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import time
from collections.abc import Sequence
from functools import partial
from typing import Any

import msgspec

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, Usage
from headrace.domain.request import Request
from headrace.domain.tokens import Tokens
from headrace.engines import dialect as dialects
from headrace.engines.ask import (
    Asking,
    check_continuable,
    check_prompt,
    tokens_left,
    with_turns,
)
from headrace.engines.base import StreamingEngine, no_tokenizer
from headrace.engines.chunks import ChatFold
from headrace.engines.connection import Write, at_once
from headrace.engines.embeddings import EMBEDDINGS, embedded, embedding_fields
from headrace.engines.engine import EngineInfo, Health, Run, Sink, Work
from headrace.engines.fan import FanRun, FanStream
from headrace.engines.faults import refused
from headrace.engines.limits import Limits
from headrace.engines.origin import Origin, with_body
from headrace.engines.pool import Pool
from headrace.engines.response import Response
from headrace.engines.solo import SoloRun
from headrace.engines.tokenizer import DETOKENIZE, detokenized, tokenize_fields, tokenized

_logger = logging.getLogger("headrace.engines")

POLL_S = 1.0
"""How often an upstream that is not ready is asked again."""
PROPS_S = 5.0
"""How long it may take to say its slots; it serves, and is not kept waiting for that."""


class OpenAIOptions(msgspec.Struct, frozen=True):
    """One upstream. ``url`` as OpenAI's SDKs want it (``…/v1``; without a path ``/v1`` is added).
    ``model``: what the upstream calls the model (empty: ``name``). ``context`` and ``max_tokens`` in
    tokens, 0: what the upstream says. ``slots``: 0 if nobody knows; ``asks_slots``: what the upstream says of
    them counts before that. ``load_timeout_s``: how long :meth:`OpenAIEngine.load` waits for
    it, None: for ever. ``accepts``: engine-specific request options to pass through beside the dialect's."""

    name: str
    url: str
    model: str = ""
    api_key: str | None = msgspec.field(default=None)
    dialect: str = "openai"
    slots: int = 256
    asks_slots: bool = False
    context: int = 0
    max_tokens: int = 0
    version: str = "1"
    max_tokens_field: str = "max_tokens"
    stream_usage: bool | None = None
    extra: dict[str, Any] = {}
    accepts: tuple[str, ...] = ()
    ca_file: str | None = None
    health_path: str = "/models"
    load_timeout_s: float | None = None
    limits: Limits = Limits()


class ModelEntry(msgspec.Struct, gc=False):
    """One entry of ``/v1/models`` as vLLM, SGLang, llama.cpp and hosted APIs fill it."""

    id: str = ""
    created: float | None = None
    max_model_len: int | None = None
    context_length: int | None = None
    meta: dict[str, Any] | None = None


class ModelList(msgspec.Struct, gc=False):
    data: list[ModelEntry] = []


class Props(msgspec.Struct, gc=False):
    """llama.cpp's ``/props``, of a server for one model."""

    total_slots: int = 0


class OpenAIEngine(StreamingEngine):
    """An :class:`~headrace.engines.engine.Engine` over HTTP."""

    def __init__(self, options: OpenAIOptions, write: Write = at_once) -> None:
        """``write``: sends requests. Raises :class:`ValueError` for an impossible URL, dialect or key."""
        self._write = write
        self._options = options
        origin = Origin.parse(options.url)
        self._base = origin.path or "/v1"
        self._origin = msgspec.structs.replace(origin, path="")
        self._asking = _asking(options)
        self.check = self._asking.check  # asked of every request, so without a frame of its own
        self._heads = self._request_heads()
        self._pool: Pool | None = None
        self._health: tuple[Health, str] = ("starting", f"{self._origin} was not asked yet")
        self._info: EngineInfo | None = None
        self._watch: asyncio.Task[None] | None = None

    async def load(self) -> None:
        """Wait until the upstream answers for its models."""
        options = self._options
        self._pool = Pool(self._origin, options.limits, _tls(options.ca_file), self._write)
        self._watch = asyncio.get_running_loop().create_task(self._poll_until_ready())
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.shield(self._watch), options.load_timeout_s)
        state, reason = self._health
        if state != "ready":
            await self.close()
            self._health = ("failed", reason)
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, reason)

    def info(self) -> EngineInfo:
        return self._info or super().info()

    def health(self) -> tuple[Health, str]:
        return self._health

    def check_prompt(self, request: Request) -> None:
        check_prompt(request)

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        request = work.request
        if work.prefixes:
            return self._continue(work, sink)
        kind, live = request.kind, work.live
        choices = request.sampling.n if kind == "chat" else request.choices
        run = SoloRun(sink, ChatFold(0, sink.prefill if live else None), live, choices, self)
        pool = self._pool
        if pool is None:
            asyncio.get_running_loop().call_soon(run.failed, _not_loaded())
            return run
        body = self._asking.body(request, live)
        pool.send(with_body(self._heads[kind], body, work.trace), run)
        return run

    async def tokenize(self, text: str, *, special: bool, pieces: bool = False) -> Tokens:
        path, field = self._asking.dialect.tokenize
        if not path:
            raise no_tokenizer()
        return tokenized(await self._told(path, tokenize_fields(field, text, special, pieces)))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        if not self._asking.dialect.tokenize[0]:
            raise no_tokenizer()
        return detokenized(await self._told(DETOKENIZE, {"tokens": tokens}))

    async def count_prompt(self, request: Request) -> int:
        path, field = self._asking.dialect.tokenize
        if field != "prompt":  # only vLLM's takes a conversation
            raise no_tokenizer()
        tools = {"tools": request.tools} if request.tools else {}
        asked = {
            "messages": request.messages,
            "add_generation_prompt": not request.goes_on,
            "continue_final_message": request.goes_on,
        }
        return len(tokenized(await self._told(path, asked | tools)).ids)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        asked = embedding_fields(
            self._asking.model,
            request.inputs,
            dimensions=request.dimensions,
            user=request.user,
        )
        whole = with_body(self._heads["embedding"], msgspec.json.encode(asked))
        response = await self._connected().collect(whole)
        if response.status != 200:
            raise refused(*response)
        return embedded(response.body, len(request.inputs))

    async def _told(self, path: str, fields: dict[str, Any]) -> bytes:
        """What the upstream answers. Raises what it refuses."""
        body = msgspec.json.encode({"model": self._asking.model, **fields})
        response = await self._connected().fetch("POST", path, body)
        if response.status != 200:
            raise refused(*response)
        return response.body

    async def close(self) -> None:
        self._health = ("closed", "the engine was closed")
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        if self._pool is not None:
            await self._pool.close()

    # Runs.

    def _continue(self, work: Work, sink: Sink) -> FanRun:
        request = work.request
        if work.turns:
            request = with_turns(request, work.turns)
        run = FanRun(sink, request.choices, request.choices)
        loop = asyncio.get_running_loop()
        try:
            if not work.turns or work.prefixes[0].text:
                check_continuable(request, self._asking.dialect)
            for index, prefix in enumerate(work.prefixes):
                left = tokens_left(request.sampling, prefix)
                if left is not None and left <= 0:
                    ended: dict[int, FinishReason] = {index: "length"}
                    loop.call_soon(run.stream_done, ended, Usage())
                    continue
                body = self._asking.continuation(request, index, prefix, work.live)
                self._start(run, work, body, index)
        except HeadraceError as error:
            loop.call_soon(run.failed, error)
        return run

    def _start(self, run: FanRun, work: Work, body: bytes, index: int) -> None:
        pool = self._pool
        if pool is None:
            raise _not_loaded()
        fold = ChatFold(index, partial(run.prefill, index) if work.live else None)
        sink = FanStream(run, fold, work.live, self.on_failure)
        head = self._heads[work.request.kind]
        run.adopt(pool.send(with_body(head, body, work.trace), sink))

    def on_failure(self, error: HeadraceError) -> None:
        """Watch for an upstream's return once it cannot be reached."""
        if error.code is Code.ENGINE_UNAVAILABLE and self._health[0] == "ready":
            self._not_ready("unreachable", error.message)
            self._watch = asyncio.get_running_loop().create_task(self._poll_until_ready())

    # The upstream's health.

    def _connected(self) -> Pool:
        if self._pool is None:
            raise HeadraceError(Code.MODEL_LOADING, "The engine is not loaded.")
        return self._pool

    async def _poll_until_ready(self) -> None:
        while True:
            if await self._ask_health():
                return
            await asyncio.sleep(POLL_S)

    async def _ask_health(self) -> bool:
        """One look; False: look again."""
        head = self._origin.head("GET", self._base + self._options.health_path, self._headers())
        try:
            response = await self._connected().collect(with_body(head, b""))
        except HeadraceError as error:
            self._not_ready("unreachable", error.message)
            return False
        if response.status != 200:
            hopeless = response.status in (400, 401, 403, 404)
            message = f"{self._origin} refuses to say its models: {refused(*response).message}"
            self._not_ready("failed" if hopeless else "unreachable", message)
            return hopeless
        if self._info is None:
            self._info = self._learn(response, await self._said_slots())
        self._health = ("ready", f"{self._origin} answers")
        return True

    def _not_ready(self, state: Health, reason: str) -> None:
        if self._health[0] != state:
            _logger.warning("%s is %s: %s", self._options.name, state, reason)
        self._health = (state, reason)

    async def _said_slots(self) -> int:
        """How many slots the upstream says it has; 0 where it does not say, or need not."""
        path = self._asking.dialect.props
        if not path or not self._options.asks_slots:
            return 0
        head = self._origin.head("GET", self._base.removesuffix("/v1") + path, self._headers())
        with contextlib.suppress(
            HeadraceError, TimeoutError, msgspec.DecodeError, UnicodeDecodeError
        ):
            async with asyncio.timeout(PROPS_S):
                response = await self._connected().collect(with_body(head, b""))
            if response.status == 200:
                return max(0, msgspec.json.decode(response.body, type=Props).total_slots)
        return 0

    def _learn(self, response: Response, slots: int) -> EngineInfo:
        """What the upstream says of its model, where it says it."""
        options = self._options
        entry = ModelEntry()
        with contextlib.suppress(msgspec.DecodeError, UnicodeDecodeError):
            listed = msgspec.json.decode(response.body, type=ModelList).data
            entry = next((one for one in listed if one.id == self._asking.model), entry)
        meta = entry.meta or {}
        context = entry.max_model_len or entry.context_length or meta.get("n_ctx") or 0
        context = options.context or int(context)
        return EngineInfo(
            name=options.name,
            version=options.version,
            type="openai",
            parameters=int(meta.get("n_params") or 0),
            max_tokens=options.max_tokens or context,
            context=context,
            slots=slots or options.slots,
            created_at=entry.created or time.time(),
            continues=self._asking.dialect.prefill,
        )

    # Heads.

    def _headers(self) -> list[tuple[str, str]]:
        key = self._options.api_key
        return [("authorization", f"Bearer {key}")] if key else []

    def _request_heads(self) -> dict[str, bytes]:
        headers = [("content-type", "application/json"), *self._headers()]
        paths = {
            "chat": "/chat/completions",
            "completion": "/completions",
            "embedding": EMBEDDINGS,
        }
        return {
            kind: self._origin.head("POST", self._base + path, headers)
            for kind, path in paths.items()
        }


def _not_loaded() -> HeadraceError:
    return HeadraceError(Code.ENGINE_UNAVAILABLE, "The engine is not loaded.")


def _asking(options: OpenAIOptions) -> Asking:
    if options.dialect not in dialects.DIALECTS:
        known = ", ".join(dialects.DIALECTS)
        raise ValueError(f"dialect {options.dialect!r} is not one of {known}")
    dialect = dialects.DIALECTS[options.dialect]
    usage = dialect.stream_usage if options.stream_usage is None else options.stream_usage
    return Asking(
        options.model or options.name,
        msgspec.structs.replace(dialect, extra=dialect.extra | set(options.accepts)),
        options.max_tokens_field,
        usage,
        options.extra,
    )


def _tls(ca_file: str | None) -> ssl.SSLContext | None:
    return ssl.create_default_context(cafile=ca_file) if ca_file else None
