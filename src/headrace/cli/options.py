"""Flags derived from the declared settings: each field that has a flag becomes an option."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from headrace.settings import Loaded, load
from headrace.settings.fields import Field, on_command_line

Function = TypeVar("Function", bound=Callable[..., Any])

_FILE = click.option("--config", metavar="FILE", help="Settings file (TOML).")


def with_settings(function: Function) -> Function:
    """Give a command ``--config`` and every settings flag; it gets them as keywords for :func:`loaded`."""
    for field in reversed(on_command_line()):
        function = _option(field)(function)
    return _FILE(function)


def loaded(config: str | None, flags: dict[str, Any]) -> Loaded:
    """The effective settings of a command line. Raises :class:`~headrace.settings.SettingsError`."""
    given = {
        field.path: flags[_keyword(field)]
        for field in on_command_line()
        if flags.get(_keyword(field)) not in (None, ())
    }
    return load(config, given)


def _option(field: Field) -> Callable[[Function], Function]:
    more: dict[str, Any] = {"multiple": True} if field.several else {}
    if field.bare is bool:
        more = {"is_flag": True, "flag_value": "true", "type": str}
    return click.option(
        str(field.flag),
        _keyword(field),
        default=None,
        metavar=None if field.bare is bool else "|".join(field.choices) or _noun(field),
        help=field.doc,
        hidden=not field.common,
        **more,
    )


def _keyword(field: Field) -> str:
    return field.path.replace("[]", "").replace(".", "_")


def _noun(field: Field) -> str:
    return {int: "N", float: "NUMBER"}.get(field.bare, "TEXT")
