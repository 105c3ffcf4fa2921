"""``headrace config``."""

from __future__ import annotations

from typing import Any

import click

from headrace.cli.errors import told
from headrace.cli.options import loaded, with_settings
from headrace.settings.printing import as_toml, docs


@click.command("config")
@click.option("--docs", "table", is_flag=True, help="Print every setting there is, as a table.")
@with_settings
def command(config: str | None, table: bool, **flags: Any) -> None:
    """Print the effective settings (TOML) and where each value came from. Secrets are not shown."""
    with told():
        click.echo(docs() if table else as_toml(loaded(config, flags)), nl=False)
