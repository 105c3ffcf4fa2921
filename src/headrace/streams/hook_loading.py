"""Making hooks from the settings' ``[[hooks]]``."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple

from headrace.streams.hook import Hook

OnError = Literal["fail", "skip"]


class LoadedHook(NamedTuple):
    """A hook with its name (for messages) and what to do when it fails."""

    hook: Hook
    name: str
    on_error: OnError = "fail"


def load_hooks(specs: Sequence[Mapping[str, Any]]) -> list[LoadedHook]:
    """Make the hooks of ``[[hooks]]``: ``class`` is ``module:Class``, ``on_error`` the policy, all other
    keys are the class's keyword arguments. Raises ``ValueError`` naming ``hooks[i]`` and what is wrong."""
    return [_load(f"hooks[{index}]", dict(spec)) for index, spec in enumerate(specs)]


def _load(path: str, options: dict[str, Any]) -> LoadedHook:
    name = options.pop("class", None)
    on_error = options.pop("on_error", "fail")
    if not isinstance(name, str) or ":" not in name:
        raise ValueError(f"{path}.class: must be 'module:Class', not {name!r}")
    if on_error not in ("fail", "skip"):
        raise ValueError(f"{path}.on_error: must be 'fail' or 'skip', not {on_error!r}")
    module_name, _, class_name = name.partition(":")
    try:
        hook_class = getattr(importlib.import_module(module_name), class_name)
    except ImportError as error:
        raise ValueError(f"{path}.class: cannot import {module_name!r}: {error}") from error
    except AttributeError:
        raise ValueError(f"{path}.class: module {module_name!r} has no {class_name!r}") from None
    try:
        hook = hook_class(**options)
    except (TypeError, ValueError, OSError) as error:
        raise ValueError(f"{path}: {name} cannot be made: {error}") from error
    return LoadedHook(hook, name, on_error)
