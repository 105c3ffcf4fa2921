"""The terminal chat in front of a real server that is killed with ``kill -9`` in mid-answer."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
from pathlib import Path

HEADRACE = [sys.executable, "-m", "headrace"]
TOKENS = [f"{number} " for number in range(1, 61)]


def configured(folder: Path) -> Path:
    """A scripted model that counts, and a store of its own."""
    script = folder / "script.json"
    script.write_text(json.dumps({"scripts": [{"tokens": TOKENS, "delay_ms": 30}]}))
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    config = folder / "headrace.toml"
    config.write_text(
        f'[server]\nport = {port}\nstate_dir = "{folder}"\n'
        f'[[models]]\nname = "m"\nengine = "scripted"\nscript = "{script}"\n'
    )
    return config


def serving(config: Path) -> tuple[subprocess.Popen[str], str]:
    """A server that listens, and its URL."""
    command = [*HEADRACE, "serve", "--config", str(config)]
    server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert server.stderr
    for line in server.stderr:
        if " listens on " in line:
            return server, line.split()[-1]
    raise AssertionError("the server ended")


def test_every_token_once_although_the_server_was_killed(tmp_path: Path) -> None:
    config = configured(tmp_path)
    server, url = serving(config)
    command = [*HEADRACE, "chat", "--url", url]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
    ) as chat:
        assert chat.stdin
        assert chat.stdout
        chat.stdin.write("count\n")
        chat.stdin.close()
        said = ""
        while "1 2 3 4 5 " not in said:
            said += chat.stdout.read(1)
        with server:
            server.send_signal(signal.SIGKILL)
        server, _ = serving(config)
        with server:
            said += chat.stdout.read()
            server.send_signal(signal.SIGTERM)
    assert said.split() == "".join(TOKENS).split()
    assert chat.returncode == 0


class Terminal:
    """Both ends of one: what a person types and sees."""

    def __init__(self) -> None:
        self.person, self.inside = os.openpty()
        self.said = ""

    def until(self, wanted: str, times: int = 1) -> None:
        """Until it has shown that so often. Raises ``TimeoutError``."""
        while self.said.count(wanted) < times:
            if not select.select([self.person], [], [], 30.0)[0]:
                raise TimeoutError(self.said)
            self.said += os.read(self.person, 4096).decode(errors="replace")

    def type(self, keys: str) -> None:
        os.write(self.person, keys.encode())


def left(terminal: Terminal, chat: subprocess.Popen[bytes]) -> int:
    """The exit status after Ctrl-D, again if it came between two modes of the terminal and was lost."""
    for _ in range(60):
        terminal.type("\x04")
        try:
            return chat.wait(0.5)
        except subprocess.TimeoutExpired:
            continue
    raise TimeoutError(terminal.said)


def test_what_is_typed_while_it_answers_is_a_hint_and_later_a_question(tmp_path: Path) -> None:
    server, url = serving(configured(tmp_path))
    terminal = Terminal()
    inside = terminal.inside
    chat = subprocess.Popen(
        [*HEADRACE, "chat", "--url", url], stdin=inside, stdout=inside, stderr=inside
    )
    try:
        terminal.until("> ")
        terminal.type("count\n")
        terminal.until(" 3 ")
        terminal.type("faster\n")
        terminal.until("60 tokens")
        terminal.until("> ", 2)
        assert left(terminal, chat) == 0
    finally:
        chat.kill()
        chat.wait()
        os.close(inside)
        os.close(terminal.person)
        with server:
            server.kill()
    before, _, after = terminal.said.partition("\u21b3 faster")
    assert " 3 " in before
    assert "60 " in after
