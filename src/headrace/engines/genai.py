"""ONNX Runtime GenAI as an engine: text models as ONNX, in a supervised process of their own.

The process is told what to do over one connection, in lines of JSON (:mod:`headrace.engines.genai_wire`); nothing
of ONNX Runtime is imported here. The ids of all output are known, so a run goes on from them. What has a schema goes
on by being computed again from the beginning (:mod:`headrace.engines.retrace`).
"""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from headrace.domain.delta import Delta, Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.domain.request import Request
from headrace.domain.tokens import Tokens
from headrace.engines import genai_request
from headrace.engines.base import check_has_middle
from headrace.engines.child import Command
from headrace.engines.engine import EngineInfo, Run, Sink, Work
from headrace.engines.fan import FanRun, Gathering
from headrace.engines.genai_child import ChildOptions
from headrace.engines.genai_link import GenaiLink
from headrace.engines.genai_wire import Detokenize, Ended, Facts, Piece, Prompt, Tokenize
from headrace.engines.process_engine import Life, ProcessEngine
from headrace.engines.retrace import Retrace


class GenaiOptions(Life, frozen=True, kw_only=True):
    """One model in one process. ``folder``: with its ``genai_config.json``. ``context``: tokens of prompt and answer
    together, 0: the model's own; ``slots``: runs computed at once; ``threads``: 0: chosen by GenAI."""

    folder: str
    version: str = "1"
    device: Literal["auto", "cpu", "gpu"] = "auto"
    slots: int = 8
    context: int = 0
    threads: int = 0


class GenaiEngine(ProcessEngine[GenaiLink]):
    """An :class:`~headrace.engines.engine.Engine` with a process of ONNX Runtime GenAI of its own."""

    def __init__(self, options: GenaiOptions, environment: Mapping[str, str]) -> None:
        """``environment``: of the process."""
        self._options = options
        super().__init__(options, environment)
        self._facts: Facts | None = None

    def check(self, request: Request) -> None:
        genai_request.check(request)

    def check_prompt(self, request: Request) -> None:
        check_has_middle(request)

    def stream_infer(self, work: Work, sink: Sink) -> Run:
        run = self._new_run(sink, work.request.choices)
        asyncio.get_running_loop().call_soon(self._begin, run, work)
        return run

    async def tokenize(self, text: str, *, special: bool, pieces: bool = False) -> Tokens:
        return await self._tokens(Prompt(text=text), pieces)

    async def detokenize(self, tokens: Sequence[int]) -> str:
        link = self._serving()
        known = self._facts.vocabulary if self._facts is not None else 0
        if any(token >= known for token in tokens):
            text = f"`tokens` must be below {known}, as many as this model has."
            raise HeadraceError(Code.INVALID_REQUEST, text, param="tokens")
        number = link.number()
        return (await link.ask(number, Detokenize(number, tuple(tokens)))).text

    async def count_prompt(self, request: Request) -> int:
        genai_request.check(request)
        return len((await self._tokens(genai_request.prompt(request, 0, ()), False)).ids)

    async def _tokens(self, prompt: Prompt, pieces: bool) -> Tokens:
        link = self._serving()
        number = link.number()
        answer = await link.ask(number, Tokenize(number, prompt, pieces))
        return Tokens(answer.ids, answer.pieces if pieces else None)

    # The process.

    def _command(self) -> Command:
        options = self._options
        told = ChildOptions(
            options.folder,
            os.getpid(),
            self._key,
            options.context,
            options.slots,
            options.threads,
            options.device,
        )
        arguments = (sys.executable, "-P", "-m", "headrace.engines.genai_child")
        return Command(arguments, self._environment, msgspec.json.encode(told))

    def _connect(self, port: int) -> GenaiLink:
        return GenaiLink(port, self._key)

    async def _learn(self, client: GenaiLink) -> EngineInfo:
        options = self._options
        facts = self._facts = await client.facts
        return EngineInfo(
            name=options.name,
            version=options.version,
            type="genai",
            parameters=0,
            max_tokens=facts.context,
            context=facts.context,
            slots=options.slots,
            created_at=time.time(),
            continues=True,
        )

    # Runs.

    def _begin(self, run: FanRun, work: Work) -> None:
        if run.over:
            return
        try:
            link = self._serving()
            self.check(work.request)
            for index in range(work.request.choices):
                Choice(link, run, work, index).start()
        except HeadraceError as error:
            run.failed(error)


class Choice:
    """Choice ``index`` of a run: what its process says of it, on the way into the run."""

    __slots__ = ("_index", "_link", "_number", "_prefix", "_retrace", "_run", "_sink", "_work")

    def __init__(self, link: GenaiLink, run: FanRun, work: Work, index: int) -> None:
        self._link = link
        self._run = run
        self._work = work
        self._index = index
        self._number = link.number()
        self._sink = run if work.live else Gathering(run)
        prefix = work.prefixes[index] if work.prefixes else Prefix("", ())
        again = bool(prefix.text) and genai_request.schema(work.request) != ""
        self._retrace = Retrace(prefix) if again else None
        self._prefix = Prefix("", ()) if again else prefix

    def start(self) -> None:
        """Have it computed. Raises ``NOT_CONTINUABLE``."""
        self._run.adopt(self)
        start = genai_request.start(self._number, self._work, self._index, self._prefix)
        if start is None:
            self._run.stream_done({self._index: "length"}, Usage())
        else:
            self._link.start(start, self)

    def cancel(self) -> None:
        self._link.cancel(self._number)

    # What the process says.

    def pieces(self, pieces: list[Piece]) -> None:
        deltas = [Delta(piece.text, self._index, piece.ids) for piece in pieces]
        try:
            deltas = deltas if self._retrace is None else self._retrace.through(deltas)
        except HeadraceError as error:
            self._run.failed(error)
            return
        if deltas:
            self._sink.deltas(deltas)

    def progress(self, done: int, total: int) -> None:
        self._run.prefill(self._index, done, total)

    def ended(self, ended: Ended) -> None:
        prompt = 0 if self._index % self._work.request.sampling.n else ended.prompt
        usage = Usage(prompt, ended.made)
        if self._retrace is not None:
            try:
                self._retrace.check_over()
            except HeadraceError as error:
                self._run.failed(error)
                return
            usage = self._retrace.usage(usage)
        stop = None if self._index else ended.stop
        self._sink.stream_done({self._index: ended.reason}, usage, stop)

    def failed(self, error: HeadraceError) -> None:
        self._run.failed(error)
