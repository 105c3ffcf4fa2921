"""``headrace chat``: a conversation in the terminal that survives a restart of the server."""

from __future__ import annotations

import signal
import sys
import time
from functools import partial

import click
from rich.console import Console

from headrace.cli.answer import Answer
from headrace.cli.connection import Server, first_model
from headrace.cli.errors import told
from headrace.cli.hints import Hints
from headrace.domain.errors import HeadraceError


@click.command("chat")
@click.option("--url", default="http://127.0.0.1:8000", envvar="HEADRACE_URL", show_default=True)
@click.option("--api-key", envvar="HEADRACE_API_KEY", help="The server's key, if it wants one.")
@click.option("--model", help="Default: the first that the server has.")
@click.option("--system", help="What the model is told first.")
def command(url: str, api_key: str | None, model: str | None, system: str | None) -> None:
    """Chat with a running server. What you type while it answers is a hint that it takes. Ctrl-C stops an
    answer, a second one (or Ctrl-D) leaves."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _leave)
    with told():
        server = Server(url, api_key)
        chat = Chat(server, model or first_model(server), system)
        chat.run()
    if chat.failed and not sys.stdin.isatty():
        sys.exit(1)


def _leave(number: int, _: object) -> None:
    """Stop as Ctrl-C does, so that no answer goes on for nobody, and end."""
    sys.exit(128 + number)


class Chat:
    """The conversation so far, and the terminal it happens in. Only answers are written where there is none.
    ``failed``: some answer did."""

    def __init__(self, server: Server, model: str, system: str | None) -> None:
        self._server = server
        self._model = model
        self._messages = [{"role": "system", "content": system}] if system else []
        self._said: list[str] = []
        self._late: list[str] = []
        self._console = Console(highlight=False)
        terminal = self._console.is_terminal
        self._notes = self._console if terminal else Console(highlight=False, stderr=True)
        self.failed = False

    def run(self) -> None:
        """Ask and answer until the user leaves, by Ctrl-D or by a Ctrl-C that stops no answer."""
        _edit_lines()
        self._note(f"{self._model} at {self._server.url}; Ctrl-D leaves")
        try:
            while True:
                question = self._question()
                if question.strip():
                    self._answer(question)
        except (EOFError, KeyboardInterrupt):
            self._console.print()

    def _question(self) -> str:
        """The next one: a hint that came too late for the answer before, or what is typed."""
        if self._late:
            self._console.print(f"> {self._late[0]}", markup=False)
            return self._late.pop(0)
        return self._console.input("[bold]> [/bold]" if sys.stdin.isatty() else "")

    def _answer(self, question: str) -> None:
        self._messages.append({"role": "user", "content": question})
        body = {"model": self._model, "messages": list(self._messages)}
        answer = Answer(self._server, body, self._lost, self._prompted)
        hints = Hints(partial(self._hint, answer))
        try:
            with hints:
                try:
                    self._show(answer)
                finally:
                    answer.over = True  # a hint that still waits for its beginning is too late
        except KeyboardInterrupt:
            answer.cancel()
            self._note("\ncancelled")
        except SystemExit:
            answer.cancel()
            raise
        except HeadraceError as error:
            self.failed = True
            self._note(f"\n{error.message}")
        self._late += hints.left
        self._close_turn()

    def _hint(self, answer: Answer, text: str) -> bool:
        try:
            return answer.prompt(text)
        except HeadraceError as error:
            self._note(f"\n{error.message}")
            return True

    def _prompted(self, role: str, content: str) -> None:
        """A message was added here: what was said so far is a message of its own."""
        if self._said:
            self._close_turn()
        self._messages.append({"role": role, "content": content})
        self._note(f"\n↳ {content}")

    def _close_turn(self) -> None:
        self._messages.append({"role": "assistant", "content": "".join(self._said)})
        self._said.clear()

    def _show(self, answer: Answer) -> None:
        """Print the pieces as they come."""
        begun = time.monotonic()
        first = 0.0
        for piece in answer.pieces():
            first = first or (time.monotonic() if piece else 0.0)
            self._said.append(piece)
            self._console.print(piece, end="", markup=False, soft_wrap=True)
        self._console.print()
        self._note(_speed(answer.tokens, begun, first))

    def _lost(self, why: str) -> None:
        if self._console.is_terminal:
            self._console.print(f"[dim]… {why}; reconnecting[/dim]", end="\r")

    def _note(self, text: str) -> None:
        self._notes.print(text, style="dim", markup=False)


def _speed(tokens: int, begun: float, first: float) -> str:
    spent = time.monotonic() - first
    if tokens < 2 or not first or spent <= 0:
        return f"{tokens} tokens"
    return (
        f"{tokens} tokens, {(tokens - 1) / spent:.1f} tokens/s, first after {first - begun:.2f} s"
    )


def _edit_lines() -> None:
    """Arrow keys and history in ``input``, where Python has readline."""
    if sys.stdin.isatty():
        try:
            import readline  # noqa: F401 - its import is its effect
        except ImportError:
            return
