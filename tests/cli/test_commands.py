"""The command as a user types it: output, exit status, and one line for a mistake."""

from __future__ import annotations

import os
import signal
import socket
import socketserver
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from headrace import __version__

HEADRACE = [sys.executable, "-m", "headrace"]


def headrace(*words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*HEADRACE, *words], capture_output=True, text=True, timeout=50, **more)


def mistake(*words: str, status: int) -> str:
    """What a wrong command line says: exactly one line."""
    said = headrace(*words)
    assert said.returncode == status
    assert said.stdout == ""
    assert said.stderr.count("\n") == 1, said.stderr
    return said.stderr.removeprefix("Error: ").strip()


def test_the_version_is_the_packages() -> None:
    assert headrace("--version").stdout == f"headrace {__version__}\n"


def test_help_lists_the_commands_and_the_common_flags() -> None:
    commands = headrace("--help").stdout
    assert all(f"  {name}" in commands for name in ("serve", "chat", "models", "config"))
    flags = headrace("serve", "--help").stdout
    assert "--port" in flags
    assert "--api-key" in flags
    assert "--max-connections" not in flags


def test_config_prints_values_with_origins(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text("[server]\nport = 1\n")
    environ = {**os.environ, "HEADRACE_STORE_KEEP_S": "5"}
    said = headrace("config", "--config", str(file), "--host", "::1", env=environ)
    assert f"port = 1  # {file}\n" in said.stdout
    assert 'host = "::1"  # --host\n' in said.stdout
    assert "keep_s = 5.0  # HEADRACE_STORE_KEEP_S\n" in said.stdout


@pytest.mark.parametrize("words", [("serve",), ("config",), ("models", "list")])
def test_a_mistake_in_the_settings_is_one_line_with_status_2(words: tuple[str, ...]) -> None:
    assert mistake(*words, "--model-slots", "0", status=2) == (
        "models[0].slots: must be an integer ≥ 1 (--model-slots)"
    )


def test_an_unknown_source_is_one_line(tmp_path: Path) -> None:
    line = mistake("models", "pull", "ftp://x", "--cache-dir", str(tmp_path), status=1)
    assert line.startswith("ftp://x: a model source is file:PATH")


def test_a_taken_port_is_one_line(tmp_path: Path) -> None:
    config = tmp_path / "h.toml"
    config.write_text('[[models]]\nname = "m"\nengine = "scripted"\n[store]\nurl = "memory:"\n')
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        words = ["serve", "--config", str(config), "--port", port, "--state-dir", str(tmp_path)]
        line = mistake(*words, status=1)
    assert line.startswith(f"127.0.0.1:{port} is taken")
    assert "--port" in line


SCRIPTED = '[[models]]\nname = "m"\nengine = "scripted"\n[store]\nurl = "memory:"\n'


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["--uds", "{folder}/none/x.sock"], "cannot listen on {folder}/none/x.sock: No such file"),
        (["--ssl-certfile", "{folder}/junk.pem"], "cannot use {folder}/junk.pem for TLS: "),
        (["--host", "no-such-host.invalid", "--allow-open"], "no-such-host.invalid is not an add"),
        (["--config", "{folder}/hook.toml"], "hooks[0].class: cannot import 'nowhere'"),
    ],
)
def test_what_cannot_be_served_is_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    (tmp_path / "junk.pem").write_text("junk")
    (tmp_path / "h.toml").write_text(SCRIPTED)
    hook = '[[hooks]]\nclass = "nowhere:Hook"\n'
    (tmp_path / "hook.toml").write_text(SCRIPTED + hook)
    told = [word.format(folder=tmp_path) for word in words]
    rest = ["--config", str(tmp_path / "h.toml")] if "--config" not in told else []
    said = mistake("serve", "--state-dir", str(tmp_path), "--port", "0", *rest, *told, status=1)
    assert said.startswith(line.format(folder=tmp_path))


def test_a_hook_in_the_working_folder_is_found(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "class Mine:\n    def __init__(self): raise ValueError('here')\n"
    )
    (tmp_path / "h.toml").write_text(SCRIPTED + '[[hooks]]\nclass = "mine:Mine"\n')
    headrace_command = [str(Path(sys.executable).with_name("headrace")), "serve"]
    words = ["--config", "h.toml", "--state-dir", str(tmp_path), "--port", "0"]
    said = subprocess.run(
        [*headrace_command, *words], cwd=tmp_path, capture_output=True, text=True, timeout=50
    )
    assert said.stderr == "Error: hooks[0]: mine:Mine cannot be made: here\n"


