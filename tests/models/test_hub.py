"""``hf:`` through the hub's own library, against a hub of our own."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import HeadraceError
from headrace.models.pull import pull
from headrace.models.wanted import Wanted

Run = Callable[[Any], Any]


@pytest.fixture
def hub(tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A hub with one file: ``org/repo/deep/tiny.gguf``."""
    data = tiny_gguf.read_bytes()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            if self.path == "/org/repo/resolve/main/deep/tiny.gguf":
                self.send_response(200)
                self.send_header("x-repo-commit", "0" * 40)
                self.send_header("etag", '"1"')
                self.send_header("content-length", str(len(data)))
            else:
                self.send_response(404)
                self.send_header("x-error-code", "EntryNotFound")
                self.send_header("content-length", "0")
            self.end_headers()

        def do_GET(self) -> None:
            self.do_HEAD()
            if self.path.endswith("tiny.gguf"):
                self.wfile.write(data)

        def log_message(self, format: str, *args: object) -> None:
            del format, args

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_address[1]}")
    monkeypatch.setenv("HF_HUB_DISABLE_XET", "1")
    yield str(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_file_of_the_hub_arrives(run: Run, tmp_path: Path, tiny_gguf: Path, hub: str) -> None:
    file = run(pull(tmp_path / "cache", Wanted("hf:org/repo/deep/tiny.gguf"), lambda step: None))
    assert Path(file.path).read_bytes() == tiny_gguf.read_bytes()
    assert Path(file.path).name == "tiny.gguf"


def test_a_file_that_the_hub_does_not_have_is_one_line(run: Run, tmp_path: Path, hub: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        run(pull(tmp_path, Wanted("hf:org/repo/none.gguf"), lambda step: None))
    assert caught.value.message == (
        "cannot fetch none.gguf of org/repo: the repository has no such file"
    )


def test_a_hub_out_of_reach_is_one_line(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    with pytest.raises(HeadraceError) as caught:
        run(pull(tmp_path, Wanted("hf:org/repo/x.gguf"), lambda step: None))
    assert caught.value.message.startswith(
        "cannot fetch x.gguf of org/repo from http://127.0.0.1:1: "
    )
    assert "\n" not in caught.value.message


def test_without_the_extra_the_line_says_how_to_get_it() -> None:
    code = (
        "import sys; sys.modules['huggingface_hub'] = None\n"
        "from pathlib import Path\n"
        "from headrace.models.hub import HubSource\n"
        "try: HubSource('a/b', 'c').fetch(Path(), print)\n"
        "except Exception as error: print(error.message)\n"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == (
        "models of the Hugging Face hub need its library: pip install 'headrace[hf]'"
    )
