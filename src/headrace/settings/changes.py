"""What differs between two readings of the settings, and what of it a running server takes over."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.settings.fields import fields, live_tables
from headrace.settings.model import Model
from headrace.settings.paths import leaves
from headrace.settings.tree import Settings

_OF_MODEL = re.compile(r"^models\[(\d+)\]")


class Changes(NamedTuple):
    """``settings``: what is in force then. ``applied`` and ``waiting``: the paths of what changes now, and of what
    needs another start."""

    settings: Settings
    applied: tuple[str, ...]
    waiting: tuple[str, ...]


def changes(old: Settings, new: Settings) -> Changes:
    """From what is in force to what was read now. Paths are those of the new ones."""
    merged = _merged(old, new)
    places = {model.name: index for index, model in enumerate(new.models)}
    moved = [places.get(model.name) for model in old.models]
    applied = tuple(_moved(path, moved) for path in _differing(old, merged))
    running = {model.name for model in old.models}
    in_force = tuple(
        f"models[{index}].limits."
        for index, model in enumerate(new.models)
        if model.name in running
    )
    waiting = tuple(path for path in _differing(merged, new) if not path.startswith(in_force))
    return Changes(merged, applied, waiting)


def _differing(old: Settings, new: Settings) -> list[str]:
    before, after = _values(old), _values(new)
    return [
        path
        for path in {**before, **after}
        if path not in before or path not in after or before[path] != after[path]
    ]


def _values(settings: Settings) -> dict[str, Any]:
    """By their paths. What has several and none of them is as if it were not there."""
    return {path: value for path, value in leaves(msgspec.to_builtins(settings)) if value != ()}


def _moved(path: str, places: Sequence[int | None]) -> str:
    """A model's path, given where each model stands now."""
    return _OF_MODEL.sub(lambda found: f"models[{places[int(found[1])]}]", path)


def _merged(old: Settings, new: Settings) -> Settings:
    """The old ones with what is live of the new ones."""
    parts: dict[str, Any] = {}
    for name in Settings.__struct_fields__:
        mine, theirs = getattr(old, name), getattr(new, name)
        if name == "models":
            parts[name] = _limited(mine, theirs)
        elif isinstance(mine, tuple):
            parts[name] = theirs if name in live_tables() else mine
        else:
            live = [field.name for field in fields() if field.table == name and field.live]
            taken = {field: getattr(theirs, field) for field in live}
            parts[name] = msgspec.structs.replace(mine, **taken)
    return Settings(**parts)


def _limited(old: Sequence[Model], new: Sequence[Model]) -> tuple[Model, ...]:
    """The old ones with the limits of the new ones of the same names: of a model nothing else is live."""
    limits = {model.name: model.limits for model in new}
    return tuple(
        msgspec.structs.replace(model, limits=limits.get(model.name, model.limits)) for model in old
    )
