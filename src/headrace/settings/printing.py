"""The tree on paper: effective values as TOML with their origins, and every setting as a table."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import msgspec

from headrace.settings.fields import TABLES, Field, fields
from headrace.settings.loading import Loaded

HIDDEN = "***"


def as_toml(loaded: Loaded) -> str:
    """The effective tree as a settings file; after each value where it came from. Secrets stay hidden."""
    lines: list[str] = []
    for kind in ("server", "limits", "scheduling", "store", "jobs"):
        lines += _table(loaded, f"[{kind}]", kind, kind, getattr(loaded.settings, kind))
    for kind, several in (("models", loaded.settings.models), ("hooks", loaded.settings.hooks)):
        for index, struct in enumerate(several):
            lines += _table(loaded, f"[[{kind}]]", f"{kind}[]", f"{kind}[{index}]", struct)
            lines += _inner(loaded, kind, f"{kind}[{index}]", struct)
    for index, tenant in enumerate(loaded.settings.tenants):
        path = f"tenants[{index}]"
        lines += _table(loaded, "[[tenants]]", "tenants[]", path, tenant)
        lines += _table(
            loaded, "[tenants.limits]", "tenants[].limits", f"{path}.limits", tenant.limits
        )
        for number, limits in enumerate(tenant.model_limits):
            head, kind = "[[tenants.model_limits]]", "tenants[].model_limits[]"
            lines += _table(loaded, head, kind, f"{path}.model_limits[{number}]", limits)
    return "\n".join(lines).lstrip("\n") + "\n"


def docs() -> str:
    """Every setting as Markdown tables, one per table of the file."""
    first = "*Live* ones change while the server runs: `POST /admin/reload` or SIGHUP.\n\n"
    return first + "\n".join(line for kind, struct in TABLES for line in _documented(kind, struct))


def _inner(loaded: Loaded, kind: str, path: str, struct: Any) -> list[str]:
    if kind != "models":
        return []
    lines = _table(
        loaded, "[models.defaults]", "models[].defaults", f"{path}.defaults", struct.defaults
    )
    if struct.embedding.enabled:
        kind, inner = "models[].embedding", f"{path}.embedding"
        lines += _table(loaded, "[models.embedding]", kind, inner, struct.embedding)
    lines += _table(loaded, "[models.limits]", "models[].limits", f"{path}.limits", struct.limits)
    if struct.engine == "onnx":
        for name in ("onnx", "batching"):
            kind, inner = f"models[].{name}", getattr(struct, name)
            lines += _table(loaded, f"[models.{name}]", kind, f"{path}.{name}", inner)
    for name in ("replicas", "versions"):
        for index, inner in enumerate(getattr(struct, name)):
            kind, at = f"models[].{name}[]", f"{path}.{name}[{index}]"
            lines += _table(loaded, f"[[models.{name}]]", kind, at, inner)
    return lines


def _table(loaded: Loaded, head: str, kind: str, path: str, struct: Any) -> list[str]:
    rows = [
        _row(loaded, field, f"{path}.{field.name}", getattr(struct, attribute))
        for field in fields()
        if field.table == kind
        for attribute in [_attribute(struct, field)]
    ]
    return ["", head, *rows]


def _attribute(struct: Any, field: Field) -> str:
    known = {one.encode_name: one.name for one in msgspec.structs.fields(struct)}
    return known[field.name]


def _row(loaded: Loaded, field: Field, path: str, value: Any) -> str:
    origin = loaded.origins.get(path) or ("file" if _below(loaded, path) else "default")
    if value is None:
        return f"# {field.name} is not set"
    shown = _hidden(loaded, path, value) if field.secret else value
    return f"{field.name} = {_literal(shown)}  # {origin}"


def _below(loaded: Loaded, path: str) -> bool:
    return any(known.startswith(f"{path}.") for known in loaded.origins)


def _hidden(loaded: Loaded, path: str, value: Any) -> Any:
    """A secret as ``env:NAME`` if it was written so, else as stars."""
    if isinstance(value, tuple):
        return tuple(loaded.written.get(f"{path}[{index}]", HIDDEN) for index in range(len(value)))
    return loaded.written.get(path, HIDDEN)


def _literal(value: Any) -> str:
    if isinstance(value, list | tuple):
        return "[" + ", ".join(map(_literal, value)) + "]"
    if isinstance(value, dict):
        pairs = (f"{json.dumps(key)} = {_literal(inner)}" for key, inner in value.items())
        return "{ " + ", ".join(pairs) + " }" if value else "{}"
    if isinstance(value, str | bool | int | float):
        return json.dumps(value, ensure_ascii=False)
    return str(value)


def _documented(kind: str, struct: type[msgspec.Struct]) -> Iterator[str]:
    rule = (struct.__doc__ or "").strip()
    yield f"### `{_heading(kind)}`\n\n{rule}\n"
    yield "| key | default | flag | environment | who changes it, and when |"
    yield "|---|---|---|---|---|"
    for field in fields():
        if field.table == kind:
            flag = f"`{field.flag}`" if field.flag else ""
            environment = f"`{field.environment}`" if field.environment else ""
            doc = f"{field.doc} *Live.*" if field.live else field.doc
            yield f"| `{field.name}` | {_default(field)} | {flag} | {environment} | {doc} |"
    yield ""


def _heading(kind: str) -> str:
    return f"[[{kind.replace('[]', '')}]]" if kind.endswith("[]") else f"[{kind.replace('[]', '')}]"


def _default(field: Field) -> str:
    if field.default is None:
        return ""
    return "must be set" if field.default is msgspec.NODEFAULT else f"`{_literal(field.default)}`"
