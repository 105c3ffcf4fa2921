"""The body of Anthropic's Messages API, and how it becomes a :class:`Request`.

Where the last message is the assistant's, the answer goes on from it. What no engine here has is refused by its
name.
https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code
from headrace.domain.request import Message, Request, Sampling
from headrace.protocols.anthropic_blocks import Blocks, Role, messages_of, text_of
from headrace.protocols.body import Body, Unknown, convert_part, refuse
from headrace.protocols.openai_request import (
    MAX_TOOLS,
    Asked,
    Identity,
    MaxTokens,
    Name,
    Priority,
    Stops,
    engine_options,
)

ENGINE_NAMES = {"reasoning_effort": "output_config.effort"}
"""An option of some engines, as Anthropic has it."""
MAX_MESSAGES = 100_000
"""Messages of one request."""


class MessageParam(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    role: Role
    content: str | Blocks


class Metadata(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    user_id: Identity | None = None


class Thinking(msgspec.Struct, gc=False):
    """``adaptive``: as much as the model likes, which is what engines do."""

    type: str
    display: str | None = None


class OutputConfig(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    effort: str | None = None
    format: dict[str, Any] | None = None


class CountBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /v1/messages/count_tokens``."""

    model: Name
    messages: Annotated[list[MessageParam], Meta(min_length=1, max_length=MAX_MESSAGES)]
    system: str | Blocks | None = None
    tools: Annotated[Blocks, Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: dict[str, Any] | None = None
    thinking: Thinking | None = None
    output_config: OutputConfig | None = None
    # harmless
    cache_control: dict[str, Any] | None = None
    user_profile_id: str | None = None
    workspace_id: str | None = None
    # lacking
    speed: str | None = None
    context_management: Any = None
    mcp_servers: list[Any] | None = None


class MessagesBody(CountBody, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /v1/messages``. ``min_p`` and the like, which open engines share, go to the engine."""

    max_tokens: MaxTokens
    stream: bool | None = None
    stop_sequences: Stops | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_k: Annotated[int, Meta(ge=0, le=2**31 - 1)] | None = None
    metadata: Metadata | None = None
    priority: Priority | None = None
    # harmless
    service_tier: str | None = None
    diagnostics: dict[str, Any] | None = None
    # lacking
    container: Any = None
    inference_geo: str | None = None


_messages_body = Body(MessagesBody)
_count_body = Body(CountBody)

_LACKS: tuple[tuple[str, Any], ...] = (
    ("speed", "standard"),
    ("context_management", None),
    ("mcp_servers", []),
    ("container", None),
    ("inference_geo", None),
)
"""Options that nothing here has, and the value that asks for nothing."""


def decode_messages(body: bytes) -> Asked:
    """A request. Raises ``INVALID_JSON``, ``INVALID_REQUEST`` and ``UNSUPPORTED``."""
    said, unknown = _messages_body.decode(body)
    sampling = Sampling(
        max_tokens=said.max_tokens,
        temperature=said.temperature,
        top_p=said.top_p,
        top_k=said.top_k,
        stop=tuple(said.stop_sequences or ()),
    )
    request = _request(said, sampling, unknown)
    user = said.metadata.user_id if said.metadata is not None else None
    streams, priority = said.stream is True, said.priority or 0
    request = msgspec.structs.replace(request, stream=streams, user=user, priority=priority)
    return request, {}, None


def decode_count(body: bytes) -> Request:
    """A request that is only to be counted. Raises as :func:`decode_messages`."""
    return _request(_count_body.decode_closed(body), Sampling(), None)


def _request(body: CountBody, sampling: Sampling, unknown: Unknown | None) -> Request:
    _refuse_lacking_options(body)
    messages = [
        one
        for position, message in enumerate(body.messages)
        for one in messages_of(message.role, message.content, f"messages[{position}]")
    ]
    if body.system:
        messages.insert(0, Message("system", text_of(body.system, "system")))
    if not messages:
        raise refuse("messages", "say nothing")
    goes_on = messages[-1].role == "assistant"
    if goes_on and messages[-1].tool_calls:
        raise refuse("messages", "end with a call of a tool; its result has to follow")
    tools = [_tool(tool, f"tools[{at}]") for at, tool in enumerate(body.tools or ())]
    choice, parallel = _tool_choice(body.tool_choice)
    effort = body.output_config.effort if body.output_config is not None else None
    return Request(
        model=body.model,
        kind="chat",
        messages=tuple(messages),
        sampling=sampling,
        tools=tools or None,
        tool_choice=choice,
        parallel_tool_calls=parallel,
        response_format=_format(body.output_config),
        extra=engine_options(unknown, effort),
        goes_on=goes_on,
    )


def _refuse_lacking_options(body: CountBody) -> None:
    for param, nothing in _LACKS:
        value = getattr(body, param, None)
        if value is not None and value != nothing:
            raise _lacking(param)
    if body.thinking is not None:
        if body.thinking.type not in ("disabled", "adaptive"):
            raise _lacking("thinking")
        if body.thinking.display not in (None, "summarized"):
            raise _lacking("thinking.display")


def _lacking(param: str) -> Exception:
    return refuse(param, "is an option that this server lacks", Code.UNSUPPORTED)


# Tools and the form of the text, as OpenAI's chat has them.


class Tool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``input_examples`` become those of its schema."""

    name: Name
    input_schema: dict[str, Any]
    type: Literal["custom"] | None = None
    description: str | None = None
    strict: bool | None = None
    input_examples: list[dict[str, Any]] | None = None
    # harmless
    cache_control: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None
    # lacking
    defer_loading: bool | None = None
    allowed_callers: list[str] | None = None


class ToolChoice(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class JsonFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["json_schema"]
    schema: dict[str, Any]


def _tool(value: dict[str, Any], path: str) -> dict[str, Any]:
    if value.get("type") not in (None, "custom"):
        said = 'must be "custom": this server runs no tools of its own'
        raise refuse(f"{path}.type", said, Code.UNSUPPORTED)
    tool = convert_part(value, Tool, path)
    if tool.defer_loading:
        raise _lacking(f"{path}.defer_loading")
    if tool.allowed_callers not in (None, [], ["direct"]):
        raise _lacking(f"{path}.allowed_callers")
    schema = tool.input_schema
    if tool.input_examples:
        schema = schema | {"examples": tool.input_examples}
    function: dict[str, Any] = {"name": tool.name, "parameters": schema}
    if tool.description is not None:
        function["description"] = tool.description
    if tool.strict is not None:
        function["strict"] = tool.strict
    return {"type": "function", "function": function}


def _tool_choice(
    value: dict[str, Any] | None,
) -> tuple[str | dict[str, Any] | None, bool | None]:
    """OpenAI's choice, and whether calls may be parallel."""
    if value is None:
        return None, None
    choice = convert_part(value, ToolChoice, "tool_choice")
    parallel = False if choice.disable_parallel_tool_use else None
    match choice.type:
        case "any":
            return "required", parallel
        case "tool":
            if choice.name is None:
                raise refuse("tool_choice.name", "is required")
            return {"type": "function", "function": {"name": choice.name}}, parallel
        case _:
            return choice.type, parallel


def _format(config: OutputConfig | None) -> dict[str, Any] | None:
    if config is None or config.format is None:
        return None
    wanted = convert_part(config.format, JsonFormat, "output_config.format")
    return {"type": "json_schema", "json_schema": {"name": "answer", "schema": wanted.schema}}
