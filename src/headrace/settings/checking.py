"""What no single field can know: settings that exclude or need each other."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from headrace.settings.errors import SettingsError
from headrace.settings.limit_checking import check_limits
from headrace.settings.tree import Model, Server, Settings


def check(settings: Settings) -> None:
    """Raise :class:`SettingsError` for the first contradiction."""
    _check_open(settings)
    _check_server(settings.server)
    _check_names(settings)
    for index, model in enumerate(settings.models):
        _check_model(f"models[{index}]", model)
    _check_tenants(settings)
    check_limits(settings)


def _check_open(settings: Settings) -> None:
    server = settings.server
    if settings.keys or server.allow_open:
        return
    hosts = {} if server.uds else {"host": server.host}
    if server.grpc_port is not None and not server.grpc_uds:
        hosts["grpc_host"] = server.grpc_host or server.host
    for name, host in hosts.items():
        if not _is_loopback(host):
            raise SettingsError(
                f"server.{name}: {host} lets other machines in and no key is set; "
                "set one (--api-key), or --allow-open if that is what you want"
            )


def _check_server(server: Server) -> None:
    if server.ssl_keyfile and not server.ssl_certfile:
        raise SettingsError("server.ssl_certfile: must be set when ssl_keyfile is")
    for name in ("ssl_certfile", "ssl_keyfile"):
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


def _check_model(path: str, model: Model) -> None:
    if model.engine == "llama" and not model.source:
        raise SettingsError(f"{path}.source: must be set for the engine llama")
    if model.engine != "llama" and model.source:
        raise SettingsError(f"{path}.source: only the engine llama has one")
    if model.engine == "openai" and not model.replicas:
        raise SettingsError(f"{path}.replicas: the engine openai needs at least one")
    if model.engine != "openai" and model.replicas:
        raise SettingsError(f"{path}.replicas: only the engine openai has them")
    if model.ubatch and model.batch and model.ubatch > model.batch:
        raise SettingsError(f"{path}.ubatch: must be ≤ batch, which is {model.batch}")


def _check_tenants(settings: Settings) -> None:
    names: set[str] = set()
    owners = dict.fromkeys(settings.server.api_key, "server.api_key")
    for index, tenant in enumerate(settings.tenants):
        path = f"tenants[{index}]"
        if tenant.name in names:
            raise SettingsError(f"{path}.name: {tenant.name} comes twice")
        names.add(tenant.name)
        for number, key in enumerate(tenant.keys):
            if key in owners:
                raise SettingsError(f"{path}.keys[{number}]: is also {owners[key]}")
            owners[key] = f"{path}.keys[{number}]"


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False
