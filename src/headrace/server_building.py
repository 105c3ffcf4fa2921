"""From settings to those parts of a server that are made of nothing else."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from headrace.admission.day import DayBudgets
from headrace.admission.limiter import Rules
from headrace.admission.read_tokens import SECRET_BYTES, kept_secret
from headrace.admission.sizes import Sizes
from headrace.admission.usage_journal import UsageJournal, usage_journal_path
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.limits import LimitedModel
from headrace.domain.request import Sampling
from headrace.domain.tenant import Tenant
from headrace.front.exchange import Head
from headrace.front.limits import Limits as FrontLimits
from headrace.front.listen import FrontOptions
from headrace.front.tls import ServerTls, Tls
from headrace.jobs.jobs import Jobs
from headrace.jobs.limits import Limits as JobLimits
from headrace.limiting import Limiting
from headrace.protocols.api import Api
from headrace.protocols.embedding_port import Embedder
from headrace.protocols.rows import Rows
from headrace.service import Limits, Service
from headrace.settings import Settings
from headrace.settings.model import SamplingDefaults
from headrace.streams.bounds import Bounds
from headrace.streams.hooks import HookChain, load_hooks
from headrace.streams.memory import MemoryStore
from headrace.streams.sqlite import SqliteStore
from headrace.streams.store import Store


def limits(settings: Settings) -> Limits:
    """What the service holds all generations to."""
    limits = settings.limits
    return Limits(
        limits.max_queue,
        limits.queue_timeout_s,
        limits.total_timeout_s,
        limits.join_retries_s,
    )


def build_store(settings: Settings) -> Store:
    """The configured store."""
    bounds = Bounds(
        settings.store.keep_s, settings.store.keep_generations, settings.store.keep_bytes
    )
    path = settings.database_path
    if path is None:
        return MemoryStore(bounds)
    return SqliteStore(path, bounds)


def build_jobs(settings: Settings, service: Service, embedder: Embedder) -> Jobs | None:
    """What runs files of requests; None where nothing may be kept."""
    if settings.database_path is None:
        return None
    said = settings.jobs
    limits = JobLimits(
        files=said.max_files,
        file_bytes=said.max_file_bytes,
        tenant_bytes=said.max_tenant_bytes,
        rows=said.max_rows,
        jobs=said.max_unfinished,
        running=said.running,
    )
    return Jobs(settings.state_path, Rows(service, embedder), limits)


def build_limiting(settings: Settings) -> Limiting:
    """The configured limits. What was used of those of a day is kept where the logs are."""
    path = settings.database_path
    journal = UsageJournal(usage_journal_path(path)) if path is not None else None
    return Limiting(days=DayBudgets(journal))


def usage_rules(
    keys: Iterable[Key], tenants: Sequence[Tenant], models: Mapping[str, LimitedModel]
) -> Rules:
    """What keys, tenants and models may use. ``models``: by their names and aliases."""
    return Rules(
        keys={key.id: key.limits for key in keys if key.limits.some},
        tenants={one.name: one.limits for one in tenants if one.limits.some},
        models={model.name: model.limits for model in models.values()},
        tenant_models={
            (tenant.name, models[limits.model].name): limits
            for tenant in tenants
            for limits in tenant.model_limits
            if limits.model in models
        },
    )


def sizes(settings: Settings) -> Sizes:
    """How large a request may be."""
    limits = settings.limits
    return Sizes(limits.max_prompt_tokens, limits.max_tokens, limits.max_n, limits.reserve_tokens)


def read_secret(settings: Settings) -> bytes:
    """What signs read tokens. It lives as long as the logs do: where they go with the process, so does it.
    Raises ``STORE_FAILED``."""
    if settings.database_path is None:
        return secrets.token_bytes(SECRET_BYTES)
    return kept_secret(settings.state_path / "read-tokens.key")


def build_chain(settings: Settings) -> HookChain | None:
    """The configured hooks; None without any. Raises ``INVALID_REQUEST`` for one that cannot be made."""
    specs = [
        {"class": hook.class_, "on_error": hook.on_error, **hook.options} for hook in settings.hooks
    ]
    try:
        return HookChain(load_hooks(specs)) if specs else None
    except ValueError as error:
        raise HeadraceError(Code.INVALID_REQUEST, str(error), param="hooks") from error


def build_tls(settings: Settings) -> ServerTls | None:
    """Of all ports that clients use. Raises :class:`CannotListen` for files that cannot be used."""
    server = settings.server
    if not server.ssl_certfile:
        return None
    return ServerTls(
        Tls(
            certificate=_file(server.ssl_certfile),
            key=_file(server.ssl_keyfile) if server.ssl_keyfile else None,
            client_ca=_file(server.ssl_client_ca) if server.ssl_client_ca else None,
            client_may=server.ssl_client_auth == "optional",
        )
    )


def _file(path: str) -> str:
    return str(Path(path).expanduser())


def front_options(
    settings: Settings, tls: ServerTls | None, api: Api, opens: Callable[[Head], bool] | None
) -> FrontOptions:
    """Where and how to listen. ``opens``: as gRPC has it, None without."""
    server = settings.server
    return FrontOptions(
        host=server.host,
        port=server.port,
        uds=server.uds,
        tls=tls,
        refuse=api.refuse,
        uploads=api.uploads,
        maps=api.maps,
        opens=opens,
        limits=FrontLimits(
            body_bytes=server.max_body_bytes,
            connections=server.max_connections,
            idle_s=server.keep_alive_s,
        ),
    )


def sampling(defaults: SamplingDefaults) -> Sampling | None:
    """A model's sampling defaults; None if it has none."""
    values = {
        name: value for name, value in msgspec.structs.asdict(defaults).items() if value is not None
    }
    return Sampling(**values) if values else None


def log_level(settings: Settings) -> int:
    levels: Sequence[tuple[str, int]] = (
        ("debug", logging.DEBUG),
        ("info", logging.INFO),
        ("warning", logging.WARNING),
        ("error", logging.ERROR),
    )
    return dict(levels)[settings.server.log_level]
