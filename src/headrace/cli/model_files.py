"""Which file a source is, or a model of the settings, for commands that are given either."""

from __future__ import annotations

import asyncio

from headrace.domain.errors import Code, HeadraceError
from headrace.models.bar import Bar
from headrace.models.pull import pull
from headrace.models.wanted import ModelFile, Wanted
from headrace.settings import Settings


def configured(settings: Settings) -> list[tuple[str, Wanted]]:
    """Names and files of all models and versions that have one."""
    sources = [
        (model.name, Wanted(model.source, model.sha256, model.format))
        for model in settings.models
        if model.source
    ]
    versions = [
        (f"{model.name}:{one.version}", Wanted(one.source, one.sha256))
        for model in settings.models
        for one in model.versions
    ]
    return sources + versions


def fetched(settings: Settings, name: str, wanted: Wanted) -> ModelFile:
    """With a bar of this name, while it comes."""
    with Bar(name) as bar:
        return asyncio.run(pull(settings.cache_path, wanted, bar))


def found(settings: Settings, source: str) -> ModelFile:
    """The file of a source, or of a configured model. Raises ``INVALID_REQUEST`` for one with versions of which none
    is named."""
    known = dict(configured(settings))
    versions = [name for name in known if name.startswith(f"{source}:")]
    if source not in known and versions:
        text = f"{source} has versions; name one of {', '.join(versions)}"
        raise HeadraceError(Code.INVALID_REQUEST, text)
    return fetched(settings, source, known.get(source) or Wanted(source))
