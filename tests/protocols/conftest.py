"""What the tests of the protocols share: logs written by script, a service of such logs, a real front."""

from __future__ import annotations

import asyncio
import contextlib
from array import array
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from typing import Any

import httpx
import pytest
import uvloop

from headrace.domain.embeddings import EmbeddingRequest, Embeddings
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import (
    Error,
    Event,
    Finish,
    Progress,
    Prompt,
    Token,
    TokenLogprob,
    ToolCallDelta,
    Usage,
    is_terminal,
)
from headrace.domain.ids import find_ulid
from headrace.domain.principal import ANYBODY, Principal, Scope
from headrace.domain.request import Caller, Message, Request, Sampling
from headrace.domain.tokens import Tokens
from headrace.front.limits import Limits
from headrace.front.listen import FrontOptions, listen
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.embedding_port import Embedded
from headrace.protocols.port import ModelCard, Reader, State

TIMEOUT_S = 30.0
CREATED = 1795346282.013


class ScriptedGeneration:
    """A log in a list. ``write`` shows events to all readers at once."""

    def __init__(
        self,
        request: Request,
        *,
        caller: Caller | None = None,
        wire: str = "native",
        wire_options: dict[str, Any] | None = None,
        number: int = 0,
    ) -> None:
        self.id = f"gen_01{number:024d}"
        self.created = CREATED
        self.model = request.model
        self.request = request
        self.caller = caller or Caller()
        self.wire = wire
        self.wire_options = wire_options or {}
        self.log: list[Event] = []
        self.readers: list[ScriptedSubscription] = []
        self.clients = 0
        self.reservation: Any = None
        self.left = asyncio.Event()
        self.attached = asyncio.Event()

    @property
    def state(self) -> State:
        if not self.log:
            return "queued"
        match self.log[-1]:
            case Finish():
                return "finished"
            case Error():
                return "failed"
            case _:
                return "running"

    @property
    def last_seq(self) -> int:
        return self.log[-1].seq if self.log else 0

    def attach(self, reader: Reader, *, client: bool) -> ScriptedSubscription:
        subscription = ScriptedSubscription(self, reader, client)
        self.readers.append(subscription)
        self.clients += client
        self.attached.set()
        subscription.resume()
        return subscription

    def write(self, *events: Event) -> None:
        self.log.extend(events)
        for subscription in tuple(self.readers):
            subscription.pump()

    def lose(self, error: HeadraceError) -> None:
        for subscription in tuple(self.readers):
            subscription.reader.lost(error)


class ScriptedSubscription:
    def __init__(self, generation: ScriptedGeneration, reader: Reader, client: bool) -> None:
        self.generation = generation
        self.reader = reader
        self.client = client
        self.seen = 0
        self.lagging = False

    def resume(self) -> None:
        self.lagging = False
        self.pump()

    def pump(self) -> None:
        ready = self.generation.log[self.seen :]
        if ready and not self.lagging and self in self.generation.readers:
            self.seen += len(ready)
            self.lagging = not self.reader.events(ready)
            if is_terminal(ready[-1]):
                self.generation.readers.remove(self)

    def close(self) -> None:
        if self in self.generation.readers:
            self.generation.readers.remove(self)
            if self.client:
                self.generation.clients -= 1
                self.generation.left.set()


Script = Callable[[ScriptedGeneration], None]