def test_models_are_pulled_listed_and_removed(tmp_path: Path) -> None:
    model = tmp_path / "m.gguf"
    write_empty_gguf(model)
    cache = ("--cache-dir", str(tmp_path / "cache"))
    assert headrace("models", "pull", f"file:{model}", *cache).stdout == f"{model}\n"
    listed = headrace("models", "list", *cache).stdout
    assert f"file:{model}" in listed
    assert headrace("models", "rm", f"file:{model}", *cache).returncode == 0
    assert model.is_file()
    assert "no model was fetched yet" in headrace("models", "list", *cache).stdout
    assert mistake("models", "rm", f"file:{model}", *cache, status=1) == (
        f"file:{model} is not in the model cache"
    )


def write_empty_gguf(path: Path) -> None:
    import gguf

    writer = gguf.GGUFWriter(path, "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def test_chat_answers_each_line_and_remembers_the_conversation(server: Any) -> None:
    server.tell("Good", " day")
    server.breaks = [100]
    words = ["chat", "--url", server.url, "--system", "Be kind."]
    said = headrace(*words, input="hello\nand you?\n")
    assert said.returncode == 0, said.stderr
    assert said.stdout.split() == ["Good", "day", "Good", "day"]
    assert said.stderr.count("2 tokens") == 2
    bodies = [body for method, path, _, body in server.requests if method == "POST"]
    assert [message["content"] for message in bodies[-1]["messages"]] == [
        *("Be kind.", "hello", "Good day", "and you?"),
    ]
    assert bodies[-1]["model"] == "tiny"


def begun_chat(server: Any) -> subprocess.Popen[str]:
    """A chat in the middle of its first answer."""
    server.tell("Good")
    server.hang = True
    chat = subprocess.Popen(
        [*HEADRACE, "chat", "--url", server.url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # Whoever runs the tests in the background has them ignore it, and so their children.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )
    assert chat.stdin
    assert chat.stdout
    chat.stdin.write("hello\n")
    chat.stdin.flush()
    assert server.waiting.wait(30)
    said = ""
    while not said.endswith("Good"):
        said += chat.stdout.read(1)
    return chat


def test_ctrl_c_cancels_the_answer_and_the_next_one_leaves(server: Any) -> None:
    with begun_chat(server) as chat:
        chat.send_signal(signal.SIGINT)
        assert server.cancelled.wait(30)
        assert chat.stderr
        noted = ""
        while not noted.endswith("cancelled\n"):
            noted += chat.stderr.read(1)
        chat.send_signal(signal.SIGINT)
        assert chat.wait(30) == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_chat_that_is_ended_cancels_its_answer(server: Any, number: int) -> None:
    with begun_chat(server) as chat:
        chat.send_signal(number)
        assert server.cancelled.wait(30)
        assert chat.wait(30) == 128 + number


def test_a_chat_in_a_pipe_that_fails_says_so_in_its_status(server: Any) -> None:
    server.refusals = [(404, "No such model.")]
    said = headrace("chat", "--url", server.url, input="hello\n")
    assert said.returncode == 1
    assert not said.stdout.strip()
    assert "No such model." in said.stderr


BATCH = ["batch", "in.csv", "-o", "out.jsonl"]


def answering(data: bytes) -> socketserver.ThreadingTCPServer:
    """Somebody who says this to whoever comes, and closes."""

    class Says(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.rfile.readline()
            self.wfile.write(data)

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Says)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server


@pytest.mark.parametrize("data", [b"", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n{"])
def test_a_connection_that_breaks_is_one_line(tmp_path: Path, data: bytes) -> None:
    with answering(data) as server:
        url = f"http://127.0.0.1:{server.server_address[1]}"
        said = headrace("chat", "--url", url, cwd=tmp_path)
        server.shutdown()
    assert said.returncode == 1
    assert said.stderr.splitlines()[-1].startswith(f"Error: the connection to {url} broke (")


@pytest.mark.parametrize("words", [["chat"], BATCH, [*BATCH, "--model", "m"]])
def test_no_server_is_one_line(tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "in.csv").write_text("prompt\nhello\n")
    said = headrace(*words, "--url", "http://127.0.0.1:1", cwd=tmp_path)
    assert said.returncode == 1
    assert "Traceback" not in said.stderr
    line = said.stderr.splitlines()[-1]
    assert line.startswith("Error: no server answers at http://127.0.0.1:1 (")
    assert line.endswith("; start one: headrace serve")
