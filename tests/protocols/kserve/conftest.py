"""What the tests of KServe V2 share: models that are a line of numpy, and a server of them."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from headrace.admission.tensor_checking import Taken, check
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Caller
from headrace.domain.tensors import (
    NUMPY_TYPES,
    Datatype,
    Tensor,
    TensorCounts,
    TensorModel,
    TensorRequest,
    TensorResponse,
    TensorSpec,
)
from headrace.front.limits import Limits
from headrace.front.listen import FrontOptions, listen
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.grpc.open_inference import OpenInference
from headrace.protocols.grpc.services import Services
from headrace.protocols.kserve.endpoints import V2Endpoints
from headrace.shared_memory.regions import Regions

Compute = Callable[[dict[str, Any]], dict[str, Any]]


class Line:
    """A model: what it takes and gives, and the line that computes it."""

    def __init__(
        self, name: str, inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], line: Compute
    ) -> None:
        self.name = name
        self.inputs = tuple(inputs)
        self.outputs = tuple(outputs)
        self.line = line
        self.versions = ("1", "2")


def spec(name: str, datatype: Datatype, *shape: int) -> TensorSpec:
    return TensorSpec(name, datatype, shape)


def identity(datatype: Datatype) -> Line:
    """``identity_fp32`` and its like: any shape of two dimensions."""
    return Line(
        f"identity_{datatype.lower()}",
        [spec("in", datatype, -1, -1)],
        [spec("out", datatype, -1, -1)],
        lambda arrays: {"out": arrays["in"]},
    )


SIMPLE = Line(
    "simple",
    [spec("INPUT0", "INT32", -1, 16), spec("INPUT1", "INT32", -1, 16)],
    [spec("OUTPUT0", "INT32", -1, 16), spec("OUTPUT1", "INT32", -1, 16)],
    lambda arrays: {
        "OUTPUT0": arrays["INPUT0"] + arrays["INPUT1"],
        "OUTPUT1": arrays["INPUT0"] - arrays["INPUT1"],
    },
)


class Lines:
    """Implements ``Tensors``. ``taken``: the requests, with where each input's memory was. ``hold``: what a run waits
    for."""

    def __init__(self) -> None:
        every = [SIMPLE, *map(identity, NUMPY_TYPES)]
        self.lines = {line.name: line for line in every}
        self.states: dict[str, Any] = {}
        self.taken: list[TensorRequest] = []
        self.callers: list[Caller] = []
        self.addresses: list[int] = []
        self.hold: asyncio.Event | None = None
        self.began = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.refuse: HeadraceError | None = None

    def models(self) -> Sequence[TensorModel]:
        return [
            self.model(line.name, version)
            for line in self.lines.values()
            for version in line.versions
        ]

    def model(self, name: str, version: str = "") -> TensorModel:
        line = self.lines.get(name)
        version = version or "2"
        if line is None or version not in line.versions:
            raise HeadraceError(Code.MODEL_NOT_FOUND, f"There is no model {name}:{version}.")
        return TensorModel(
            name,
            version,
            line.versions,
            "onnxruntime_onnx",
            line.inputs,
            line.outputs,
            8 if line is SIMPLE else 0,
            self.states.get(name, "ready"),
            labels={"OUTPUT0": ("apple", "", "pickle")},
        )

    def counts(self, name: str, version: str = "") -> TensorCounts:
        self.model(name, version)
        return TensorCounts(3, 1, 0, 12, 2, 0.25, 0.5, 0.125, 1000.5, {4: [2, 0.5]})

    async def infer(self, request: TensorRequest, caller: Caller) -> TensorResponse:
        model = self.model(request.model, request.version)
        self.taken.append(request)
        self.callers.append(caller)
        self.addresses.append(request.inputs[0].array.__array_interface__["data"][0])
        check(request, Taken(tuple(model.inputs), tuple(model.outputs), 0))
        self.began.set()
        if self.refuse is not None:
            raise self.refuse
        if self.hold is not None:
            try:
                await self.hold.wait()
            except asyncio.CancelledError:
                self.cancelled.set()
                raise
        given = self.lines[request.model].line({one.name: one.array for one in request.inputs})
        specs = {spec.name: spec for spec in model.outputs}
        outputs = [
            _placed(specs[name], given[name], request.into.get(name))
            for name in request.outputs or list(given)
        ]
        return TensorResponse(request.model, model.version, outputs, request.id)

    async def load(self, name: str) -> None:
        self.model(name)
        self.states[name] = "ready"

    async def unload(self, name: str) -> None:
        self.model(name)
        self.states[name] = "unloaded"


def _placed(spec: TensorSpec, array: Any, room: Any) -> Tensor:
    """The output, in its room if there is one for it."""
    if room is not None and spec.datatype != "BYTES":
        if room.nbytes < array.nbytes:
            said = f"`outputs.{spec.name}` needs {array.nbytes} bytes."
            raise HeadraceError(Code.INVALID_REQUEST, said)
        placed = room[: array.nbytes].view(array.dtype).reshape(array.shape)
        np.copyto(placed, array)
        array = placed
    return Tensor(spec.name, spec.datatype, array.shape, array)


class Server:
    """The HTTP port, and one of gRPC. ``memory``: the regions of all tenants."""

    def __init__(self, service: Any, tensors: Any) -> None:
        self.memory = Regions()
        self._v2 = V2Endpoints(service, tensors, self.memory, "9", 64 << 20)
        over_grpc = OpenInference(service, tensors, self.memory, "9")
        self._services = Services(service, 64 << 20, None, [over_grpc])
        self._api = Api(
            service, ApiOptions(), more=(*self._services.wires.routes(), *self._v2.routes())
        )

    async def start(self) -> None:
        options = FrontOptions(
            port=0,
            refuse=self._api.refuse,
            opens=self._services.wires.opens,
            limits=Limits(body_bytes=64 << 20),
        )
        self._front = await listen(self._api.handle, options)
        self.address = f"127.0.0.1:{self._front.port}"
        self.url = f"http://{self.address}"

    async def close(self) -> None:
        self._services.close()
        await self._api.close()
        await self._front.close(0.0)
        self.memory.close()


@contextlib.asynccontextmanager
async def serving(service: Any, tensors: Any) -> AsyncIterator[Server]:
    server = Server(service, tensors)
    await server.start()
    try:
        yield server
    finally:
        await server.close()


class V2Kit:
    """The names above, for tests: a conftest cannot be imported."""

    Lines = Lines
    serving = staticmethod(serving)
    spec = staticmethod(spec)


@pytest.fixture(scope="session")
def v2() -> type[V2Kit]:
    return V2Kit
