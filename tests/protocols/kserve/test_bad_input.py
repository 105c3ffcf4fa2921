"""Tensors that are wrong: each is told what is wrong with it, by the name of its field, and nothing is run."""

from __future__ import annotations

import gzip
import json
import zlib
from typing import Any

import httpx
import pytest

LENGTH = "inference-header-content-length"


def tensor(**fields: Any) -> dict[str, Any]:
    return {"name": "in", "datatype": "FP32", "shape": [1, 2], "data": [1, 2]} | fields


def raw(size: int, **fields: Any) -> dict[str, Any]:
    made = tensor(**fields) | {"parameters": {"binary_data_size": size}}
    return {name: value for name, value in made.items() if name != "data"}


def of(*inputs: Any, **fields: Any) -> dict[str, Any]:
    return {"inputs": list(inputs)} | fields


HUGE = [2**31] * 3
CLASSES_IN_REGION = {
    "classification": 3,
    "shared_memory_region": "r",
    "shared_memory_byte_size": 8,
}
JSON: list[tuple[str, Any, str]] = [
    ("no inputs", {}, "`inputs` is required"),
    ("an empty list of inputs", of(), "`inputs` is not valid"),
    ("an unknown field", of(tensor(), output=[]), "`output` is not known"),
    ("an unknown field of a tensor", of(tensor(dtype="FP32")), "`inputs[0].dtype` is not known"),
    ("a type that is none", of(tensor(datatype="FP8")), "`inputs[0].datatype` must be one of"),
    ("a negative dimension", of(tensor(shape=[1, -1])), "`inputs[0].shape` has a dimension below"),
    ("too many dimensions", of(tensor(shape=[1] * 33)), "`inputs[0].shape` has more than 32"),
    ("a shape beyond all memory", of(tensor(shape=HUGE)), "`inputs[0].shape` is of more elements"),
    ("an empty shape beyond all memory", of(tensor(shape=[0, 2**62], data=[])), "more elements"),
    ("a dimension that is no number", of(tensor(shape=["x"])), "`inputs[0].shape[0]` is not valid"),
    ("too few elements", of(tensor(data=[1])), "`inputs[0].data` has 1 elements; the shape [1, 2]"),
    ("too many elements", of(tensor(data=[1, 2, 3])), "`inputs[0].data` has 3 elements"),
    ("another nesting", of(tensor(data=[[1], [2]])), "`inputs[0].data` is nested as [2, 1]"),
    ("ragged arrays", of(tensor(shape=[2, 2], data=[[1, 2], [3]])), "arrays of different lengths"),
    ("a text for a number", of(tensor(data=["1", 2])), "`inputs[0].data` is no FP32"),
    ("a number out of range", of(tensor(datatype="INT8", data=[1, 128])), "is none of INT8"),
    ("a fraction", of(tensor(datatype="INT8", data=[1, 1.5])), "`inputs[0].data` is no INT8"),
    ("a number too large", of(tensor(data=[1, 1e300])), "is none of FP32"),
    ("a number for a truth", of(tensor(datatype="BOOL", data=[1, 0])), "is no BOOL"),
    ("no data", of({"name": "in", "datatype": "FP32", "shape": [1]}), "must have its data in one"),
    ("data twice", of(tensor(parameters={"binary_data_size": 4})), "must have its data in one"),
    ("a name twice", of(tensor(), tensor()), "`inputs` has 'in' twice"),
    (
        "an output twice",
        of(tensor(), outputs=[{"name": "out"}, {"name": "out"}]),
        "`outputs` has 'out' twice",
    ),
    (
        "a parameter of another type",
        of(tensor(), parameters={"binary_data_output": 1}),
        "`parameters.binary_data_output` is not valid: expected `bool | null`, got `int`",
    ),
    ("a negative priority", of(tensor(), parameters={"priority": -1}), "`parameters.priority`"),
    (
        "a timeout as text",
        of(tensor(), parameters={"timeout": "5"}),
        "`parameters.timeout` is not valid: expected `int | null`, got `str`",
    ),
    ("a sequence", of(tensor(), parameters={"sequence_id": 7}), "`parameters.sequence_id` is for"),
    (
        "classes in shared memory",
        of(tensor(), outputs=[{"name": "out", "parameters": CLASSES_IN_REGION}]),
        "`outputs[0].parameters.classification` and shared memory exclude each other",
    ),
    (
        "fewer classes than none",
        of(tensor(), outputs=[{"name": "out", "parameters": {"classification": -1}}]),
        "`outputs[0].parameters.classification` is not valid",
    ),
    (
        "a region without a size",
        of(raw(4) | {"parameters": {"shared_memory_region": "r"}}),
        "`inputs[0].parameters.shared_memory_byte_size` is required",
    ),
    (
        "an offset without a region",
        of(tensor(parameters={"shared_memory_offset": 4})),
        "`inputs[0].parameters.shared_memory_region` is required",
    ),
]
BYTES: list[tuple[str, Any, bytes, str]] = [
    (
        "a truncated body",
        of(raw(8)),
        bytes(7),
        "`inputs[0].parameters.binary_data_size` is 8, and 7 bytes are left of the body",
    ),
    ("a size that is negative", of(raw(-1)), bytes(8), "binary_data_size` is -1"),
    ("more bytes than inputs", of(raw(8)), bytes(9), "has 1 bytes behind its JSON that belong to"),
    (
        "bytes that the shape has not",
        of(raw(4)),
        bytes(4),
        "`inputs[0]` has 4 bytes; FP32 of the shape [1, 2] needs 8",
    ),
    ("a truth that is 2", of(raw(2, datatype="BOOL")), b"\x01\x02", "neither 0 nor 1"),
    (
        "a string that is cut off",
        of(raw(6, datatype="BYTES", shape=[1])),
        b"\x03\x00\x00\x00ab",
        "`inputs[0]` ends within its element 0 of 1",
    ),
    (
        "a length that is cut off",
        of(raw(7, datatype="BYTES", shape=[2])),
        b"\x01\x00\x00\x00a\x00\x00",
        "`inputs[0]` ends within its element 1 of 2",
    ),
    (
        "bytes behind the strings",
        of(raw(5, datatype="BYTES", shape=[0])),
        bytes(5),
        "`inputs[0]` has 5 bytes behind its last of 0 elements",
    ),
]


