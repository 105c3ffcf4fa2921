"""Whatever tensors come, in JSON, bytes or messages: a request, or an error that says what is wrong with them."""

from __future__ import annotations

import json
from typing import Any

from google.protobuf.message import DecodeError
from hypothesis import given
from hypothesis import strategies as st
from tests.fuzzing import examples

from headrace.domain.errors import HeadraceError
from headrace.domain.tensors import NUMPY_TYPES
from headrace.protocols.grpc import open_inference_pb2 as pb
from headrace.protocols.grpc.open_inference_messages import infer_asked
from headrace.protocols.grpc.open_inference_raw import read_request
from headrace.protocols.kserve.asked import Asked
from headrace.protocols.kserve.request import decode_infer
from headrace.shared_memory.regions import Regions

WHOLE = st.sampled_from([0, 1, 2, 3, -1, 255, 2**31, 2**63, 2**64, 10**30])
SCALARS = (
    st.none()
    | st.booleans()
    | WHOLE
    | st.floats(allow_nan=False)
    | st.sampled_from(["", "x", "FP32", "r", "é"])
)
ANY = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=8,
)
DATATYPES = st.sampled_from([*NUMPY_TYPES, "FP8", ""])
SHAPES = st.lists(st.sampled_from([0, 1, 2, 3]) | WHOLE, max_size=4)
PARAMETERS = st.dictionaries(
    st.sampled_from(
        [
            *("binary_data", "binary_data_size", "shared_memory_region", "shared_memory_offset"),
            *("shared_memory_byte_size", "classification", "priority", "timeout", "x"),
            *("binary_data_output", "sequence_id"),
        ]
    ),
    SCALARS,
    max_size=3,
)
DATA = (
    st.lists(st.booleans(), max_size=4)
    | st.lists(WHOLE, max_size=4)
    | st.lists(st.lists(WHOLE | st.floats(allow_nan=False), max_size=3), max_size=3)
    | st.lists(st.text(max_size=3), max_size=4)
    | ANY
)


def fields(**kinds: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """An object that may lack any of them, or have another kind in its place."""
    return st.fixed_dictionaries({}, optional=kinds)


TENSORS = st.fixed_dictionaries(
    {"name": st.sampled_from(["in", "b", ""]), "datatype": DATATYPES, "shape": SHAPES},
    optional={"parameters": PARAMETERS, "data": DATA},
)
BODIES = fields(
    inputs=st.lists(TENSORS, min_size=1, max_size=3) | ANY,
    outputs=st.lists(fields(name=st.just("out"), parameters=PARAMETERS), max_size=2) | ANY,
    parameters=PARAMETERS | ANY,
    id=st.text(max_size=3),
)


def decided(body: bytes, size: int | None) -> Asked | int:
    """The request, or the status of its refusal."""
    try:
        return decode_infer(body, size, "m", "", Regions(), "t")
    except HeadraceError as error:
        return error.meaning.http


@examples(400)
@given(BODIES, st.binary(max_size=40), st.booleans())
def test_any_body(said: dict[str, Any], rest: bytes, behind: bool) -> None:
    head = json.dumps(said).encode()
    found = decided(head + rest, len(head)) if behind else decided(head, None)
    assert isinstance(found, Asked) or found in (400, 404, 413)


@examples(200)
@given(DATATYPES, SHAPES, st.binary(max_size=40))
def test_any_bytes_of_a_tensor(datatype: str, shape: list[int], data: bytes) -> None:
    tensor = {"name": "in", "datatype": datatype, "shape": shape}
    tensor["parameters"] = {"binary_data_size": len(data)}
    head = json.dumps({"inputs": [tensor]}).encode()
    found = decided(head + data, len(head))
    if isinstance(found, Asked):
        array = found.request.inputs[0].array
        assert list(array.shape) == shape
        assert datatype == "BYTES" or array.nbytes == len(data)


CONTENTS = st.fixed_dictionaries(
    {},
    optional={
        "bool_contents": st.lists(st.booleans(), max_size=3),
        "int_contents": st.lists(st.sampled_from([0, 1, -1, 300, 2**31 - 1]), max_size=3),
        "fp32_contents": st.lists(st.floats(width=32), max_size=3),
        "bytes_contents": st.lists(st.binary(max_size=3), max_size=3),
    },
)
MESSAGES = st.fixed_dictionaries(
    {
        "inputs": st.lists(
            st.fixed_dictionaries(
                {
                    "name": st.just("in"),
                    "datatype": DATATYPES,
                    "shape": st.lists(st.sampled_from([0, 1, 2, -1, 2**62]), max_size=3),
                },
                optional={"contents": CONTENTS},
            ),
            max_size=2,
        ),
        "raw_input_contents": st.lists(st.binary(max_size=16), max_size=2),
    }
)


@examples(300)
@given(MESSAGES, st.integers(0, 400), st.binary(max_size=3))
def test_any_message(said: dict[str, Any], at: int, damage: bytes) -> None:
    data = bytearray(pb.ModelInferRequest(model_name="m", **said).SerializeToString())
    data[at : at + len(damage)] = damage
    try:
        infer_asked(read_request(bytes(data)), Regions(), "t")
    except (HeadraceError, DecodeError):
        pass
