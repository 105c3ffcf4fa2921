"""llama.cpp as an engine: a supervised child process, spoken to over loopback HTTP.

Text in, token ids out: a chat is rendered by ``/apply-template`` and computed by ``/completion``, so that
the ids of all output are known and a run can go on from them. Tool calls that the model's template knows,
and images, go through llama.cpp's own chat endpoint. Those, and what has a grammar, go on by being
computed again from the beginning (:mod:`headrace.engines.retrace`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import msgspec

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Message, Request
from headrace.domain.tokens import Tokens
from headrace.engines import llama_body, llama_tools, llama_turns
from headrace.engines.ask import Asking
from headrace.engines.base import unsupported
from headrace.engines.cache_usage import cache_usage
from headrace.engines.child import Command
from headrace.engines.dialect import LLAMA
from headrace.engines.embeddings import embedded, embedding_fields
from headrace.engines.engine import EngineInfo, Run, Sink, Work
from headrace.engines.fan import FanRun
from headrace.engines.lane import Lane, LaneFacts, Prompt
from headrace.engines.llama_client import LlamaClient
from headrace.engines.llama_options import LlamaOptions, child_options, shape
from headrace.engines.openai import ModelEntry, ModelList
from headrace.engines.process_engine import ProcessEngine
from headrace.engines.token_gap import TokenGaps
from headrace.engines.tokenizer import DETOKENIZE, detokenized, tokenize_fields, tokenized


class Props(msgspec.Struct, gc=False):
    """What llama.cpp says of the model's chat template."""

    chat_template_caps: dict[str, bool] = {}


class Endpoint(msgspec.Struct, frozen=True):
    """A process's own HTTP: its URL without a slash at its end, and the headers of every request."""

    url: str
    headers: Mapping[str, str]


