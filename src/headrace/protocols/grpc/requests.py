"""``InferRequest`` into a :class:`Request`: by the decoders of the OpenAI bodies, so that both are checked alike."""

from __future__ import annotations

from math import isfinite
from typing import Any

import msgspec
from google.protobuf.struct_pb2 import Struct, Value

from headrace.domain.errors import Code
from headrace.domain.request import Request
from headrace.protocols.body import refuse
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.openai_request import chat_of, completion_of

MAX_OPTIONS_BYTES = 256 * 1024
"""Of the options of one request: what is in them is looked at value by value."""
_WHOLE = 2.0**53
"""Below it a float that is a whole number is that number."""
_OWN = ("model", "prompt", "messages", "max_tokens", "temperature", "top_p", "stop", "seed")
"""Fields of the message itself, which may not be among its options."""
_NOT_HERE = frozenset((*_OWN, "stream", "stream_options", "user", "session_id"))


def infer_request(asked: pb.InferRequest, default_model: str, *, stream: bool) -> Request:
    """Raises ``INVALID_REQUEST`` and ``UNSUPPORTED``, naming the field."""
    value = _options(asked)
    value["model"] = asked.model or default_model
    value["stream"] = stream
    for name in ("max_tokens", "temperature", "top_p", "seed"):
        if asked.HasField(name):
            value[name] = getattr(asked, name)
    if asked.stop:
        value["stop"] = list(asked.stop)
    if asked.user_id:
        value["user"] = asked.user_id
    if bool(asked.prompt) == bool(asked.messages):
        raise refuse("prompt", "or `messages` is required, and not both")
    if asked.messages:
        value["messages"] = [_message(message) for message in asked.messages]
        return chat_of(value)[0]
    value["prompt"] = asked.prompt
    request = completion_of(value)[0]
    if "max_tokens" in value:
        return request
    # As over the native API: no limit of its own, other than OpenAI's old 16.
    sampling = msgspec.structs.replace(request.sampling, max_tokens=None)
    return msgspec.structs.replace(request, sampling=sampling)


def _options(asked: pb.InferRequest) -> dict[str, Any]:
    if asked.options.ByteSize() > MAX_OPTIONS_BYTES:
        said = f"are longer than {MAX_OPTIONS_BYTES} bytes"
        raise refuse("options", said, Code.BODY_TOO_LARGE)
    options = _fields(asked.options)
    for name in options:
        if name in _NOT_HERE:
            raise refuse(f"options.{name}", "has a field of its own, or none over gRPC")
    return options


def _fields(struct: Struct) -> dict[str, Any]:
    return {name: _plain(value) for name, value in struct.fields.items()}


def _plain(value: Value) -> Any:
    """As JSON would have it. A ``Struct`` has no whole numbers, only ones like 3.0. Raises ``INVALID_REQUEST``."""
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            if not isfinite(number):
                raise refuse("options", "have a number in them that JSON cannot say")
            return int(number) if number.is_integer() and abs(number) < _WHOLE else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "list_value":
            return [_plain(item) for item in value.list_value.values]
        case "struct_value":
            return _fields(value.struct_value)
        case _:
            return None


def _message(message: pb.Message) -> dict[str, Any]:
    made: dict[str, Any] = {"role": message.role, "content": message.content}
    if message.name:
        made["name"] = message.name
    if message.tool_call_id:
        made["tool_call_id"] = message.tool_call_id
    if message.tool_calls:
        made["content"] = message.content or None
        made["tool_calls"] = [
            {
                "id": call.id,
                "type": "function",
                "function": {"name": call.name, "arguments": call.arguments},
            }
            for call in message.tool_calls
        ]
    return made
