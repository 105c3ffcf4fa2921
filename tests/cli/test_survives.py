"""The terminal chat in front of a real server that is killed with ``kill -9`` in mid-answer."""

from __future__ import annotations

import json
import os
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


def read_until(terminal: int, wanted: str, said: str = "") -> str:
    """What a terminal shows, until it shows that."""
    while wanted not in said:
        said += os.read(terminal, 4096).decode(errors="replace")
    return said


def test_what_is_typed_while_it_answers_is_a_hint_and_later_a_question(tmp_path: Path) -> None:
    server, url = serving(configured(tmp_path))
    terminal, inside = os.openpty()
    command = [*HEADRACE, "chat", "--url", url]
    with server, subprocess.Popen(command, stdin=inside, stdout=inside, stderr=inside) as chat:
        os.close(inside)
        read_until(terminal, "> ")
        os.write(terminal, b"count\n")
        said = read_until(terminal, " 3 ")
        os.write(terminal, b"faster\n")
        said = read_until(terminal, "60 tokens", said)
        before, _, after = said.partition("\u21b3 faster")
        assert " 3 " in before
        assert "60 " in after
        read_until(terminal, "> ", after)
        os.write(terminal, b"\x04")
        assert chat.wait(30) == 0
        os.close(terminal)
        server.send_signal(signal.SIGTERM)
