"""The body of OpenAI's Responses API, and how it becomes a :class:`Request`.

What no engine here has is refused by its name.
https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code
from headrace.domain.request import Message, Request, Sampling
from headrace.protocols.body import Body, Unknown, convert_part, refuse, require_plain
from headrace.protocols.openai_request import (
    MAX_TOOLS,
    Identity,
    MaxTokens,
    Name,
    Penalty,
    Priority,
    engine_options,
)
from headrace.protocols.responses_input import messages_of

MAX_ITEMS = 4096
"""Items of one input."""
LOGPROBS = "message.output_text.logprobs"
HARMLESS = ("reasoning.encrypted_content", "message.input_image.image_url")
"""What may be asked to be included and is never there, or always."""
ENGINE_NAMES = {
    "reasoning_effort": "reasoning.effort",
    "verbosity": "text.verbosity",
    "max_tokens": "max_output_tokens",
}
"""Options that may be refused, as Responses has them."""

Metadata = Annotated[
    dict[Annotated[str, Meta(min_length=1, max_length=64)], Annotated[str, Meta(max_length=512)]],
    Meta(max_length=16),
]


class ResponsesBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /v1/responses``. ``top_k`` and the like, which open engines share, go to the engine."""

    model: Name
    input: (
        str | Annotated[list[dict[str, Any]], Meta(min_length=1, max_length=MAX_ITEMS)] | None
    ) = None
    instructions: str | None = None
    previous_response_id: Annotated[str, Meta(max_length=128)] | None = None
    stream: bool | None = None
    background: bool | None = None
    store: bool | None = None
    metadata: Metadata | None = None
    max_output_tokens: MaxTokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    include: list[str] | None = None
    text: TextOptions | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    user: Identity | None = None
    safety_identifier: Identity | None = None
    session_id: Identity | None = None
    priority: Priority | None = None
    # harmless
    stream_options: ResponseStreamOptions | None = None
    max_tool_calls: MaxTokens | None = None
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None
    # lacking
    access_programs: Any = None
    image: Any = None
    truncation: str | None = None
    reasoning: ReasoningOptions | None = None
    conversation: Any = None
    prompt: Any = None
    context_management: list[Any] | None = None
    background_options: Any = None
    moderation: Any = None


class TextOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    format: dict[str, Any] | None = None
    verbosity: str | None = None


class ResponseStreamOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """Nothing is obfuscated here."""

    include_obfuscation: bool | None = None


