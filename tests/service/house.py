"""A whole service without sockets: the real rooms, a scripted engine, a store."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Any

from headrace.admission.keys import Keys
from headrace.admission.read_tokens import ReadTokens
from headrace.admission.tenants import Tenants
from headrace.domain.errors import HeadraceError
from headrace.domain.event import Error, Event, Finish, Token
from headrace.domain.request import CANCEL, Caller, Leaving, Message, Request, Sampling
from headrace.engines.script import Script
from headrace.engines.scripted import ScriptedEngine, ScriptedOptions
from headrace.flow import Flow
from headrace.limiting import Limiting
from headrace.protocols.port import Generation
from headrace.routing.model import Model, Replica
from headrace.scheduling.fair_headroom import FairHeadroom
from headrace.scheduling.queue import Queue
from headrace.service import Limits, Service
from headrace.streams.hook_loading import LoadedHook
from headrace.streams.hooks import HookChain
from headrace.streams.hub import Hub
from headrace.streams.memory import MemoryStore
from headrace.streams.store import Store
from headrace.streams.topics import Topics
from headrace.telemetry.metrics import Metrics

WORDS = ("The ", "mill ", "turns ", "slowly.")


class House:
    """``engines`` are the replicas of one model ``m``."""

    def __init__(
        self,
        *scripts: Script,
        slots: int = 4,
        replicas: int = 1,
        store: Store | None = None,
        limits: Limits | None = None,
        hooks: Sequence[Any] = (),
        shares: bool = False,
        limiting: Limiting | None = None,
        tenants: Tenants | None = None,
        upstreams: Sequence[Replica[Any]] = (),
        prepare: Callable[[Flow], None] = lambda flow: None,
        fallback: Script | None = None,
    ) -> None:
        """``upstreams``: further replicas, loaded already. ``prepare`` is given the flow first. ``fallback``: there is
        a model ``f`` of one slot that says this, which takes what spills."""
        self.store: Store = store or MemoryStore()
        self.limiting = limiting or Limiting()
        limits = limits or Limits()
        scripts = scripts or (Script(WORDS),)
        options = ScriptedOptions("m", scripts, slots)
        self.engines = [ScriptedEngine(options) for _ in range(replicas)]
        scripted: list[Replica[Any]] = [Replica(str(i), e) for i, e in enumerate(self.engines)]
        model: Model[Any] = Model("m", ("alias",), [*scripted, *upstreams], 0)
        self.metrics = Metrics()
        self.topics = Topics()
        self.flow = self._flow(model, limits, shares=shares)
        flows = [self.flow]
        if fallback is not None:
            other = ScriptedEngine(ScriptedOptions("f", [fallback], 1))
            self.engines.append(other)
            self.flow.fallback = "f"
            flows.append(self._flow(Model("f", (), [Replica("f", other)], 0), limits))
        self.fallback = flows[-1]
        prepare(self.flow)
        self.hub = Hub(self.store)
        loaded = [LoadedHook(hook, type(hook).__name__) for hook in hooks]
        self.service = Service(
            flows,
            self.hub,
            keys=Keys(),
            read_tokens=ReadTokens(b"secret"),
            chain=HookChain(loaded) if loaded else None,
            topics=self.topics,
            limits=limits,
            limiting=self.limiting,
            tenants=tenants,
        )

    def _flow(self, model: Model[Any], limits: Limits, *, shares: bool = False) -> Flow:
        queue: Queue[Any] = Queue(FairHeadroom(), limits.queue, limits.queue_timeout_s)
        meters = self.metrics.model(model.name).by_kind()
        return Flow(model, queue, meters, None, shares=shares)

    async def open(self) -> House:
        recovered = await self.store.open()
        self.limiting.load(time.time())
        self.service.recover(recovered)
        for engine in self.engines:
            await engine.load()
        self.service.tick(0.0)
        return self

    @property
    def in_use(self) -> int:
        return sum(replica.in_use for replica in self.flow.model.replicas)

    def ask(
        self,
        text: str = "hello",
        *,
        leaving: Leaving = CANCEL,
        stream: bool = True,
        abort_token: str | None = None,
        tenant: str = "default",
        session: str | None = None,
        keep: bool = True,
        **sampling: Any,
    ) -> Generation:
        request = Request(
            model="m",
            kind="chat",
            messages=(Message("user", text),),
            sampling=Sampling(**sampling),
            stream=stream,
            keep=keep,
        )
        caller = Caller(tenant, leaving=leaving, abort_token=abort_token, session_id=session)
        return self.service.submit(request, caller, "native", {})


class Witness:
    """A reader that keeps what it sees and can be waited for."""

    def __init__(self, generation: Generation, *, client: bool = True) -> None:
        self.events_seen: list[Event] = []
        self.error: HeadraceError | None = None
        self._waiting: list[tuple[int, asyncio.Event]] = []
        self.ended = asyncio.Event()
        self.subscription = generation.attach(self, client=client)

    def events(self, events: Sequence[Event]) -> bool:
        self.events_seen.extend(events)
        for count, event in self._waiting:
            if len(self.tokens) >= count:
                event.set()
        if isinstance(events[-1], Finish | Error):
            self.ended.set()
        return True

    def lost(self, error: HeadraceError) -> None:
        self.error = error
        self.ended.set()

    @property
    def tokens(self) -> list[str]:
        return [event.text for event in self.events_seen if isinstance(event, Token)]

    @property
    def end(self) -> Event:
        return self.events_seen[-1]

    @property
    def code(self) -> str:
        assert isinstance(self.end, Error), self.events_seen
        return self.end.code

    async def token(self, count: int) -> None:
        """Until that many tokens were seen."""
        event = asyncio.Event()
        self._waiting.append((count, event))
        if len(self.tokens) >= count:
            event.set()
        await event.wait()

    async def whole(self) -> str:
        await self.ended.wait()
        seqs = [event.seq for event in self.events_seen]
        assert seqs == list(range(1, len(seqs) + 1))
        ends = [event for event in self.events_seen if isinstance(event, Finish | Error)]
        assert len(ends) == 1
        assert self.events_seen[-1] is ends[0]
        return "".join(self.tokens)
