"""A whole server with models that take tensors: listed, ready, counted, closed, and asked for nothing else."""

from __future__ import annotations

import asyncio
import hashlib
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from headrace.app import App
from headrace.cli.options import loaded
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Caller, Message, Request
from headrace.protocols.tensor_port import Tensors
from tests import onnx_models
from tests.tensor_house import ask, tensor
from tests.whole import settings_file

MODEL = """
[[models]]
name = "same"
aliases = ["alias"]
engine = "onnx"
source = "file:{folder}/same.onnx"
"""


def app(tmp_path: Path, more: str = "", digest: str = "") -> App:
    path = onnx_models.identity(tmp_path / "same.onnx", shape=("batch", 1))
    digest = digest or hashlib.sha256(path.read_bytes()).hexdigest()
    tables = f'{MODEL}sha256 = "{digest}"\n{more}'
    config = settings_file(tmp_path, tables, server=f'cache_dir = "{tmp_path}/cache"')
    return App(loaded(str(config), {}).settings)


def serve(app: App, work: Callable[[Any], Awaitable[None]]) -> list[tuple[str, str]]:
    """Do this with the tensor service, once its model is loaded or has failed; returns the news."""
    told: list[tuple[str, str]] = []
    app.topics.subscribe("model", lambda news: told.append((news["replica"], news["state"])))

    async def main() -> None:
        async with asyncio.timeout(20):
            running = asyncio.create_task(app.run())
            try:
                assert app.tensors is not None
                while app.tensors.model("same").state in ("unloaded", "loading"):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)  # a load that failed tells nobody
                await work(app.tensors)
            finally:
                app.stopping.set()
                await running

    asyncio.run(main())
    return told


def test_a_server_of_tensors_alone_is_ready_answers_and_is_scraped(tmp_path: Path) -> None:
    built = app(tmp_path)
    assert built.service.readiness()[0] is False

    async def work(tensors: Tensors) -> None:
        assert built.service.readiness() == (True, "")
        card = built.service.model("alias")
        assert (card.name, card.type, card.ready) == ("same", "tensors", True)
        assert [each.name for each in built.service.models()] == ["same"]
        answer = await tensors.infer(ask("alias", tensor("x", [[1.5]])), Caller())
        assert answer.outputs[0].array.tolist() == [[1.5]]
        scraped = built.exposition.render("text/plain")[1].decode()
        of = 'model_name="same",model_version="1"'
        assert f'headrace_tensor_requests_total{{end="answered",{of}}} 1.0' in scraped
        assert f"headrace_tensor_runs_total{{{of}}} 1.0" in scraped
        size = float((tmp_path / "same.onnx").stat().st_size)
        assert f"headrace_tensor_loaded_bytes{{{of}}} {size}" in scraped

    assert serve(built, work) == [("same:1", "loaded"), ("same:1", "unloaded")]


def test_it_rests_while_nothing_is_asked_of_any_model(tmp_path: Path) -> None:
    """Then, and only then, the collector may look through all that lives."""
    built: Any = app(tmp_path)

    async def work(tensors: Tensors) -> None:
        assert built.resting
        asking = asyncio.create_task(
            tensors.infer(ask("same", tensor("x", [[1.5]])), Caller()),
        )
        await asyncio.sleep(0)
        assert not built.resting
        await asking
        assert built.resting
        for name in ("embedding", "service"):
            usual = getattr(built, name)
            setattr(built, name, SimpleNamespace(busy=True))
            assert not built.resting
            setattr(built, name, usual)

    serve(built, work)


def test_it_generates_no_text_and_says_so(tmp_path: Path) -> None:
    service = app(tmp_path).service
    request = Request("same", "chat", (Message("user", "hello"),))
    for refused in (
        lambda: service.submit(request, Caller(), "openai", {}),
        lambda: service.take_request("alias", "default", ""),
    ):
        with pytest.raises(HeadraceError, match="takes tensors") as caught:
            refused()
        assert (caught.value.code, caught.value.param) == (Code.UNSUPPORTED, "model")
    with pytest.raises(HeadraceError) as caught:
        service.model("other")
    assert caught.value.code == Code.MODEL_NOT_FOUND


def test_another_file_than_was_pinned_is_not_served(tmp_path: Path) -> None:
    built = app(tmp_path, digest="0" * 64)

    async def work(tensors: Tensors) -> None:
        assert tensors.model("same").state == "failed"
        ready, reason = built.service.readiness()
        assert not ready
        assert "is not the file that was pinned" in reason

    assert serve(built, work) == []


def test_limits_of_a_model_hold(tmp_path: Path) -> None:
    built = app(tmp_path, "[models.limits]\nrequests_per_minute = 1\n")

    async def work(tensors: Tensors) -> None:
        await tensors.infer(ask("same", tensor("x", [[1]])), Caller())
        with pytest.raises(HeadraceError) as caught:
            await tensors.infer(ask("same", tensor("x", [[1]])), Caller())
        assert caught.value.code == Code.RATE_LIMITED

    serve(built, work)


def test_a_server_without_such_models_imports_none_of_it() -> None:
    asked = (
        "import sys, headrace.app; print([m for m in ('numpy', 'onnxruntime') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True)
    assert told.stdout.strip() == "[]"


def test_without_the_extra_the_start_says_what_to_install(tmp_path: Path) -> None:
    app(tmp_path)
    code = f"""
import sys
sys.modules["onnxruntime"] = None
from headrace.cli.main import main
main(["serve", "--config", {str(tmp_path / "headrace.toml")!r}])
"""
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30)
    assert told.returncode == 1
    assert "pip install 'headrace[onnx]'" in told.stderr
    assert "Traceback" not in told.stderr


def test_an_administrator_sees_loads_and_unloads_it(tmp_path: Path) -> None:
    built = app(tmp_path, '[[models]]\nname = "talks"\nengine = "scripted"\n')

    async def work(tensors: Tensors) -> None:
        assert built.front is not None
        async with httpx.AsyncClient(base_url=f"http://{built.front.address}") as client:
            listed = (await client.get("/admin/models")).json()["data"]
            assert [(one["name"], one["type"], one["state"]) for one in listed] == [
                ("talks", "scripted", "ready"),
                ("same", "tensors", "ready"),
            ]
            assert listed[1]["size_bytes"] == (tmp_path / "same.onnx").stat().st_size
            unloaded = await client.post("/admin/models/unload", json={"model": "alias"})
            assert unloaded.json()["data"][1]["state"] == "unloaded"
            assert tensors.model("same").state == "unloaded"
            loaded = await client.post("/admin/models/load", json={"model": "same"})
            assert loaded.json()["data"][1]["state"] == "ready"
            refused = await client.post("/admin/models/unload", json={"model": "talks"})
            assert refused.status_code == 400
            assert "served as long as the server runs" in refused.text
            unknown = await client.post("/admin/models/load", json={"model": "nobody"})
            assert unknown.status_code == 404

    news = [news for news in serve(built, work) if news[0] == "same:1"]
    assert news == [("same:1", "loaded"), ("same:1", "unloaded")] * 2