class ScriptedService:
    """Writes each generation's log by ``script``, when it is submitted."""

    def __init__(self, script: Script, *, keys: dict[str, str] | None = None) -> None:
        self.script = script
        self.refuse: Callable[[Request], HeadraceError | None] = lambda request: None
        self.keys = keys
        self.reservation: Any = None
        """Of requests that compute no answer."""
        self.generations: list[ScriptedGeneration] = []
        self.cancelled: list[str] = []
        self.ready: tuple[bool, str] = (True, "")
        self._came = asyncio.Event()

    @property
    def open(self) -> bool:
        return self.keys is None

    async def generation(self, number: int) -> ScriptedGeneration:
        """The generation of this number, from 0, as soon as it has been submitted."""
        while len(self.generations) <= number:
            self._came.clear()
            await self._came.wait()
        return self.generations[number]

    def reader(self, token: str, any_id: str) -> str:
        """A token is ``TENANT/ULID``."""
        tenant, _, ulid = token.partition("/")
        if ulid != find_ulid(any_id):
            raise HeadraceError(Code.INVALID_API_KEY, "The token is for something else.")
        return tenant

    def read_token(self, generation: Any) -> tuple[str, int]:
        return f"{generation.caller.tenant}/{generation.id[4:]}", 1795349882

    def authenticate(
        self, key: str | None, scope: Scope, names: tuple[str, ...] | None
    ) -> Principal:
        """A key may ask models, but for one that begins with ``metrics``. A certificate's name is a tenant."""
        if self.keys is None:
            return ANYBODY
        if names is not None and not key:
            return Principal(names[0], names[0], frozenset(("infer",)))
        if key is None or key not in self.keys:
            raise HeadraceError(Code.INVALID_API_KEY, "The API key is not known; check it.")
        scopes: frozenset[Scope] = frozenset(("metrics" if key.startswith("metrics") else "infer",))
        if scope not in scopes:
            raise HeadraceError(Code.FORBIDDEN, f"The key lacks the scope {scope}.")
        return Principal(self.keys[key], key, scopes)

    def submit(
        self, request: Request, caller: Caller, wire: str, wire_options: dict[str, Any]
    ) -> ScriptedGeneration:
        self.model(request.model)
        if (refusal := self.refuse(request)) is not None:
            raise refusal
        if request.extra:
            name = next(iter(request.extra))
            raise HeadraceError(Code.UNSUPPORTED, f"`{name}` is not known here.", param=name)
        generation = ScriptedGeneration(
            request,
            caller=caller,
            wire=wire,
            wire_options=wire_options,
            number=len(self.generations),
        )
        self.generations.append(generation)
        self._came.set()
        self.script(generation)
        return generation

    def joins(self, request: Request, caller: Caller) -> bool:
        return caller.once is not None

    async def submit_once(
        self, request: Request, caller: Caller, wire: str, wire_options: dict[str, Any]
    ) -> ScriptedGeneration:
        for generation in self.generations:
            if caller.once is not None and generation.caller.once == caller.once:
                if (generation.request, generation.wire) != (request, wire):
                    raise HeadraceError(Code.KEY_REUSED, "The key is another request's.")
                return generation
        return self.submit(request, caller, wire, wire_options)

    async def find(self, any_id: str, tenant: str) -> ScriptedGeneration:
        for generation in self.generations:
            if generation.id == f"gen_{find_ulid(any_id)}" and generation.caller.tenant == tenant:
                return generation
        raise HeadraceError(Code.GENERATION_NOT_FOUND, "There is no such generation of yours.")

    async def list(
        self, tenant: str, session_id: str | None, limit: int
    ) -> Sequence[ScriptedGeneration]:
        found = [
            generation
            for generation in reversed(self.generations)
            if generation.caller.tenant == tenant
            and session_id in (None, generation.caller.session_id)
        ]
        return found[:limit]

    def cancel(self, generation: Any) -> None:
        self.cancelled.append(generation.id)
        if generation.state not in ("finished", "failed"):
            generation.write(error(generation.last_seq + 1, "cancelled"))

    async def delete(self, generation: Any) -> None:
        self.cancel(generation)
        self.generations.remove(generation)

    async def prompt(self, generation: Any, message: Message) -> list[Prompt]:
        if generation.state in ("finished", "failed"):
            raise HeadraceError(Code.CONFLICT, "It is over.")
        added = prompt(generation.last_seq + 1, message.role, str(message.content))
        generation.write(added)
        return [added]

    def abort(self, token: str, tenant: str) -> int:
        found = [
            generation
            for generation in self.generations
            if generation.caller.abort_token == token
            and generation.caller.tenant == tenant
            and generation.state not in ("finished", "failed")
        ]
        for generation in found:
            self.cancel(generation)
        return len(found)

    def models(self) -> Sequence[ModelCard]:
        return [
            ModelCard("scripted", ("nick", "org/nick"), 1795000000, "t", "1", 9, 64, 128, 4, True)
        ]

    def model(self, name: str) -> ModelCard:
        card = self.models()[0]
        if name not in (card.name, *card.aliases):
            raise HeadraceError(
                Code.MODEL_NOT_FOUND, f"There is no model {name[:80]!r}.", param="model"
            )
        return card

    def take_request(self, model: str, tenant: str, key_id: str) -> Any:
        self.model(model)
        return self.reservation

    async def tokenize(self, model: str, text: str, *, special: bool, pieces: bool) -> Tokens:
        """Every character is a token; 1 is the one that a prompt begins with."""
        assert model == self.model(model).name
        ids = ((1,) if special else ()) + tuple(map(ord, text))
        return Tokens(ids, tuple("<s>" if id == 1 else chr(id) for id in ids) if pieces else None)

    async def detokenize(self, model: str, tokens: Sequence[int]) -> str:
        try:
            return "".join(map(chr, tokens))
        except ValueError:
            raise HeadraceError(Code.INVALID_REQUEST, "That is no token.", param="tokens") from None

    async def count_prompt(self, request: Request) -> int:
        self.model(request.model)
        return sum(len(str(message.content).split()) for message in request.messages)

    def readiness(self) -> tuple[bool, str]:
        return self.ready


