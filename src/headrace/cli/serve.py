"""``headrace serve``."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli.errors import told
from headrace.cli.options import loaded, with_settings


@click.command(
    "serve",
    epilog="Every flag has a twin in the environment and in the file: headrace config --docs",
)
@with_settings
@click.pass_context
def command(ctx: click.Context, /, config: str | None, **flags: Any) -> None:
    """Serve models over HTTP; without settings the embedded one, on 127.0.0.1:8000."""
    with told():
        settings = loaded(config, flags).settings
        from headrace.app import serve

        ctx.exit(serve(settings))
