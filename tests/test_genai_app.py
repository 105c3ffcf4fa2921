"""A whole server with a text model as ONNX: streamed, gone on with after its process was killed, seen by operators."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.app import App
from headrace.cli.options import loaded
from headrace.domain.errors import HeadraceError
from headrace.settings import SettingsError
from tests import genai_models
from tests.genai_models import letters_of, said_after, tokens_of
from tests.whole import serving, settings_file

MODEL = """
[[models]]
name = "letters"
engine = "genai"
source = "file:{folder}/model/genai_config.json"
slots = 2
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    genai_models.model(tmp_path / "model")
    return settings_file(tmp_path, MODEL, server=f'cache_dir = "{tmp_path}/cache"')


def serve(config: Path, work: Callable[[httpx.AsyncClient, App], Awaitable[None]]) -> None:
    """Do this once its model is loaded."""
    app = App(loaded(str(config), {}).settings)

    async def main() -> None:
        async with asyncio.timeout(30), serving(app):
            assert app.front is not None
            base = f"http://{app.front.address}"
            async with httpx.AsyncClient(base_url=base, timeout=20) as client:
                await work(client, app)

    asyncio.run(main())


def asked(**more: Any) -> dict[str, Any]:
    return {"model": "letters", "prompt": "hey", "max_tokens": 40, "stream": True, **more}


def text_of(line: str) -> str:
    data = line.removeprefix("data: ")
    if not line.startswith("data: ") or data == "[DONE]":
        return ""
    return "".join(choice["text"] for choice in json.loads(data)["choices"])


def test_a_stream_has_every_token_though_its_engine_was_killed_twice(config: Path) -> None:
    async def work(client: httpx.AsyncClient, app: App) -> None:
        killed: set[int] = set()
        text = ""
        async with client.stream("POST", "/v1/completions", json=asked(max_tokens=400)) as answer:
            async for line in answer.aiter_lines():
                text += text_of(line)
                if len(text) > 20 + 100 * len(killed) and len(killed) < 2:
                    for pid in children() - killed:  # none while the next one starts
                        os.kill(pid, signal.SIGKILL)
                        killed.add(pid)
        assert text == letters_of(said_after(tokens_of("hey"), 400))
        assert len(killed) == 2

    serve(config, work)


def children() -> set[int]:
    """Engine processes of this one."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        for pid in map(int, (task / "children").read_text().split()):
            if b"genai_child" in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.add(pid)
    return found


def test_chat_models_and_metrics_have_it_as_any_other_model(config: Path) -> None:
    async def work(client: httpx.AsyncClient, app: App) -> None:
        body = {"model": "letters", "messages": [{"role": "user", "content": "hey"}]}
        answer = (await client.post("/v1/chat/completions", json=body | {"max_tokens": 5})).json()
        choice = answer["choices"][0]
        assert (len(choice["message"]["content"]), choice["finish_reason"]) == (5, "length")
        assert answer["usage"]["completion_tokens"] == 5
        listed = (await client.get("/admin/models")).json()["data"]
        assert [(one["name"], one["type"], one["state"]) for one in listed] == [
            ("letters", "genai", "ready")
        ]
        scraped = app.exposition.render("text/plain")[1].decode()
        assert 'model_name="letters"' in scraped
        refused = await client.post("/v1/chat/completions", json=body | {"logprobs": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "logprobs")
        tokens = (await client.post("/tokenize", json={"model": "letters", "prompt": "hey"})).json()
        assert tokens["tokens"] == tokens_of("hey")

    serve(config, work)


def test_who_leaves_frees_the_slot(config: Path) -> None:
    async def work(client: httpx.AsyncClient, app: App) -> None:
        for _ in range(4):  # of two slots
            async with client.stream(
                "POST", "/v1/completions", json=asked(max_tokens=500)
            ) as answer:
                async for line in answer.aiter_lines():
                    if text_of(line):
                        break
        answer = await client.post("/v1/completions", json=asked(stream=False, max_tokens=3))
        assert answer.json()["choices"][0]["text"] == letters_of(said_after(tokens_of("hey"), 3))

    serve(config, work)


def test_a_server_does_not_import_it(config: Path) -> None:
    code = f"""
import sys
from headrace.app import App
from headrace.cli.options import loaded
App(loaded({str(config)!r}, {{}}).settings)
print([name for name in ("numpy", "onnxruntime", "onnxruntime_genai") if name in sys.modules])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_without_the_extra_the_start_says_what_to_install(config: Path) -> None:
    code = f"""
import sys
sys.modules["onnxruntime_genai"] = None
from headrace.cli.main import main
main(["serve", "--config", {str(config)!r}])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.returncode == 1
    assert "pip install 'headrace[genai]'" in told.stderr
    assert "Traceback" not in told.stderr


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('engine = "genai"', 'engine = "genai"\nversions = []', ""),
        ("/genai_config.json", "/model.onnx", "genai_config.json"),
        ("file:", "hf:org/repo/", "genai_config.json"),
        ("slots = 2", 'slots = "auto"', "slots"),
        ("slots = 2", "[models.embedding]\nenabled = true", "embedding"),
    ],
)
def test_settings_that_cannot_be_are_named(config: Path, old: str, new: str, words: str) -> None:
    config.write_text(config.read_text().replace(old, new))
    if not words:
        loaded(str(config), {})
        return
    with pytest.raises((SettingsError, HeadraceError), match=words):
        loaded(str(config), {})
