"""Strategies: messages of ``headrace.v1`` as clients send them, as none would, and as bytes that were damaged."""

from __future__ import annotations

from typing import Any

from google.protobuf.descriptor import Descriptor, FieldDescriptor
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from hypothesis import strategies as st

from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.grpc.inference import SERVICE

METHODS = {method.name: method for method in SERVICE.methods}
PATH = f"/{SERVICE.full_name}/"
HANGS = "hang"
"""In a prompt: the engine says a little and then nothing more."""
UNKNOWN_ID = "gen_01M8AMS68SQD6SFHQQYRP72VXZ"
ENDED, RUNNING = "gen_000000000000000000000ENDED", "gen_0000000000000000000RUNNING"
"""Whoever sends it puts the id of a generation of his own there, which is as long."""
_IDS = (UNKNOWN_ID, ENDED, RUNNING)
_KNOWN = ("", "m", "alias", HANGS, "Hi", "user", "system", "assistant", "tool", "t", *_IDS)
_OPTIONS = (
    "n",
    "top_k",
    "stop",
    "tools",
    "model",
    "logprobs",
    "echo",
    "response_format",
    "x" * 300,
)
_DEPTH = 3

TEXTS = st.sampled_from(_KNOWN) | st.text(max_size=20)
_NUMBERS = st.sampled_from([0.0, 1.0, 2.5, 1e300, float("nan"), float("inf"), -1.0]) | st.floats()
VALUES = st.recursive(
    st.builds(Value)
    | st.builds(Value, number_value=_NUMBERS)
    | st.builds(Value, string_value=TEXTS)
    | st.builds(Value, bool_value=st.booleans()),
    lambda inner: (
        st.builds(
            lambda values: Value(list_value=ListValue(values=values)), st.lists(inner, max_size=3)
        )
        | st.builds(
            lambda fields: Value(struct_value=Struct(fields=fields)),
            st.dictionaries(st.sampled_from(_OPTIONS) | TEXTS, inner, max_size=3),
        )
    ),
    max_leaves=6,
)
STRUCTS = st.builds(
    lambda fields: Struct(fields=fields),
    st.dictionaries(st.sampled_from(_OPTIONS) | TEXTS, VALUES, max_size=3),
)
_SCALARS: dict[int, st.SearchStrategy[Any]] = {
    FieldDescriptor.CPPTYPE_STRING: TEXTS,
    FieldDescriptor.CPPTYPE_DOUBLE: _NUMBERS,
    FieldDescriptor.CPPTYPE_UINT32: st.integers(0, 2**32 - 1) | st.integers(0, 9),
    FieldDescriptor.CPPTYPE_INT64: st.integers(-(2**63), 2**63 - 1),
}


def any_message(kind: Descriptor, depth: int = _DEPTH) -> st.SearchStrategy[Message]:
    """Any fields with any values, those of a ``oneof`` among them."""
    made = GetMessageClass(kind)
    if kind.full_name == "google.protobuf.Struct":
        return STRUCTS
    fields = {
        field.name: _any_field(field, depth)
        for field in kind.fields
        if depth or field.message_type is None
    }
    return st.fixed_dictionaries({}, optional=fields).map(lambda values: made(**values))


def _any_field(field: FieldDescriptor, depth: int) -> st.SearchStrategy[Any]:
    one = (
        _SCALARS[field.cpp_type]
        if field.message_type is None
        else st.deferred(lambda: any_message(field.message_type, depth - 1))
    )
    return st.lists(one, max_size=2) if field.is_repeated else one


