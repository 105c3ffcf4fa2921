"""``headrace serve``."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

import click

from headrace.cli.announce import announcement
from headrace.cli.errors import told
from headrace.cli.options import loaded, with_settings

if TYPE_CHECKING:
    from headrace.app import App
    from headrace.settings import Settings


@click.command(
    "serve",
    epilog="Every flag has a twin in the environment and in the file: headrace config --docs",
)
@with_settings
@click.pass_context
def command(ctx: click.Context, /, config: str | None, **flags: Any) -> None:
    """Serve models over HTTP; without settings the embedded one, on 127.0.0.1:8000."""
    with told():
        sys.path.append(os.getcwd())  # where a hook of the user's own usually is

        def read() -> Settings:
            return loaded(config, flags).settings

        settings = read()
        from headrace.app import serve

        ctx.exit(serve(settings, _announce, read))


def _announce(app: App) -> None:
    if app.front is not None:
        grpc = app.grpc.address if app.grpc is not None else None
        keyed = not app.registry.keys.open
        click.echo(announcement(app.settings, app.front.address, grpc, keyed=keyed), err=True)