class ReasoningOptions(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``effort`` is the engine's to take; the rest are lacking."""

    effort: str | None = None
    summary: str | None = None
    generate_summary: str | None = None
    context: str | None = None
    mode: str | None = None


class ResponseTerms(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What a response says of its request that a :class:`Request` has no place for; stored with its log as
    its wire's options. ``before``: messages of earlier responses, behind the instructions."""

    background: bool = False
    instructions: str | None = None
    previous_response_id: str | None = None
    before: int = 0
    metadata: dict[str, str] = {}
    prompt_cache_key: str | None = None
    safety_identifier: str | None = None
    max_tool_calls: int | None = None


class Earlier(msgspec.Struct, frozen=True, gc=False):
    """What a previous response brings in: its conversation, instructions left out, with its answer."""

    messages: tuple[Message, ...] = ()


_body = Body(ResponsesBody)

_LACKS: tuple[tuple[str, Any], ...] = (
    ("access_programs", None),
    ("image", None),
    ("truncation", "disabled"),
    ("conversation", None),
    ("prompt", None),
    ("context_management", []),
    ("background_options", None),
    ("moderation", None),
)
"""Options that nothing here has, and the value that asks for nothing."""
_REASONING_LACKS = (
    ("summary", "none"),
    ("generate_summary", "none"),
    ("context", "auto"),
    ("mode", "standard"),
)
"""The same in ``reasoning``."""


def decode_responses(body: bytes) -> tuple[ResponsesBody, Unknown | None]:
    """A body, checked as far as it can be without the response it follows. Raises ``INVALID_JSON``,
    ``INVALID_REQUEST`` and ``UNSUPPORTED``."""
    said, unknown = _body.decode(body)
    _refuse_lacking_options(said)
    if said.background and said.store is False:
        raise refuse("background", "needs `store`: true; a background response is read later")
    if said.input is None and said.previous_response_id is None:
        raise refuse("input", "is required")
    return said, unknown


def response_request(
    body: ResponsesBody, unknown: Unknown | None, earlier: Earlier
) -> tuple[Request, ResponseTerms]:
    """The request. Raises ``INVALID_REQUEST`` and ``UNSUPPORTED``."""
    messages = list(earlier.messages)
    if body.instructions is not None:
        messages.insert(0, Message("system", body.instructions))
    if isinstance(body.input, str):
        messages.append(Message("user", body.input))
    elif body.input is not None:
        messages += messages_of(body.input)
    if not messages:
        raise refuse("input", "has no message")
    request = Request(
        model=body.model,
        kind="chat",
        messages=tuple(messages),
        sampling=_sampling(body),
        stream=body.stream is True,
        tools=[_tool(tool, f"tools[{at}]") for at, tool in enumerate(body.tools or ())] or None,
        tool_choice=_tool_choice(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_response_format(body.text),
        user=body.safety_identifier or body.user,
        extra=engine_options(
            unknown,
            body.reasoning.effort if body.reasoning is not None else None,
            body.text.verbosity if body.text is not None else None,
        ),
        keep=body.store is not False,
        priority=body.priority or 0,
    )
    terms = ResponseTerms(
        background=body.background is True,
        instructions=body.instructions,
        previous_response_id=body.previous_response_id,
        before=len(earlier.messages),
        metadata=body.metadata or {},
        prompt_cache_key=body.prompt_cache_key,
        safety_identifier=body.safety_identifier,
        max_tool_calls=body.max_tool_calls,
    )
    return request, terms


def _sampling(body: ResponsesBody) -> Sampling:
    wanted = body.include or ()
    for name in wanted:
        if name != LOGPROBS and name not in HARMLESS:
            raise refuse("include", f"asks for {name[:80]!r}, which there is not", Code.UNSUPPORTED)
    with_logprobs = body.top_logprobs or LOGPROBS in wanted
    return Sampling(
        max_tokens=body.max_output_tokens,
        temperature=body.temperature,
        top_p=body.top_p,
        presence_penalty=body.presence_penalty,
        frequency_penalty=body.frequency_penalty,
        logprobs=(body.top_logprobs or 0) if with_logprobs else None,
    )


def _refuse_lacking_options(body: ResponsesBody) -> None:
    for param, nothing in _LACKS:
        value = getattr(body, param)
        if value is not None and value != nothing:
            raise _lacking(param)
    if body.reasoning is not None:
        for name, nothing in _REASONING_LACKS:
            if getattr(body.reasoning, name) not in (None, nothing):
                raise _lacking(f"reasoning.{name}")


def _lacking(param: str) -> Exception:
    return refuse(param, "is an option that this server lacks", Code.UNSUPPORTED)


# Tools and the form of the text: OpenAI's chat has them one level deeper.


class FunctionTool(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """``strict`` and ``defer_loading`` change nothing here."""

    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None
    defer_loading: bool | None = None


class SchemaFormat(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """The form ``json_schema``."""

    type: Literal["json_schema"]
    name: Name
    schema: dict[str, Any]
    description: str | None = None
    strict: bool | None = None


def _tool(tool: dict[str, Any], path: str) -> dict[str, Any]:
    if tool.get("type") != "function":
        raise refuse(f"{path}.type", 'must be "function"', Code.UNSUPPORTED)
    convert_part(tool, FunctionTool, path)
    own = ("name", "description", "parameters", "strict")
    function = {name: tool[name] for name in own if tool.get(name) is not None}
    return {"type": "function", "function": function}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any] | None:
    if not isinstance(choice, dict):
        return choice
    require_plain(choice, "tool_choice")
    if choice.get("type") != "function":
        raise refuse("tool_choice.type", 'must be "function"', Code.UNSUPPORTED)
    name = choice.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise refuse("tool_choice.name", "must be a text of 1 to 256 characters")
    return {"type": "function", "function": {"name": name}}


def _response_format(text: TextOptions | None) -> dict[str, Any] | None:
    if text is None or text.format is None:
        return None
    wanted = text.format
    require_plain(wanted, "text.format")
    match wanted.get("type"):
        case "text":
            return None
        case "json_object":
            return {"type": "json_object"}
        case "json_schema":
            convert_part(wanted, SchemaFormat, "text.format")
            inner = {
                name: value
                for name, value in wanted.items()
                if name != "type" and value is not None
            }
            return {"type": "json_schema", "json_schema": inner}
        case _:
            raise refuse("text.format.type", "must be text, json_object or json_schema")
