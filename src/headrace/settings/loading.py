"""Four layers make the effective tree: flag over environment over file over default.

Each value's origin is remembered. An unknown key or an impossible value ends the start with the
key's path. This is the only place that reads ``os.environ``.
"""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from headrace.settings.checking import check
from headrace.settings.errors import SettingsError, explain, in_words, nearest
from headrace.settings.fields import SECTIONS, Field, fields, on_command_line
from headrace.settings.model import EMBEDDED
from headrace.settings.paths import Tree, leaves, tables
from headrace.settings.tree import Settings

_HOOK_KEYS = ("class", "on_error", "options")


class Loaded(msgspec.Struct, frozen=True):
    """The effective tree. ``origins``: path → where the value came from (absent: default).
    ``written``: path → a secret as the user wrote it, where that was ``env:NAME``."""

    settings: Settings
    origins: dict[str, str]
    written: dict[str, str]


def load(
    file: str | Path | None = None,
    flags: Mapping[str, Any] | None = None,
    environ: Mapping[str, str] | None = None,
) -> Loaded:
    """Read all layers.

    ``flags``: field path (``server.port``, ``models[].slots``) → text, or texts where a flag may come
    several times; only those that were given. ``environ`` is the process's own unless given. Raises
    :class:`SettingsError`.
    """
    return _Loading(os.environ if environ is None else environ).load(file, flags or {})


class _Loading:
    """One call of :func:`load`."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._tree: Tree = _platform_folders(environ, sys.platform)
        self._origins: dict[str, str] = {}
        self._written: dict[str, str] = {}

    def load(self, file: str | Path | None, flags: Mapping[str, Any]) -> Loaded:
        file = file or self._environ.get("HEADRACE_CONFIG")
        if file:
            self._take_file(Path(file))
        self._take_environment()
        self._take_flags(flags)
        self._resolve_secrets()
        settings = self._convert()
        check(settings)
        return Loaded(settings, self._origins, self._written)

    def _take_file(self, file: Path) -> None:
        tree = _read(file)
        _allow_single_texts(tree)
        _gather_hook_options(tree)
        for path, _ in leaves(tree):
            self._origins[path] = str(file)
        for section, content in tree.items():
            known = self._tree.get(section)
            both = isinstance(known, dict) and isinstance(content, dict)
            self._tree[section] = {**known, **content} if both and known else content

    def _take_environment(self) -> None:
        known = {field.environment: field for field in on_command_line() if field.environment}
        prefixes = tuple(f"HEADRACE_{section}_".upper() for section in SECTIONS.values())
        for name, text in sorted(self._environ.items()):
            if name in known:
                field = known[name]
                self._take(field, text.split(",") if field.several else text, name)
            elif name.startswith(prefixes):
                raise SettingsError(f"{name}: no such setting{nearest(name, known)}")

    def _take_flags(self, flags: Mapping[str, Any]) -> None:
        for field in on_command_line():
            if field.path in flags:
                self._take(field, flags[field.path], str(field.flag))

    def _take(self, field: Field, given: Any, origin: str) -> None:
        path = field.path.replace("[]", "[0]")
        value = [text.strip() for text in given] if field.several else given or None
        try:
            value = msgspec.convert(value, field.type, strict=False)
        except msgspec.ValidationError as error:
            why = "must not be empty" if value is None else in_words(str(error), field)
            raise SettingsError(f"{path}: {why} ({origin})") from None
        table = self._model(origin) if field.table == "models[]" else self._section(field.table)
        table[field.name] = value
        self._origins[path] = origin
        if path in ("models[0].source", "models[0].engine"):
            self._forget_embedded(table)

    def _section(self, name: str) -> Tree:
        section: Tree = self._tree.setdefault(name, {})
        return section

    def _model(self, origin: str) -> Tree:
        """The one model that flags and environment speak of."""
        models: list[Tree] = self._tree.setdefault("models", [_as_written(EMBEDDED)])
        if len(models) != 1:
            raise SettingsError(f"models: {origin} is for one model, the file has {len(models)}")
        return models[0]

    def _forget_embedded(self, model: Tree) -> None:
        """Another file or engine has another checksum, format and name than the embedded model."""
        for key in ("source", "sha256", "format"):
            if f"models[0].{key}" not in self._origins:
                model.pop(key, None)
        if "models[0].name" not in self._origins:
            model["name"] = (
                Path(str(model["source"])).stem if "source" in model else model["engine"]
            )

    def _resolve_secrets(self) -> None:
        for field in fields():
            if field.secret:
                for path, table in tables(self._tree, field.table):
                    if field.name in table:
                        table[field.name] = self._secret(table[field.name], f"{path}.{field.name}")

    def _secret(self, value: Any, path: str) -> Any:
        if isinstance(value, list | tuple):
            return [self._secret(text, f"{path}[{i}]") for i, text in enumerate(value)]
        if value == "":
            raise SettingsError(f"{path}: must not be empty")
        if not isinstance(value, str) or not value.startswith("env:"):
            return value
        self._written[path] = value
        name = value.removeprefix("env:")
        if not self._environ.get(name):
            raise SettingsError(f"{path}: the environment has no {name}")
        return self._environ[name]

    def _convert(self) -> Settings:
        try:
            return msgspec.convert(self._tree, Settings)
        except msgspec.ValidationError as error:
            raise SettingsError(explain(str(error), self._origins)) from None


def _read(file: Path) -> Tree:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: is not TOML: {error}") from None


def _allow_single_texts(tree: Tree) -> None:
    """Where several texts may stand, a single one may."""
    for field in fields():
        if field.several:
            for _, table in tables(tree, field.table):
                if isinstance(table.get(field.name), str):
                    table[field.name] = [table[field.name]]


def _gather_hook_options(tree: Tree) -> None:
    """A hook's own keys stand beside ours in the file."""
    for _, hook in tables(tree, "hooks[]"):
        own = {key: hook.pop(key) for key in list(hook) if key not in _HOOK_KEYS}
        if own:
            hook["options"] = {**hook.get("options", {}), **own}


def _platform_folders(environ: Mapping[str, str], platform: str) -> Tree:
    """The default folders, as each system has them (XDG base directories; Apple's Library)."""
    if platform == "darwin":
        state, cache = "~/Library/Application Support", "~/Library/Caches"
    else:
        state = environ.get("XDG_STATE_HOME") or "~/.local/state"
        cache = environ.get("XDG_CACHE_HOME") or "~/.cache"
    return {"server": {"state_dir": f"{state}/headrace", "cache_dir": f"{cache}/headrace"}}


def _as_written(model: msgspec.Struct) -> Tree:
    """A model as the file would have it: only what differs from the defaults."""
    return {
        field.encode_name: getattr(model, field.name)
        for field in msgspec.structs.fields(model)
        if getattr(model, field.name) != field.default
    }
