"""The ``headrace`` command. A command's own module is imported only when it runs."""

from __future__ import annotations

import importlib

import click

from headrace import __version__

_COMMANDS = {
    "serve": "Serve models over HTTP.",
    "chat": "Chat with a running server in the terminal.",
    "batch": "Have a file of prompts answered, restartable.",
    "keys": "Create, list and revoke API keys.",
    "models": "Fetch, list, remove and rewrite model files.",
    "config": "Print the effective settings and where each value came from.",
}


class _Commands(click.Group):
    """Finds a command in the module of its name."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in _COMMANDS:
            return None
        module = importlib.import_module(f"headrace.cli.{cmd_name}")
        command: click.Command = module.command
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(_COMMANDS.items()))


@click.command(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(
    __version__, "--version", prog_name="headrace", message="%(prog)s %(version)s"
)
def main() -> None:
    """One server that carries requests to language models and never loses a stream."""
