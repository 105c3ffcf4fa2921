"""``headrace keys create | list | revoke``: on the file of the state folder, whether a server runs or not."""

from __future__ import annotations

import asyncio
import json
import re
import time
from contextlib import closing
from typing import Any

import click
import msgspec

from headrace.admission.registry import Registry
from headrace.cli.errors import Mistake, told
from headrace.cli.options import loaded, with_settings
from headrace.domain.key import MAX_LIFE_S, MAX_NAME, Key
from headrace.domain.limits import Limits, contradiction
from headrace.domain.principal import SCOPES, Scope
from headrace.domain.tenant import NAME
from headrace.reloading import build_registry

BY = "headrace keys"
_LIFE = re.compile(r"(\d{1,5})([smhdw])")
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86_400, "w": 604_800}


@click.group("keys")
def command() -> None:
    """Create, list and revoke API keys. A running server obeys within a second."""


@command.command("create")
@click.option("--tenant", default="default", show_default=True, help="Whose key it is.")
@click.option(
    "--scope",
    "scopes",
    type=click.Choice(SCOPES),
    multiple=True,
    default=("infer",),
    show_default="infer",
    help="What it may do; several are possible.",
)
@click.option("--expires", metavar="TIME", help="30d, 12h, 90m …; not given: never.")
@click.option("--name", default="", help="What it is for.")
@click.option(
    "--limit",
    "limits",
    metavar="NAME=NUMBER",
    multiple=True,
    help="What it may use: requests_per_minute, tokens_per_minute, tokens_per_day, concurrent, pace.",
)
@with_settings
def create_key(
    tenant: str,
    scopes: tuple[Scope, ...],
    expires: str | None,
    name: str,
    limits: tuple[str, ...],
    config: str | None,
    **flags: Any,
) -> None:
    """Print a new key. Nobody can read it again: only its SHA-256 is kept."""
    with told():
        if re.search(NAME, tenant) is None:
            raise Mistake("--tenant: must be 1 to 64 letters, digits, _, . or -")
        if len(name) > MAX_NAME:
            raise Mistake(f"--name: must have at most {MAX_NAME} characters")
        expires_at = None if expires is None else time.time() + _life_s(expires)
        allowed = _limits(limits)
        with closing(_registry(config, flags)) as registry:
            was_open = registry.keys.open
            is_new = tenant not in {known.name for known in registry.tenants}
            good_for = tuple(dict.fromkeys(scopes))
            create = registry.create_key(tenant, good_for, name, expires_at, BY, allowed)
            key, text = asyncio.run(create)
        click.echo(text)
        click.echo(f"This is shown once. {_described(key)}", err=True)
        if is_new:
            click.echo(f"The tenant {tenant} is new; it has the default terms.", err=True)
        if was_open:
            click.echo("It is the first: from now on the server asks for a key.", err=True)


@command.command("list")
@with_settings
def list_keys(config: str | None, **flags: Any) -> None:
    """Every key, those of the settings too: its id, never the key."""
    with told():
        with closing(_registry(config, flags)) as registry:
            keys = registry.list_keys()
        for key in keys:
            click.echo(_described(key))
        if not keys:
            click.echo("There is no key.", err=True)


@command.command("revoke")
@click.argument("id")
@with_settings
def revoke_key(id: str, config: str | None, **flags: Any) -> None:
    """Make the key ID good for nothing. Answers that are being written go on."""
    with told():
        with closing(_registry(config, flags)) as registry:
            key = asyncio.run(registry.revoke_key(id, BY))
        click.echo(_described(key))


def _registry(config: str | None, flags: dict[str, Any]) -> Registry:
    return build_registry(loaded(config, flags).settings)


def _life_s(text: str) -> int:
    found = _LIFE.fullmatch(text)
    seconds = int(found[1]) * _SECONDS[found[2]] if found else 0
    if not 0 < seconds <= MAX_LIFE_S:
        raise Mistake("--expires: must be like 30d, 12h, 90m or 45s, and at most ten years")
    return seconds


def _limits(said: tuple[str, ...]) -> Limits:
    fields = dict(one.partition("=")[::2] for one in said)
    try:
        limits = msgspec.convert(fields, Limits, strict=False)
    except msgspec.ValidationError as error:
        raise Mistake(f"--limit: {error}") from None
    wrong = contradiction(limits)
    if wrong is not None:
        raise Mistake(f"--limit: {wrong.field} {wrong.why}")
    return limits


def _described(key: Key) -> str:
    words = [key.id, f"tenant={key.tenant}", f"scope={','.join(key.scopes)}"]
    times = (
        ("created", key.created_at),
        ("expires", key.expires_at),
        ("revoked", key.revoked_at),
    )
    words += [f"{what}={_written(at)}" for what, at in times if at is not None]
    limits = msgspec.to_builtins(key.limits)
    words += [f"{name}={amount:g}" for name, amount in limits.items()]
    if key.spent(time.time()):
        words.append("(good for nothing)")
    if key.name:
        words.append(json.dumps(key.name, ensure_ascii=False))
    return "  ".join(words)


def _written(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M", time.localtime(at))
