"""A whole service of tensor models without sockets: real engines, or one that waits to be told."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from headrace.admission.tenants import Tenants
from headrace.domain.errors import HeadraceError
from headrace.domain.request import Caller
from headrace.domain.tensors import NUMPY_TYPES, Tensor, TensorRequest, TensorResponse, TensorSpec
from headrace.engines.copying import Copier
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_options import OnnxOptions
from headrace.engines.quiet_collector import QuietCollector
from headrace.engines.tensor_engine import Arrays, TensorEngine
from headrace.models.wanted import ModelFile
from headrace.standings import Standings
from headrace.tensor_version import Plan, TensorVersion
from headrace.tensors import Served, TensorService


def file_of(path: Path) -> ModelFile:
    return ModelFile(str(path), f"file:{path}", "keep", "", path.stat().st_size, {})


def open_onnx(file: ModelFile) -> TensorEngine:
    return OnnxEngine(file.path, OnnxOptions("test"), QuietCollector(), Copier())


class Gate:
    """An engine whose every run waits until it is let through; ``y`` is ``x``."""

    platform = "gate"
    inputs = outputs = (TensorSpec("x", "FP32", (-1, 1)),)
    batch_dimension: Any = "named"
    steady = True

    def __init__(self) -> None:
        self.begun = threading.Semaphore(0)
        self.through = threading.Semaphore(0)
        self.rows: list[int] = []
        self.closed = False

    def run(self, inputs: Arrays, outputs: Sequence[str], into: Arrays) -> Arrays:
        self.rows.append(len(inputs["x"]))
        self.begun.release()
        assert self.through.acquire(timeout=10)
        return dict.fromkeys(outputs, inputs["x"])

    def close(self) -> None:
        self.closed = True


class TensorHouse:
    """Versions by ``model:version``, in the order in which they are added."""

    def __init__(self, budget_bytes: int | None = None, **options: Any) -> None:
        self.news: list[tuple[str, str]] = []
        self.fetched: list[str] = []
        self._budget = budget_bytes
        self._options = options
        self._plans: dict[str, list[Plan]] = {}
        self._load: dict[str, Any] = {}
        self._fallback: dict[str, str | None] = {}
        self.tenants = Tenants()

    def add(
        self,
        name: str,
        path: Path,
        open: Callable[[ModelFile], TensorEngine] = open_onnx,
        *,
        load: str = "first_use",
        fallback: str | None = None,
        **options: Any,
    ) -> TensorHouse:
        """A version; the last one of a model is its newest."""
        model, _, version = name.partition(":")

        async def fetch() -> ModelFile:
            self.fetched.append(name)
            return file_of(path)

        plan = Plan(model, version or "1", fetch, open, **options)
        self._plans.setdefault(model, []).append(plan)
        self._load[model] = load
        self._fallback[model] = fallback
        return self

    def build(self) -> TensorService:
        def hear(version: TensorVersion, state: str) -> None:
            self.news.append((version.plan.name, state))

        served = [
            Served(
                model,
                (),
                0,
                self._load[model],
                tuple(map(TensorVersion, plans)),
                self._fallback[model],
            )
            for model, plans in self._plans.items()
        ]
        stand = Standings(self.tenants.of).of
        return TensorService(
            served, budget_bytes=self._budget, news=hear, stand=stand, **self._options
        )


def tensor(name: str, values: Any, datatype: Any = "FP32") -> Tensor:
    array = np.array(values, NUMPY_TYPES[datatype])
    return Tensor(name, datatype, array.shape, array)


def ask(model: str, *inputs: Tensor, **more: Any) -> TensorRequest:
    return TensorRequest(model, inputs, **more)


async def infer(service: TensorService, request: TensorRequest) -> TensorResponse:
    return await service.infer(request, Caller())


async def refusal(service: TensorService, request: TensorRequest) -> HeadraceError:
    try:
        await infer(service, request)
    except HeadraceError as error:
        return error
    raise AssertionError("it was answered")