_PLAIN = st.sampled_from(["Hi", HANGS, f"{HANGS} on", "a word"])
GOOD_INFER = st.fixed_dictionaries(
    {"prompt": _PLAIN},
    optional={"max_tokens": st.integers(1, 9), "model": st.sampled_from(["m", "alias"])},
).map(lambda fields: pb.InferRequest(**fields)) | st.lists(
    st.builds(pb.Message, role=st.sampled_from(["system", "user"]), content=_PLAIN),
    min_size=1,
    max_size=3,
).map(lambda messages: pb.InferRequest(messages=messages))
_RESUME = st.builds(pb.Resume, generation_id=st.sampled_from(_IDS), after=st.integers(0, 9))
_PROMPT = st.builds(pb.Prompt, role=st.sampled_from(["user", "system", "tool"]), content=TEXTS)
GOOD: dict[str, st.SearchStrategy[Message]] = {
    "Infer": GOOD_INFER,
    "BatchInfer": st.lists(GOOD_INFER | any_message(pb.InferRequest.DESCRIPTOR), max_size=3).map(
        lambda requests: pb.BatchInferRequest(requests=requests)
    ),
    "StreamInfer": st.builds(pb.StreamInferRequest, infer=GOOD_INFER)
    | st.builds(pb.StreamInferRequest, resume=_RESUME),
    "Converse": st.builds(pb.ConverseRequest, infer=GOOD_INFER)
    | st.builds(pb.ConverseRequest, prompt=_PROMPT)
    | st.builds(pb.ConverseRequest, resume=_RESUME)
    | st.just(pb.ConverseRequest(abort=pb.Stop())),
    "GetModelInfo": st.builds(pb.GetModelInfoRequest, model=TEXTS),
    "Abort": st.builds(pb.AbortRequest, token=TEXTS),
}


def message(method: str) -> st.SearchStrategy[Message]:
    """One for this method: often good, sometimes anything of its type."""
    return GOOD[method] | any_message(METHODS[method].input_type)


_INSERTED = st.binary(max_size=6) | st.sampled_from(
    [b"\\ud800", b"NaN", b"1e999", b"null", b'{"a":', b"[" * 300, b'"', b"\x0b", b"\xff" * 11]
)


@st.composite
def damaged(draw: st.DrawFn, data: bytes) -> bytes:
    """The bytes after nothing or a few accidents."""
    for _ in range(draw(st.sampled_from([0, 0, 1, 1, 2, 4]))):
        at, to = sorted((draw(st.integers(0, len(data))), draw(st.integers(0, len(data)))))
        match draw(st.sampled_from(["cut", "lose", "repeat", "insert", "change"])):
            case "cut":
                data = data[:to]
            case "lose":
                data = data[:at] + data[to:]
            case "repeat":
                data = data[:to] + data[at:]
            case "insert":
                data = data[:at] + draw(_INSERTED) + data[at:]
            case _:
                data = data[:at] + draw(st.binary(min_size=1, max_size=1)) + data[at + 1 :]
    return data


def message_bytes(method: str) -> st.SearchStrategy[bytes]:
    """A message of this method on the wire, whole, damaged, or only bytes."""
    whole = message(method).map(lambda made: made.SerializeToString())
    return st.one_of(whole, whole.flatmap(damaged), st.binary(max_size=60))


_METADATA: dict[bytes, st.SearchStrategy[bytes]] = {
    b"x-on-disconnect": st.sampled_from([b"cancel", b"continue", b"grace=1", b"grace=x", b""]),
    b"x-abort-token": st.sampled_from([b"t", b"", b"\xff", b"x" * 300]),
    b"x-session-id": st.sampled_from([b"s", b" ", b"\xc3\xa9", "日".encode()]),
    b"x-request-id": st.binary(max_size=9),
    b"x-stream-events": st.sampled_from([b"token", b"prompt,progress", b"nothing", b","]),
    b"x-continue-mode": st.sampled_from([b"fast", b"exact", b"slow"]),
    b"idempotency-key": st.sampled_from([b"k", b"\x7f"]),
    b"authorization": st.sampled_from([b"Bearer k", b"Basic k", b"bearer", b"\xff"]),
    b"x-api-key": st.binary(max_size=9),
    b"traceparent": st.sampled_from(
        [b"00-" + b"1" * 32 + b"-" + b"2" * 16 + b"-01", b"00-0", b"-"]
    ),
    b"tracestate": st.sampled_from([b"a=1,b=2", b"=,", b"\xff"]),
    b"baggage": st.sampled_from([b"a=1;b", b"%ff=%", b"\xff"]),
}
METADATA = st.lists(
    st.sampled_from(list(_METADATA)).flatmap(
        lambda name: st.tuples(st.just(name), _METADATA[name])
    ),
    max_size=2,
).map(tuple)
