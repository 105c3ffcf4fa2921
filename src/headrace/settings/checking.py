"""What no single field can know: settings that exclude or need each other."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Sequence
from pathlib import Path

from headrace.scheduling.policies import policy
from headrace.settings.errors import SettingsError
from headrace.settings.limit_checking import check_limits
from headrace.settings.model import Embedding, Model
from headrace.settings.tensor_checking import check_tensors
from headrace.settings.tree import Scheduling, Server, Settings

WITH_FILES = ("llama", "genai", "onnx")
GENAI_CONFIG = "genai_config.json"
_KEY = re.compile(r"[!-~](?:[ -~]*[!-~])?")


def check(settings: Settings) -> None:
    """Raise :class:`SettingsError` for the first contradiction."""
    _check_server(settings.server)
    _check_names(settings)
    for index, model in enumerate(settings.models):
        _check_model(f"models[{index}]", model)
    _check_tenants(settings)
    _check_keys(settings)
    check_limits(settings)
    _check_scheduling(settings.scheduling)


def check_open(settings: Settings, *, created_keys: bool) -> None:
    """Raise :class:`SettingsError` if other machines get in without any key. ``created_keys``: whether there are
    keys that the settings do not know."""
    tenants = any(tenant.keys or tenant.certificates for tenant in settings.tenants)
    if not (settings.server.api_key or tenants or created_keys or may_be_open(settings)):
        name, host = next(iter(_exposed(settings.server).items()))
        raise SettingsError(
            f"server.{name}: {host} lets other machines in and no key is set; set one (--api-key, "
            "or headrace keys create), or --allow-open if that is what you want"
        )


def may_be_open(settings: Settings) -> bool:
    """Whether it may serve everybody who reaches it: only this machine does, or it was said so."""
    return settings.server.allow_open or not _exposed(settings.server)


def hosts(settings: Settings) -> tuple[str, ...] | None:
    """The names by which it may be called while it has no key, beside those of this machine; None: by any."""
    allowed = settings.server.allowed_host
    return None if _exposed(settings.server) or "*" in allowed else allowed


def operations_hosts(settings: Settings) -> tuple[str, ...] | None:
    """The same of the operations port, which never needs a key: a cluster calls it by whatever address it has."""
    server = settings.server
    here = _is_loopback(server.ops_host) and "*" not in server.allowed_host
    return server.allowed_host if here else None


def _exposed(server: Server) -> dict[str, str]:
    """The addresses that other machines reach, by the settings that say so."""
    hosts = {} if server.uds else {"host": server.host}
    if server.grpc_port is not None and not server.grpc_uds:
        hosts["grpc_host"] = server.grpc_host or server.host
    return {name: host for name, host in hosts.items() if not _is_loopback(host)}


def _check_server(server: Server) -> None:
    for name in ("ssl_keyfile", "ssl_client_ca"):
        if getattr(server, name) and not server.ssl_certfile:
            raise SettingsError(f"server.ssl_certfile: must be set when {name} is")
    if server.ssl_client_auth and not server.ssl_client_ca:
        raise SettingsError("server.ssl_client_ca: must be set when ssl_client_auth is")
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_client_ca"):
        path = getattr(server, name)
        if path and not Path(path).expanduser().is_file():
            raise SettingsError(f"server.{name}: there is no file {path}")
    if server.ops_port and server.ops_port == server.port and not server.uds:
        raise SettingsError("server.ops_port: must differ from server.port")
    for name in ("port", "ops_port"):
        if server.grpc_port and server.grpc_port == getattr(server, name) and not server.uds:
            raise SettingsError(f"server.grpc_port: must differ from server.{name}")


def _check_names(settings: Settings) -> None:
    if not settings.models:
        raise SettingsError("models: must not be empty; without it the embedded model is served")
    owners: dict[str, str] = {}
    for index, model in enumerate(settings.models):
        path = f"models[{index}]"
        for name in (model.name, *model.aliases):
            if name in owners:
                raise SettingsError(f"{path}: {name} is also a name of {owners[name]}")
            owners[name] = path
    for index, model in enumerate(settings.models):
        _check_fallback(f"models[{index}].fallback", model, settings.models)


def _check_fallback(path: str, model: Model, models: Sequence[Model]) -> None:
    """It takes what its model takes: tensors, texts to generate from, or texts to make vectors of."""
    if model.fallback is None:
        return
    for other in models:
        if other is not model and model.fallback in (other.name, *other.aliases):
            alike = (other.engine == "onnx") == (model.engine == "onnx")
            vectors = other.engine in ("openai", "scripted") or other.embedding.enabled
            if alike or (model.engine == "onnx" and model.embedding.enabled and vectors):
                return
    does = "takes tensors" if model.engine == "onnx" else "generates"
    raise SettingsError(f"{path}: {model.fallback} is no other model that {does} here")


def _check_scheduling(scheduling: Scheduling) -> None:
    try:
        policy(scheduling.policy, **scheduling.options)
    except ValueError as error:  # which begins with the key
        raise SettingsError(f"scheduling.options.{error}") from None


def _check_model(path: str, model: Model) -> None:
    if model.engine in WITH_FILES and not (model.source or model.versions):
        raise SettingsError(f"{path}.source: must be set for the engine {model.engine}")
    if model.engine not in WITH_FILES and model.source:
        raise SettingsError(f"{path}.source: only the engines {', '.join(WITH_FILES)} have one")
    if model.engine == "genai" and not _is_genai(model.source or ""):
        raise SettingsError(
            f"{path}.source: for the engine genai it is file:FOLDER/{GENAI_CONFIG}, its other files beside it"
        )
    check_tensors(path, model)
    if model.engine == "openai" and not model.replicas:
        raise SettingsError(f"{path}.replicas: the engine openai needs at least one")
    if model.engine != "openai" and model.replicas:
        raise SettingsError(f"{path}.replicas: only the engine openai has them")
    if model.engine != "openai" and model.slots == "auto":
        raise SettingsError(f"{path}.slots: only upstreams of the engine openai have `auto`")
    _check_embedding(f"{path}.embedding", model)
    if model.ubatch and model.batch and model.ubatch > model.batch:
        raise SettingsError(f"{path}.ubatch: must be ≤ batch, which is {model.batch}")


def _is_genai(source: str) -> bool:
    return source.startswith("file:") and Path(source).name == GENAI_CONFIG


def _check_embedding(path: str, model: Model) -> None:
    embedding = model.embedding
    if not embedding.enabled:
        if embedding != Embedding():
            raise SettingsError(f"{path}.enabled: must be true, or the rest means nothing")
        return
    if model.engine == "openai":
        raise SettingsError(f"{path}.enabled: an upstream's embeddings are passed on; leave it out")
    if model.engine == "genai":
        raise SettingsError(f"{path}.enabled: the engine genai gives none; an onnx model does")
    if model.engine == "onnx" and not embedding.tokenizer:
        raise SettingsError(f"{path}.tokenizer: must be set for the engine onnx")
    if model.engine == "llama":
        for name in ("tokenizer", "tokenizer_sha256", "output"):
            if getattr(embedding, name):
                raise SettingsError(f"{path}.{name}: the file of a llama has its own")


def _check_tenants(settings: Settings) -> None:
    names: set[str] = set()
    owners = dict.fromkeys(settings.server.api_key, "server.api_key")
    for index, tenant in enumerate(settings.tenants):
        path = f"tenants[{index}]"
        if tenant.name in names:
            raise SettingsError(f"{path}.name: {tenant.name} comes twice")
        names.add(tenant.name)
        if tenant.certificates and not settings.server.ssl_client_ca:
            raise SettingsError(f"{path}.certificates: server.ssl_client_ca must be set")
        # A key is no SPIFFE ID, so that one table does for both.
        for kind in ("keys", "certificates"):
            for number, value in enumerate(getattr(tenant, kind)):
                if value in owners:
                    raise SettingsError(f"{path}.{kind}[{number}]: is also {owners[value]}")
                owners[value] = f"{path}.{kind}[{number}]"


def _check_keys(settings: Settings) -> None:
    """One that no header carries would lock everybody out, as a file does that ends with a line break."""
    keys = {"server.api_key": settings.server.api_key}
    keys |= {f"tenants[{at}].keys": one.keys for at, one in enumerate(settings.tenants)}
    for path, values in keys.items():
        for index, key in enumerate(values):
            if _KEY.fullmatch(key) is None:
                raise SettingsError(
                    f"{path}[{index}]: must be visible ASCII, without spaces or line breaks around it"
                )


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
