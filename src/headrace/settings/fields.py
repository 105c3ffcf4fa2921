"""The declared tree as a list of fields: from here flags, environment names, file keys and docs are derived.

The rule: ``[section] field`` is ``HEADRACE_SECTION_FIELD`` and ``--section-field``; the server's flags
go without ``server-``. ``--model-field`` is meant for the one model of a server that has no file.
"""

from __future__ import annotations

import types
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints

import msgspec
from msgspec.structs import FieldInfo

from headrace.domain.limits import Limits as UsageLimits
from headrace.domain.limits import ModelLimits
from headrace.settings.model import (
    Batching,
    Embedding,
    Model,
    Onnx,
    Replica,
    SamplingDefaults,
    Version,
)
from headrace.settings.tree import (
    Hook,
    Jobs,
    Limits,
    Scheduling,
    Server,
    Settings,
    Store,
    Tenant,
)

TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("server", Server),
    ("limits", Limits),
    ("scheduling", Scheduling),
    ("store", Store),
    ("jobs", Jobs),
    ("models[]", Model),
    ("models[].defaults", SamplingDefaults),
    ("models[].embedding", Embedding),
    ("models[].replicas[]", Replica),
    ("models[].versions[]", Version),
    ("models[].onnx", Onnx),
    ("models[].batching", Batching),
    ("models[].limits", UsageLimits),
    ("hooks[]", Hook),
    ("tenants[]", Tenant),
    ("tenants[].limits", UsageLimits),
    ("tenants[].model_limits[]", ModelLimits),
)
"""The tables of the settings file; ``[]`` marks those that may come several times."""

SECTIONS = {
    "server": "server",
    "limits": "limits",
    "scheduling": "scheduling",
    "store": "store",
    "jobs": "jobs",
    "models[]": "model",
}
"""The tables that flags and environment reach, and what they are called there."""


class Field(msgspec.Struct, frozen=True):
    """One setting. ``path`` as in ``models[].slots``; ``type`` with its bounds; ``flag`` and ``environment``
    are ``None`` for what only the file can say. ``live``: it changes while the server runs."""

    table: str
    name: str
    type: Any
    default: Any
    doc: str
    secret: bool
    live: bool
    common: bool
    flag: str | None
    environment: str | None

    @property
    def path(self) -> str:
        return f"{self.table}.{self.name}"

    @property
    def bare(self) -> Any:
        """The type without its bounds and without ``None``."""
        return bare(self.type)

    @property
    def several(self) -> bool:
        """Whether it takes several values: a repeated flag, commas in the environment."""
        return get_origin(self.bare) is tuple

    @property
    def choices(self) -> tuple[str, ...]:
        """The values it may have, or each of several, if they are named."""
        one = bare(get_args(self.bare)[0]) if self.several else self.bare
        return get_args(one) if get_origin(one) is Literal else ()

    @property
    def words(self) -> tuple[str, ...]:
        """Texts that it may be instead of what its type says."""
        others = (one for one in get_args(self.type) if get_origin(one) is Literal)
        return tuple(word for other in others for word in get_args(other))


def bare(annotation: Any) -> Any:
    """A type without ``Annotated`` and without ``None``."""
    if get_origin(annotation) is Annotated:
        return bare(get_args(annotation)[0])
    if get_origin(annotation) in (Union, types.UnionType):
        return bare(get_args(annotation)[0])
    return annotation


@cache
def live_tables() -> frozenset[str]:
    """The tables that a running server takes over as a whole."""
    hints = get_type_hints(Settings, include_extras=True)
    return frozenset(name for name, hint in hints.items() if (_meta(hint).extra or {}).get("live"))


@cache
def fields() -> tuple[Field, ...]:
    """Every setting, in the order of declaration."""
    return tuple(field for table, struct in TABLES for field in _fields_of(table, struct))


def on_command_line() -> tuple[Field, ...]:
    """Those that have a flag."""
    return tuple(field for field in fields() if field.flag)


def _fields_of(table: str, struct: type[msgspec.Struct]) -> Iterator[Field]:
    hints = get_type_hints(struct, include_extras=True)
    for declared in msgspec.structs.fields(struct):
        annotation = hints[declared.name]
        if _is_table(annotation):
            continue
        meta = _meta(annotation)
        extra = meta.extra or {}
        section = None if get_origin(bare(annotation)) is dict else SECTIONS.get(table)
        yield Field(
            table=table,
            name=declared.encode_name,
            type=annotation,
            default=_default(declared),
            doc=meta.description or "",
            secret=bool(extra.get("secret")),
            live=bool(extra.get("live")) or table.partition("[")[0] in live_tables(),
            common=bool(extra.get("common")),
            flag=(extra.get("flag") or _flag(section, declared.name)) if section else None,
            environment=f"HEADRACE_{section}_{declared.name}".upper() if section else None,
        )


def _default(declared: FieldInfo) -> Any:
    """``NODEFAULT`` where it must be set."""
    made = declared.default_factory
    return declared.default if made is msgspec.NODEFAULT else made()


def _flag(section: str, name: str) -> str:
    words = name if section == "server" else f"{section}_{name}"
    return "--" + words.replace("_", "-")


def _meta(annotation: Any) -> msgspec.Meta:
    while get_origin(annotation) is not Annotated:
        annotation = get_args(annotation)[0]
    return next(arg for arg in get_args(annotation) if isinstance(arg, msgspec.Meta))


def _is_table(annotation: Any) -> bool:
    inner = bare(annotation)
    inner = get_args(inner)[0] if get_origin(inner) is tuple else inner
    return isinstance(inner, type) and issubclass(inner, msgspec.Struct)