class Embedder:
    """The vector of a text: how long it is, and its place. Remembers what it was asked."""

    def __init__(self, kind: Any = "f") -> None:
        self.kind = kind
        self.asked: list[EmbeddingRequest] = []
        self.callers: list[Caller] = []
        self.reservation: Any = None
        self.refuse: HeadraceError | None = None

    async def embed(self, request: EmbeddingRequest, caller: Caller) -> Embedded:
        self.asked.append(request)
        self.callers.append(caller)
        if self.refuse is not None:
            raise self.refuse
        vectors = [array(self.kind, [len(one), at + 0.5]) for at, one in enumerate(request.inputs)]
        return Embedded(Embeddings(vectors, 7), self.reservation, request.model)


def token(seq: int, text: str, **fields: Any) -> Token:
    return Token(seq, CREATED + seq, text, **fields)


def progress(seq: int, phase: Any = "queued", **fields: Any) -> Progress:
    return Progress(seq, CREATED + seq, phase, **fields)


def prompt(seq: int, role: str, content: str) -> Prompt:
    return Prompt(seq, CREATED + seq, role, content)


def finish(seq: int, *reasons: Any, usage: Usage | None = None, stop: str | None = None) -> Finish:
    return Finish(seq, CREATED + seq, reasons or ("stop",), usage or Usage(5, 3, 2), stop)


def error(
    seq: int,
    code: str = "engine_failed",
    message: str = "The engine died.",
    retry_after_s: float | None = None,
) -> Error:
    return Error(seq, CREATED + seq, code, message, True, retry_after_s)


def hello(generation: ScriptedGeneration) -> None:
    """Every choice says hello; the log is complete at once."""
    choices = generation.request.choices
    events: list[Event] = [progress(1, "queued", position=1)]
    for index in range(choices):
        for text in ("Hel", "lo ", "wörld 😀\n"):
            events.append(token(len(events) + 1, text, index=index))
    events.append(finish(len(events) + 1, *(["stop"] * choices)))
    generation.write(*events)


@contextlib.asynccontextmanager
async def serving(
    service: Any,
    *,
    metrics: Any = None,
    admin: Any = None,
    embedder: Any = None,
    jobs: Any = None,
    more: Any = (),
    limits: Any = None,
    tls: Any = None,
    **options: Any,
) -> AsyncIterator[str]:
    """The API of a service behind a real front; gives its URL."""
    api = Api(
        service,
        ApiOptions(**options),
        metrics=metrics,
        admin=admin,
        embedder=embedder,
        jobs=jobs,
        more=more,
    )
    limits = limits or Limits()
    told = FrontOptions(port=0, refuse=api.refuse, uploads=api.uploads, limits=limits, tls=tls)
    front = await listen(api.handle, told)
    try:
        yield f"http{'s' if tls else ''}://127.0.0.1:{front.port}"
    finally:
        await api.close()
        await front.close(0.0)


@contextlib.asynccontextmanager
async def talking(service: Any, **options: Any) -> AsyncIterator[httpx.AsyncClient]:
    """The same with a client for it."""
    async with (
        serving(service, **options) as url,
        httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client,
    ):
        yield client


def run(main: Coroutine[Any, Any, None], limit_s: float = 2 * TIMEOUT_S) -> None:
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(main, limit_s))


def chat_request(**fields: Any) -> Request:
    sampling = fields.pop("sampling", Sampling())
    return Request(model="scripted", kind="chat", sampling=sampling, **fields)


class Kit:
    """The names above, for tests: a conftest cannot be imported."""

    Generation = ScriptedGeneration
    Service = ScriptedService
    Embedder = Embedder
    Usage = Usage
    TokenLogprob = TokenLogprob
    ToolCallDelta = ToolCallDelta
    token = staticmethod(token)
    progress = staticmethod(progress)
    prompt = staticmethod(prompt)
    finish = staticmethod(finish)
    error = staticmethod(error)
    hello = staticmethod(hello)
    serving = staticmethod(serving)
    talking = staticmethod(talking)
    run = staticmethod(run)
    chat_request = staticmethod(chat_request)


@pytest.fixture(scope="session")
def kit() -> type[Kit]:
    return Kit