class LlamaEngine(ProcessEngine[LlamaClient]):
    """An :class:`~headrace.engines.engine.Engine` with a llama.cpp process of its own."""

    def __init__(self, options: LlamaOptions, environment: Mapping[str, str], cpus: int) -> None:
        """``environment``: of the process; ``cpus``: processors that it may use."""
        self._options = options
        self._shape = shape(options, cpus)
        super().__init__(options, environment)
        dialect = msgspec.structs.replace(LLAMA, extra=LLAMA.extra | set(options.accepts))
        asking = Asking(options.name, dialect)
        self._accepted = dialect.extra
        gaps = TokenGaps(options.partial_tokens)
        # A GPU's batches are short, and a round trip between them would show.
        step = 0 if options.device == "gpu" else self._shape.batch
        context = self._shape.context
        self._facts = LaneFacts(gaps, options.max_tokens, asking, context, step)
        self._calls_tools = True
        self._vocabulary = 0
        """How many tokens the model has; 0: not known."""

    @property
    def endpoint(self) -> Endpoint:
        """Where the living process listens, and what it wants to see, for who wants to ask it directly.
        Raises what says why there is none."""
        return Endpoint(self._serving().url, {"authorization": f"Bearer {self._key}"})

    @property
    def model_path(self) -> str:
        """The file that it serves."""
        return self._options.model_path

    def stands(self, still: bool) -> None:
        """Its process was stopped by us, or goes on."""
        if self._client is not None:
            self._client.stands(still)

    def check(self, request: Request) -> None:
        llama_body.check(request, self._accepted, bool(self._options.mmproj))
        if request.tools and not self._calls_tools:  # llama.cpp would leave them out silently
            llama_tools.check(request)

    def check_prompt(self, request: Request) -> None:
        llama_turns.check(request)

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        run = self._new_run(sink, work.request.choices)
        asyncio.get_running_loop().call_soon(self._begin, run, work)
        return run

    async def tokenize(self, text: str, *, special: bool, pieces: bool = False) -> Tokens:
        fields = tokenize_fields("content", text, special, pieces)
        return tokenized(await self._serving().post("/tokenize", fields))

    async def detokenize(self, tokens: Sequence[int]) -> str:
        client = self._serving()
        if self._vocabulary and any(token >= self._vocabulary for token in tokens):
            text = f"`tokens` must be below {self._vocabulary}, as many as this model has."
            raise HeadraceError(Code.INVALID_REQUEST, text, param="tokens")
        return detokenized(await client.post(DETOKENIZE, {"tokens": tokens}))

    async def count_prompt(self, request: Request) -> int:
        client = self._serving()
        if llama_body.has_images(request):
            raise unsupported("messages", "This model's engine does not count images.")
        value: dict[str, Any] = {}
        if request.tools and not self._calls_tools:
            request = llama_tools.without_tools(request)
        elif request.tools and request.tool_choice != "none":
            value["tools"] = request.tools
        rendered = await client.post("/apply-template", value | {"messages": request.messages})
        prompt: str = msgspec.json.decode(rendered)["prompt"]
        return len((await self.tokenize(prompt, special=True)).ids)

    async def embed(self, request: EmbeddingRequest) -> Embeddings:
        told = None if self._options.normalize else -1
        fields = embedding_fields(request.model, request.inputs, embd_normalize=told)
        return embedded(await self._serving().embed(fields), len(request.inputs))

    async def cache_usage(self) -> float | None:
        return await cache_usage(self._serving())

    def _connect(self, port: int) -> LlamaClient:
        shape = self._shape
        return LlamaClient(port, self._key, shape.slots, shape.early, self._options.limits)

    def _command(self) -> Command:
        told = child_options(self._options, self._shape, os.getpid(), self._key)
        arguments = (sys.executable, "-P", "-m", "headrace.engines.llama_child")
        return Command(arguments, self._environment, msgspec.json.encode(told))

    # Runs.

    def _begin(self, run: FanRun, work: Work) -> None:
        if run.over:
            return
        try:
            client = self._serving()
            self.check(work.request)
            if work.turns:
                llama_turns.check(work.request)
            if not llama_body.is_whole(work.request):
                llama_body.check_prefixes(work)
        except HeadraceError as error:
            run.failed(error)
            return
        forced = bool(work.request.tools) and not self._calls_tools
        if forced:
            forced = work.request.tool_choice != "none"
            plain = llama_tools.without_tools(work.request)
            work = msgspec.structs.replace(work, request=plain)
        if work.request.kind == "completion":
            self._start_lanes(client, run, work)
        elif llama_body.needs_chat(work.request):
            text = msgspec.json.encode(work.request.messages).decode()
            self._start_chat_lanes(client, run, work, text, forced)
        elif work.turns:
            self._render_turns(client, run, work, plain=False)
        else:
            self._render(client, run, work, forced)

    def _render(self, client: LlamaClient, run: FanRun, work: Work, forced: bool) -> None:
        """The chat as text, by the model's own template. ``forced``: the answer is a tool call."""
        value = _template_value(work.request, work.request.messages)
        rendered = partial(self._rendered, client, run, work, forced)
        run.adopt(client.ask("/apply-template", value, rendered, run.failed))

    def _rendered(
        self, client: LlamaClient, run: FanRun, work: Work, forced: bool, body: bytes
    ) -> None:
        if not run.over:
            prompt: str = msgspec.json.decode(body)["prompt"]
            self._start_chat_lanes(client, run, work, prompt, forced)

    def _render_turns(self, client: LlamaClient, run: FanRun, work: Work, plain: bool) -> None:
        """The same for a chat with turns; ``plain`` where its template has refused their roles."""
        marks = llama_turns.Marks(work.request.messages, work.turns, plain)
        again = partial(self._render_turns, client, run, work, True)

        def rendered(body: bytes) -> None:
            if run.over:
                return
            try:
                prompt = marks.split(msgspec.json.decode(body)["prompt"])
            except HeadraceError as error:
                run.failed(error)
            else:
                self._start_chat_lanes(client, run, work, prompt, False)

        def failed(error: HeadraceError) -> None:
            if plain or run.over:
                run.failed(error)
            else:
                again()

        value = _template_value(work.request, marks.messages)
        run.adopt(client.ask("/apply-template", value, rendered, failed))

    def _start_chat_lanes(
        self, client: LlamaClient, run: FanRun, work: Work, prompt: Prompt, forced: bool
    ) -> None:
        for index in range(work.request.choices):
            Lane(client, self._facts, run, work, index, forced).start(prompt)

    def _start_lanes(self, client: LlamaClient, run: FanRun, work: Work) -> None:
        request = work.request
        for index in range(request.choices):
            prompt: Prompt = request.prompts[index // request.sampling.n]
            if work.turns:
                prompt = llama_turns.completion(request.prompts[0], work.turns)
            Lane(client, self._facts, run, work, index).start(prompt)

    async def _learn(self, client: LlamaClient) -> EngineInfo:
        options, shape = self._options, self._shape
        props = msgspec.json.decode(await client.get("/props"), type=Props)
        self._calls_tools = bool(props.chat_template_caps.get("supports_tools"))
        listed = msgspec.json.decode(await client.get("/v1/models"), type=ModelList).data
        meta = (listed[0] if listed else ModelEntry()).meta or {}
        self._vocabulary = int(meta.get("n_vocab") or 0)
        trained = int(meta.get("n_ctx_train") or shape.context)
        context = min(shape.context, trained)
        return EngineInfo(
            name=options.name,
            version=options.version,
            type="llama",
            parameters=int(meta.get("n_params") or 0),
            max_tokens=options.max_tokens or context,
            context=context,
            slots=shape.slots,
            created_at=time.time(),
            continues=True,
            early=shape.early,
        )


def _template_value(request: Request, messages: Sequence[Message]) -> dict[str, Any]:
    """What ``/apply-template`` is asked."""
    value: dict[str, Any] = {"messages": messages}
    for name in llama_body.TEMPLATE_EXTRA:
        if request.extra and name in request.extra:
            value[name] = request.extra[name]
    return value
