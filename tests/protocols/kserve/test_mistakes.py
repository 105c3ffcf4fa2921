"""The table of wrong tensors in `docs/MISTAKES.md`, row by row, over HTTP and gRPC."""

from __future__ import annotations

import json
import math
import os
import secrets
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import httpx
import pytest
from tests import onnx_models
from tests.tensor_house import TensorHouse

from headrace.protocols.grpc import open_inference_pb2 as pb

DOCUMENT = Path(__file__).parents[3] / "docs" / "MISTAKES.md"
COLUMNS = ("HTTP", "gRPC")
SIZE = 4096
Json = dict[str, Any]


class Mistake(NamedTuple):
    """An inference: its model, its only input as JSON has it, its bytes, and what it asks for. ``raw``: whether
    the bytes are sent. ``key``: of who asks; ``alpha`` has registered the region ``r``. ``onnx``: the model is a real
    one: ``identity`` takes FP32 of [batch, 4], and no NaN."""

    tensor: Json
    data: bytes = bytes(8)
    model: str = "identity_fp32"
    version: str = ""
    parameters: Json | None = None
    output: Json | None = None
    key: str = "alpha"
    raw: bool = True
    onnx: bool = False


def tensor(**fields: Any) -> Json:
    return {"name": "in", "datatype": "FP32", "shape": [1, 2]} | fields


def place(offset: int, size: int, region: str = "r") -> Json:
    return {
        "parameters": {
            "shared_memory_region": region,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": size,
        }
    }


def shared(offset: int, size: int, region: str = "r", **fields: Any) -> Mistake:
    return Mistake(tensor() | place(offset, size, region), raw=False, **fields)


def real(shape: list[int], data: bytes | None = None, **fields: Any) -> Mistake:
    output = fields.pop("output", None)
    said = {"name": "x", "datatype": "FP32", "shape": shape} | fields
    return Mistake(said, data or bytes(4 * math.prod(shape)), "identity", output=output, onnx=True)


ROWS: dict[str, Mistake] = {
    "an input of another shape than the model's": real([1, 3]),
    "an input of another rank": real([4]),
    "an input of another type": real([1, 4], datatype="INT32"),
    "an input that the model has not": real([1, 4], name="z"),
    "an output that the model has not": real([1, 4], output={"name": "z"}),
    "a batch that is larger than the model's largest": real([33, 4]),
    "a batch of nothing": real([0, 4], b""),
    "NaN where the model forbids it": real([1, 4], struct.pack("<4f", 1, math.nan, 2, 3)),
    "a tensor whose bytes are cut off": Mistake(tensor(), bytes(7)),
    "more bytes than the shape has": Mistake(tensor(), bytes(12)),
    "a shape with a dimension below 0": Mistake(tensor(shape=[1, -2])),
    "a type that is none": Mistake(tensor(datatype="FP8")),
    "a truth that is neither 0 nor 1": Mistake(
        tensor(datatype="BOOL"), b"\x02\x00", "identity_bool"
    ),
    "a string that is cut off": Mistake(
        tensor(datatype="BYTES", shape=[1]), b"\x05\0\0\0hi", "identity_bytes"
    ),
    "more than 256 Ki strings in a tensor": Mistake(
        tensor(datatype="BYTES", shape=[262_145]), bytes(4 * 262_145), "identity_bytes"
    ),
    "a tensor model that is not there": Mistake(tensor(), model="none"),
    "a version that is not there": Mistake(tensor(), version="9"),
    "a priority that is no number": Mistake(tensor(), parameters={"priority": "high"}),
    "a sequence": Mistake(tensor(), parameters={"sequence_id": 7}),
    "the classes of texts": Mistake(
        tensor(datatype="BYTES", shape=[1, 1]),
        b"\x01\0\0\0a",
        "identity_bytes",
        output={"parameters": {"classification": 3}},
    ),
    "a place outside of its region": shared(8, SIZE),
    "a place of another size than the tensor": shared(0, 12),
    "an output that is larger than its place": shared(0, 8, output=place(8, 4)),
    "a region that is not registered": shared(0, 8, "never"),
    "a region of somebody else": shared(0, 8, key="beta"),
}


