"""How does it fit together? The only module that builds things and hands them to each other."""

from __future__ import annotations

import asyncio
import logging
import signal
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import uvloop

from headrace import __version__, embedding_building
from headrace.admission.read_tokens import ReadTokens
from headrace.apart import Apart
from headrace.domain.errors import HeadraceError
from headrace.embedding import EmbeddingService
from headrace.engine_building import EngineBuilder
from headrace.engines.engine import Engine
from headrace.express import Express
from headrace.flow import Flow
from headrace.front.listen import Front, listen
from headrace.front.outbox import Outbox
from headrace.front.sockets import named
from headrace.grpc_building import Grpc, wanted
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.hosts import Hosts
from headrace.protocols.port import Admin
from headrace.reloading import Reloading, Reread, build_registry, on_hangup
from headrace.routing.model import Model, Replica
from headrace.scheduling.batcher import BatchQueue
from headrace.scheduling.policies import policy
from headrace.scheduling.queue import Queue
from headrace.server_building import (
    build_chain,
    build_jobs,
    build_limiting,
    build_store,
    build_tls,
    front_options,
    limits,
    log_level,
    read_secret,
    sampling,
    sizes,
    usage_rules,
)
from headrace.service import TICK_S, Service
from headrace.settings import Settings
from headrace.settings.checking import check_open, hosts, operations_hosts
from headrace.settings.environment import inherited
from headrace.settings.model import Model as ModelSettings
from headrace.standings import Standings
from headrace.streams.disk import log_bytes
from headrace.streams.hub import Hub
from headrace.streams.sqlite import SqliteStore
from headrace.streams.topics import News, Topics
from headrace.telemetry.cache_look import LOOK_S, CacheLook
from headrace.telemetry.collector import GcWatch
from headrace.telemetry.exposition import Exposition
from headrace.telemetry.logs import configure
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.operations import OperationsPort
from headrace.telemetry.tracing import tracing

if TYPE_CHECKING:  # they import numpy
    from headrace.kserve_building import V2
    from headrace.tensor_version import TensorVersion
    from headrace.tensors import TensorService

logger = logging.getLogger("headrace.app")

PROVIDERS = {
    "openai": "openai",
    "llama": "llama.cpp",
    "genai": "onnxruntime-genai",
    "scripted": "headrace",
}
"""``gen_ai.provider.name`` by a model's engine."""

Announce = Callable[["App"], None]
"""Called once the server listens: what a person wants to read then."""


