"""From settings to models that take tensors: what is configured is what they are given."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest

from headrace.admission.tenants import Tenants
from headrace.domain.errors import HeadraceError
from headrace.engines.onnx_options import OnnxOptions
from headrace.scheduling.batcher import BatchQueue
from headrace.settings import Settings, load
from headrace.standings import Standings
from headrace.tensor_building import build, onnx_options
from headrace.tensors import Served
from tests import onnx_models

Run = Callable[[Any], Any]

CONFIG = """
[server]
cache_dir = "{folder}/cache"
[[models]]
name = "m"
engine = "onnx"
fallback = "other"
[[models.versions]]
version = "old"
source = "file:{folder}/m.onnx"
[[models.versions]]
version = "new"
source = "file:{folder}/m.onnx"
[models.onnx]
providers = ["cuda", "cpu"]
missing_provider = "fallback"
provider_options = {{ cuda = {{ device_id = 1 }} }}
graph_optimization = "basic"
intra_threads = 3
inter_threads = 2
cuda_graph = true
tensorrt_cache = "/cache"
tensorrt_fp16 = true
share_weights = true
forbid_nan = true
load = "first_use"
unload_idle_s = 9
labels = {{ y = "{folder}/labels.txt" }}
[models.batching]
max_batch_size = 8
max_wait_ms = 2
preferred_batch_sizes = [4, 8]
instances = 2
[[models]]
name = "other"
engine = "onnx"
source = "file:{folder}/m.onnx"
"""


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "labels.txt").write_text("apple\n\npickle\n")
    file = tmp_path / "h.toml"
    file.write_text(CONFIG.format(folder=tmp_path))
    return load(file, environ={}).settings


def built(settings: Settings, queue: BatchQueue) -> Served:
    stand = Standings(Tenants().of).of
    news = take = lambda *_: None
    return build(settings, queue, news, stand, take, bool)._models["m"]


def test_every_setting_reaches_the_engine_or_the_batcher(settings: Settings) -> None:
    model = settings.models[0]
    assert onnx_options("m:new", model) == OnnxOptions(
        name="m:new",
        providers=("cuda", "cpu"),
        missing_provider="fallback",
        graph_optimization="basic",
        intra_threads=3,
        inter_threads=2,
        cuda_graph=True,
        tensorrt_cache="/cache",
        tensorrt_fp16=True,
        share_weights=True,
        provider_options={"cuda": {"device_id": 1}},
    )
    queue = BatchQueue()
    served = built(settings, queue)
    assert (served.load, served.fallback) == ("first_use", "other")
    assert [one.plan.version for one in served.versions] == ["old", "new"]
    plan = served.newest.plan
    assert (plan.max_batch_size, plan.max_wait_ms, plan.preferred) == (8, 2.0, (4, 8))
    assert (plan.instances, plan.forbid_nan, plan.idle_s) == (2, True, 9.0)
    assert plan.labels == {"y": ("apple", "", "pickle")}
    assert plan.queue is queue


def test_the_thread_that_helps_with_copies_ends_with_the_service(
    run: Run, settings: Settings
) -> None:
    async def main() -> None:
        service = build(
            settings,
            BatchQueue(),
            *(lambda *_: None,) * 3,
            bool,  # type: ignore[arg-type, misc]
        )
        closed = service._closed
        assert closed is not None
        copier = closed.__self__  # type: ignore[attr-defined]
        copier._start()
        await service.close(1)
        await asyncio.to_thread(copier._thread.join, 10)
        assert not copier._thread.is_alive()

    run(main())


def test_a_model_is_as_large_as_all_its_files(run: Run, settings: Settings, tmp_path: Path) -> None:
    whole = onnx_models.large(tmp_path / "whole.onnx", 10_000)
    external: Any = {"save_as_external_data": True, "location": "w.data", "size_threshold": 0}
    onnx.save(onnx.load(whole), tmp_path / "m.onnx", **external)
    plan = built(settings, BatchQueue()).newest.plan
    file = run(plan.fetch())
    sizes = [(tmp_path / name).stat().st_size for name in ("m.onnx", "w.data")]
    assert file.size_bytes == sum(sizes) > 40_000


def test_labels_that_cannot_be_read_stop_the_start(settings: Settings, tmp_path: Path) -> None:
    (tmp_path / "labels.txt").unlink()
    with pytest.raises(HeadraceError, match=r"models\.onnx\.labels\.y .*labels\.txt: "):
        built(settings, BatchQueue())


def test_a_file_that_is_not_there_is_one_line(run: Run, settings: Settings) -> None:
    plan = built(settings, BatchQueue()).newest.plan
    with pytest.raises(HeadraceError, match=r"there is no model file .*m\.onnx"):
        run(plan.fetch())
