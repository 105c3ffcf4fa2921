"""``InferRequest`` into a :class:`Request`: by the decoders of the OpenAI bodies, so that both are checked alike."""

from __future__ import annotations

from typing import Any

import msgspec
from google.protobuf.json_format import MessageToDict

from headrace.domain.request import Request
from headrace.protocols.body import refuse
from headrace.protocols.grpc import headrace_pb2 as pb
from headrace.protocols.openai_request import chat_of, completion_of

MAX_PROMPT_BYTES = 64 * 1024
"""Of a message that is added to a running generation."""
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
    options: dict[str, Any] = _whole(MessageToDict(asked.options))
    for name in options:
        if name in _NOT_HERE:
            raise refuse(f"options.{name}", "has a field of its own, or none over gRPC")
    return options


def _whole(value: Any) -> Any:
    """A ``Struct`` has no whole numbers, only ones like 3.0."""
    match value:
        case float() if value.is_integer():
            return int(value)
        case list():
            return [_whole(item) for item in value]
        case dict():
            return {name: _whole(item) for name, item in value.items()}
        case _:
            return value


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