def serve(
    settings: Settings, announce: Announce | None = None, reread: Reread | None = None
) -> int:
    """Serve until SIGINT or SIGTERM; returns the exit status. Raises :class:`CannotListen` for an address or
    a certificate, :class:`HeadraceError` for a store or a hook, that cannot be used, and :class:`SettingsError`
    if others would get in without a key. ``reread``: reads the settings again, on SIGHUP and when ``/admin`` asks."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(App(settings, reread).run(announce))


class App:
    """One server: everything it owns, in the order in which it is built and, backwards, closed."""

    def __init__(self, settings: Settings, reread: Reread | None = None) -> None:
        self.settings = self.in_force = settings
        self.registry = build_registry(settings)
        check_open(settings, created_keys=self.registry.has_created_keys)
        self.tls = build_tls(settings)
        self.reloading = Reloading(settings, reread, self.registry, self._apply, self.tls)
        self.gc_watch = GcWatch()
        self.metrics = Metrics(self.gc_watch)
        self.exposition = Exposition(self.metrics)
        self.tracing = tracing(inherited(), settings.server.tracing, self.metrics)
        self.topics = Topics()
        self.store = build_store(settings)
        self.hub = Hub(self.store)
        self.outbox = Outbox()
        self.flows = [self._flow(model) for model in settings.models if model.engine != "onnx"]
        self.limiting = build_limiting(settings)
        self.batch_queue = BatchQueue(settings.limits.max_queue, settings.limits.queue_timeout_s)
        self.standings = Standings(self.registry.tenants.of)
        self.tensors = self._build_tensors()
        self.registry.on_change = self._limit_anew
        self._limit_anew()
        self.service = self._build_service()
        self.embedding = self._build_embedding()
        self.jobs = build_jobs(settings, self.service, self.embedding)
        self.v2 = self._build_v2()
        tracer = self.tracing.tracer
        self.grpc = Grpc(settings, self.service, tracer, self.v2) if wanted(settings) else None
        self.api = self._build_api()
        self.engine_losses: dict[str, int] = {}
        self.front: Front | None = None
        self.operations: OperationsPort | None = None
        self.stopping = asyncio.Event()

    def _flow(self, model: ModelSettings) -> Flow:
        built = EngineBuilder(self.settings, self.outbox.write).build(model)
        flow = self._flow_over(model, built.replicas)
        if built.for_rows is not None:
            replica: Replica[Engine] = Replica(f"{model.name} (jobs)", built.for_rows)
            rows = self._flow_over(model, [replica])
            news = partial(self._model_news, rows, replica)
            flow.apart = Apart(rows, built.for_rows, flow, news)
        if built.express is not None:
            replica = Replica(f"{model.name} (express)", built.express)
            news = partial(self._model_news, flow, replica)
            flow.express = Express(replica, built.express, flow, news)
            if len(self.settings.tenants) > 1:  # they will meet
                flow.express.wanted()
        return flow

    def _flow_over(self, model: ModelSettings, replicas: Sequence[Replica[Engine]]) -> Flow:
        limits = self.settings.limits
        built = Model(model.name, model.aliases, replicas, int(time.time()))
        scheduling = self.settings.scheduling
        decides = policy(scheduling.policy, **scheduling.options)
        queue: Queue = Queue(decides, limits.max_queue, limits.queue_timeout_s)  # type: ignore[type-arg]
        metrics = self.metrics.model(model.name)
        metrics.provider = PROVIDERS[model.engine]
        return Flow(
            built,
            queue,
            metrics.by_kind(),
            sampling(model.defaults),
            model.continuation == "exact",
            model.single_flight,
            model.fallback,
        )

    def _build_tensors(self) -> TensorService | None:
        """Of the models that take tensors; what it needs is imported only where there are some."""
        if all(model.engine != "onnx" for model in self.settings.models):
            return None
        from headrace.tensor_building import build

        def news(version: TensorVersion, state: str) -> None:
            if self.topics.wanted("model"):
                plan = version.plan
                said = {"state": state, "model": plan.model, "replica": plan.name}
                self.topics.publish("model", {**said, "version": plan.version})

        def busy() -> bool:
            return self.service.busy

        take_request = self.limiting.take_request
        return build(self.settings, self.batch_queue, news, self.standings.of, take_request, busy)

    def _build_service(self) -> Service:
        return Service(
            self.flows,
            self.hub,
            keys=self.registry.keys,
            read_tokens=ReadTokens(read_secret(self.settings)),
            chain=build_chain(self.settings),
            topics=self.topics,
            limits=limits(self.settings),
            limiting=self.limiting,
            tenants=self.registry.tenants,
            tracer=self.tracing.tracer,
            tensors=self.tensors,
        )

    def _build_embedding(self) -> EmbeddingService:
        return embedding_building.build(
            self.settings,
            {flow.model.name: flow for flow in self.flows},
            self.batch_queue,
            self.tensors,
            self.service.model,
            self.standings.of,
            self.limiting,
            self.metrics,
        )

    def _build_v2(self) -> V2 | None:
        """The protocol of models that take tensors, where there are some."""
        if self.tensors is None:
            return None
        from headrace.kserve_building import V2

        return V2(self.service, self.tensors, self.settings.server.max_body_bytes)

    def _build_api(self) -> Api:
        """Of all protocols."""
        server = self.settings.server
        with_routes = [each for each in (self.grpc, self.v2) if each is not None]
        return Api(
            self.service,
            ApiOptions(__version__, server.cors_origin, hosts=hosts(self.settings)),
            metrics=self.exposition.render,
            admin=Admin(self.registry, self.reloading.reload),
            embedder=self.embedding,
            jobs=self.jobs,
            more=[route for each in with_routes for route in each.routes],
            tracer=self.tracing.tracer,
            tensors=self.tensors,
            described=None if self.v2 is None else self.v2.described,
        )

    async def run(self, announce: Announce | None = None) -> int:
        """Open, serve, close."""
        settings = self.settings
        tracer = self.tracing.tracer
        ids = None if tracer is None else tracer.ids_of
        logs = configure(sys.stderr, settings.server.log_format, log_level(settings), ids=ids)
        self.metrics.watch("log_lines_dropped", lambda: logs.dropped)
        try:
            await self._open()
            if announce is not None:
                announce(self)
            await self._serve()
            return 0
        finally:
            if self.grpc is not None:
                await self.grpc.close()
            self.registry.close()
            logs.close()

    async def _open(self) -> None:
        """The store first: what a crash left must be known before anything new comes."""
        loop = asyncio.get_running_loop()
        for signal_number in (signal.SIGINT, signal.SIGTERM):
            loop.add_signal_handler(signal_number, self.stopping.set)
        on_hangup(self.stopping.set, lambda: self.service.spawn(self.reloading.on_signal()))
        self.gc_watch.install()
        found = await self.store.open()
        self.limiting.load(time.time())
        going_on = self.service.recover(found)
        if going_on:
            what = "generation goes" if going_on == 1 else "generations go"
            logger.info("%d unfinished %s on once the model is ready", going_on, what)
        if self.jobs is not None:
            await self.jobs.open()
        opens = None if self.grpc is None else self.grpc.opens
        options = front_options(self.settings, self.tls, self.api, opens)
        self.front = await listen(self.api.handle, options, self.outbox)
        if self.grpc is not None:
            await self.grpc.start(self.api.handle, options, self.outbox)
        self.operations = self._operations()
        self._watch()
        self.gc_watch.settle()

    def _limit_anew(self) -> None:
        """Keys, tenants or settings have changed."""
        known = self.registry
        rules = usage_rules(known.list_keys(), known.list_tenants(), known.models)
        self.limiting.replace(rules, sizes(self.in_force))

    def _apply(self, settings: Settings) -> None:
        """Take over the limits of settings that were read again."""
        self.in_force = settings
        self.service.limits = limits(settings)
        self._limit_anew()
        most, timeout_s = settings.limits.max_queue, settings.limits.queue_timeout_s
        self.batch_queue.limit, self.batch_queue.timeout_s = most, timeout_s
        for flow in self.flows:
            for part in flow.parts:
                part.queue.limit, part.queue.timeout_s = most, timeout_s

    async def _serve(self) -> None:
        async with asyncio.TaskGroup() as tasks:
            background = [
                tasks.create_task(self._tick(), name="tick"),
                tasks.create_task(self.registry.watch(), name="keys"),
            ]
            for flow in self.flows:
                for replica in flow.model.replicas:
                    load = self._load(flow, replica)
                    background.append(tasks.create_task(load, name=f"load {replica.name}"))
                    look = self._look_at_cache(flow, replica)
                    background.append(tasks.create_task(look, name=f"cache {replica.name}"))
                for beside in flow.beside:
                    name = f"beside {flow.model.name}"
                    background.append(tasks.create_task(beside.run(), name=name))
            if self.tensors is not None:
                background.append(tasks.create_task(self.tensors.load_first(), name="tensors"))
            background.append(tasks.create_task(self.embedding.load(), name="embeddings"))
            await self.stopping.wait()
            await self._close()
            for task in background:
                task.cancel()

    async def _close(self) -> None:
        grace_s = self.settings.server.shutdown_grace_s
        logger.info("stopping: running generations have %g s", grace_s)
        if self.grpc is not None:
            self.grpc.leave()
        until = time.monotonic() + grace_s
        await self.embedding.close(grace_s)
        grace_s = max(0.0, until - time.monotonic())
        tensors = () if self.tensors is None else (self.tensors.close(grace_s),)
        await asyncio.gather(self.service.close(grace_s), *tensors)
        if self.jobs is not None:
            await self.jobs.close()
        if self.grpc is not None:
            await self.grpc.close()
        if self.front is not None:
            await self.front.close(1.0)
        await self.api.close()
        if self.v2 is not None:
            self.v2.close()
        for flow in self.flows:
            for beside in flow.beside:
                await beside.close()
            for replica in flow.model.replicas:
                await replica.engine.close()
                self._model_news(flow, replica, "unloaded")
        await self.store.close()
        if self.operations is not None:
            self.operations.close()
        await asyncio.to_thread(self.tracing.close)

    async def _load(self, flow: Flow, replica: Replica[Engine]) -> None:
        try:
            await replica.engine.load()
        except HeadraceError as error:
            if self.stopping.is_set():
                return
            logger.error("%s cannot serve: %s", replica.name, error.message)
            return
        self.service.tick(time.monotonic())
        self.gc_watch.settle()
        self._model_news(flow, replica, "loaded")

    def _model_news(self, flow: Flow, replica: Replica[Engine], state: str) -> None:
        if self.topics.wanted("model"):
            news = {"state": state, "model": flow.model.name, "replica": replica.name}
            self.topics.publish("model", news)

    @property
    def resting(self) -> bool:
        """Whether nothing is asked of any model."""
        tensors = self.tensors
        under_way = self.embedding.busy or (tensors is not None and tensors.under_way > 0)
        return not (under_way or self.service.busy)

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = time.monotonic()
            self.service.tick(now)
            if self.tensors is not None:
                self.tensors.tick(now)
            self.metrics.fold()
            self.gc_watch.rest(self.resting)
            if self.grpc is not None:
                self.grpc.look()

    async def _look_at_cache(self, flow: Flow, replica: Replica[Engine]) -> None:
        """The embedded engine's share of cache in use, for ``/metrics``. It has one replica a model."""
        meter = self.metrics.model(flow.model.name)
        look = CacheLook(
            replica.engine.cache_usage,
            lambda: replica.in_use > 0,
            lambda: meter.watch("kv_cache_usage", lambda: look.usage),
        )
        while look.goes_on:
            await look.look()
            await asyncio.sleep(LOOK_S)

    def _engine_news(self, news: News) -> None:
        """An engine came up or went down."""
        model, state = news["model"], news["state"]
        if state == "down":
            if self.stopping.is_set():
                return
            self.engine_losses[model] = self.engine_losses.get(model, 0) + 1
            text = "%s went down: %s"
            logger.warning(text, news["replica"], news["reason"], extra={"model": model})
        else:
            logger.info("%s serves", news["replica"], extra={"model": model})

    def _losses(self, model: str) -> float:
        return self.engine_losses.get(model, 0)

    def _watch(self) -> None:
        """Numbers that others keep, shown in ``/metrics``."""
        store = self.store
        if isinstance(store, SqliteStore):
            self.metrics.watch("store_appends", lambda: store.appends)
            self.metrics.watch("store_commits", lambda: store.commits)
        self.metrics.watch("readers", lambda: self.hub.readers)
        self.metrics.watch("limited", lambda: self.limiting.refused)
        self.topics.subscribe("engine", self._engine_news)
        if self.tensors is not None:
            self.metrics.tensors = self.tensors.all_counts
        front = self.front
        if front is not None:
            self.metrics.watch("connections", lambda: front.connections)
        for flow in self.flows:
            meter = self.metrics.model(flow.model.name)
            meter.watch("waiting", partial(_waiting, flow))
            meter.watch("running", partial(_running, flow))
            meter.watch("engine_restarts", partial(self._losses, flow.model.name))
            for replica in flow.all_replicas:
                meter.watch_replica("places", replica.name, partial(_places, replica))
                meter.watch_replica("in_use", replica.name, partial(_in_use, replica))
                meter.watch_replica("refusals", replica.name, partial(_refusals, replica))
        path = self.settings.database_path
        if path is not None:
            self.metrics.watch("log_bytes", lambda: log_bytes(path))

    def _operations(self) -> OperationsPort | None:
        server = self.settings.server
        if server.ops_port is None:
            return None
        names = operations_hosts(self.settings)
        try:
            port = OperationsPort(
                server.ops_host,
                server.ops_port,
                self.exposition,
                self.service.readiness,
                foreign=_no_names if names is None else Hosts(names).foreign,
            )
        except OSError as error:
            raise named(error, f"{server.ops_host}:{server.ops_port}") from error
        port.start()
        return port


def _no_names(_: bytes | None) -> None:
    """No name is foreign."""


def _waiting(flow: Flow) -> float:
    return sum(
        len(part.queue) + sum(replica.early for replica in part.model.replicas)
        for part in flow.parts
    )


def _running(flow: Flow) -> float:
    return sum(replica.in_use - replica.early for replica in flow.all_replicas)


def _places(replica: Replica[Engine]) -> float:
    return replica.places


def _in_use(replica: Replica[Engine]) -> float:
    return replica.in_use


def _refusals(replica: Replica[Engine]) -> float:
    return replica.refusals