def documented() -> dict[str, dict[str, str]]:
    """The table, by row and column."""
    text = DOCUMENT.read_text(encoding="utf-8").partition("\n## Tensors\n")[2]
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip().strip("`") for cell in line.strip("|").split("|")] for line in lines]
    assert tuple(cells[0][1:]) == COLUMNS
    return {row[0]: dict(zip(COLUMNS, row[1:], strict=True)) for row in cells[2:]}


@pytest.fixture
def region() -> Iterator[str]:
    """The key of memory that is alpha's."""
    path = Path("/dev/shm") / f"alpha.{os.getpid()}-{secrets.token_hex(4)}"
    path.write_bytes(bytes(SIZE))
    yield path.name
    path.unlink()


async def over_http(url: str, mistake: Mistake, headers: Json) -> str:
    said: Json = {"inputs": [dict(mistake.tensor)]}
    if mistake.parameters:
        said["parameters"] = mistake.parameters
    if mistake.output:
        said["outputs"] = [{"name": "out"} | mistake.output]
    data = mistake.data if mistake.raw else b""
    if mistake.raw:
        said["inputs"][0]["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps(said).encode()
    version = f"/versions/{mistake.version}" if mistake.version else ""
    length = {"inference-header-content-length": str(len(head))}
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        path = f"/v2/models/{mistake.model}{version}/infer"
        answer = await client.post(path, content=head + data, headers=headers | length)
    assert list(answer.json()) == ["error"]
    return str(answer.status_code)


async def over_grpc(address: str, mistake: Mistake, headers: Json) -> str:
    fields: Json = {"inputs": [_grpc(mistake.tensor)]}
    if mistake.parameters:
        fields |= _grpc({"parameters": mistake.parameters})
    if mistake.output:
        fields["outputs"] = [_grpc({"name": "out"} | mistake.output)]
    if mistake.raw:
        fields["raw_input_contents"] = [mistake.data]
    asked = pb.ModelInferRequest(model_name=mistake.model, model_version=mistake.version, **fields)
    async with grpc.aio.insecure_channel(address) as channel:
        infer: Any = channel.unary_unary(
            "/inference.GRPCInferenceService/ModelInfer",
            request_serializer=lambda message: message.SerializeToString(),
        )
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await infer(asked, metadata=list(headers.items()))
    code = dict(raised.value.trailing_metadata() or ())["headrace-code"]
    return f"{raised.value.code().name} {code!s}"


def _grpc(said: Json) -> Json:
    """Parameters as gRPC has them."""
    kinds: dict[type, Callable[[Any], Json]] = {
        int: lambda value: {"int64_param": value},
        str: lambda value: {"string_param": value},
    }
    parameters = said.get("parameters", {})
    typed = {name: kinds[type(value)](value) for name, value in parameters.items()}
    return said | ({"parameters": typed} if typed else {})


@pytest.mark.parametrize("title", ROWS)
def test_a_mistake_has_the_status_that_the_table_says(
    kit: Any, v2: Any, title: str, region: str, tmp_path: Path
) -> None:
    mistake = ROWS[title]
    tensors = v2.Lines()
    if mistake.onnx:
        path = onnx_models.identity(tmp_path / "identity.onnx")
        tensors = TensorHouse().add("identity", path, forbid_nan=True).build()

    async def main() -> None:
        keys = {"alpha": "alpha", "beta": "beta"}
        async with v2.serving(kit.Service(kit.hello, keys=keys), tensors) as server:
            server.memory.register("alpha", "r", region, 0, SIZE, alone=False, leased=False)
            headers = {"authorization": f"Bearer {mistake.key}"}
            said = {
                "HTTP": await over_http(server.url, mistake, headers),
                "gRPC": await over_grpc(server.address, mistake, headers),
            }
        assert said == documented()[title]

    kit.run(main())


def test_the_table_has_these_rows() -> None:
    assert list(documented()) == list(ROWS)
