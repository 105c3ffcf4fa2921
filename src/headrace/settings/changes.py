"""What differs between two readings of the settings, and what of it a running server takes over."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from headrace.settings.fields import fields, live_tables
from headrace.settings.paths import kind_of, leaves
from headrace.settings.tree import Settings


class Changes(NamedTuple):
    """``settings``: what is in force then. ``applied`` and ``waiting``: the paths of what changes now, and of what
    needs another start."""

    settings: Settings
    applied: tuple[str, ...]
    waiting: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """From what is in force to what was read now."""
    before, after = _values(old), _values(new)
    paths = [
        path
        for path in {**before, **after}
        if path not in before or path not in after or before[path] != after[path]
    ]
    live = [path for path in paths if _is_live(path)]
    return Changes(
        _merged(old, new), tuple(live), tuple(path for path in paths if path not in live)
    )


def _values(settings: Settings) -> dict[str, Any]:
    """By their paths. What has several and none of them is as if it were not there."""
    return {path: value for path, value in leaves(msgspec.to_builtins(settings)) if value != ()}


def _is_live(path: str) -> bool:
    kind = kind_of(path)
    return kind.partition("[")[0] in live_tables() or any(
        field.live and field.path == kind for field in fields()
    )


def _merged(old: Settings, new: Settings) -> Settings:
    """The old ones with what is live of the new ones."""
    parts: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        mine, theirs = getattr(old, name), getattr(new, name)
        if isinstance(mine, tuple):
            parts[name] = theirs if name in live_tables() else mine
        else:
            live = [field.name for field in fields() if field.table == name and field.live]
            taken = {field: getattr(theirs, field) for field in live}
            parts[name] = msgspec.structs.replace(mine, **taken)
    return Settings(**parts)