def check(kit: Any, v2: Any, said: str, asked: dict[str, Any], status: int = 400) -> None:
    async def main() -> None:
        tensors = v2.Lines()
        service = kit.Service(kit.hello)
        async with (
            v2.serving(service, tensors) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            answer = await client.post("/v2/models/identity_fp32/infer", **asked)
        assert answer.status_code == status, answer.text
        assert list(answer.json()) == ["error"]
        assert said in answer.json()["error"]
        assert not tensors.taken

    kit.run(main())


@pytest.mark.parametrize(("body", "said"), [case[1:] for case in JSON], ids=[c[0] for c in JSON])
def test_a_mistake_in_json(kit: Any, v2: Any, body: Any, said: str) -> None:
    check(kit, v2, said, {"json": body})


@pytest.mark.parametrize(
    ("body", "data", "said"), [case[1:] for case in BYTES], ids=[case[0] for case in BYTES]
)
def test_a_mistake_in_bytes(kit: Any, v2: Any, body: Any, data: bytes, said: str) -> None:
    head = json.dumps(body).encode()
    check(kit, v2, said, {"content": head + data, "headers": {LENGTH: str(len(head))}})


@pytest.mark.parametrize(
    ("content", "size", "said"),
    [
        (b"{", None, "The body is not JSON"),
        (b"", None, "The body is not JSON"),
        (b"{}", "3", "`Inference-Header-Content-Length` is 3, and the body has only 2 bytes"),
        (b"{}", "-1", "`Inference-Header-Content-Length` must be a whole number"),
        (b"{}", "two", "`Inference-Header-Content-Length` must be a whole number"),
        (b'{"inputs": []}', "5", "The body is not JSON"),
        (b"\xff\xfe", None, "The body is not"),
    ],
)
def test_a_body_that_is_none(kit: Any, v2: Any, content: bytes, size: Any, said: str) -> None:
    headers = {} if size is None else {LENGTH: size}
    check(kit, v2, said, {"content": content, "headers": headers})


@pytest.mark.parametrize(
    ("coding", "content", "status", "said"),
    [
        ("br", b"x", 415, "must not be compressed"),
        ("gzip", b"no gzip", 400, "The body is not gzip."),
        ("gzip", gzip.compress(b"{}")[:-1], 400, "The body is not one gzip, whole and alone."),
        ("deflate", zlib.compress(b"{}") + b"x", 400, "is not one gzip, whole and alone."),
        ("gzip", gzip.compress(bytes(65 << 20)), 413, "longer than"),
    ],
)
def test_a_body_that_is_compressed(
    kit: Any, v2: Any, coding: str, content: bytes, status: int, said: str
) -> None:
    check(kit, v2, said, {"content": content, "headers": {"content-encoding": coding}}, status)
