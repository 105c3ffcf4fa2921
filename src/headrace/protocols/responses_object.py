"""The response object: what OpenAI's Responses API says of a generation, while it runs and after.

https://platform.openai.com/docs/api-reference/responses/object; fields that its schema requires are there
as ``null``.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.domain.errors import Code
from headrace.domain.event import Error, Finish, Usage
from headrace.domain.request import Message, Request
from headrace.protocols.errors import code_of
from headrace.protocols.output import Output, OutputReader, Status
from headrace.protocols.port import Generation
from headrace.protocols.responses_items import outside
from headrace.protocols.responses_request import ResponseTerms

ResponseStatus = Literal["queued", "in_progress", "completed", "incomplete", "failed", "cancelled"]
TERMS = "response"
"""The name of a response's terms among its wire's options."""

_INCOMPLETE = {"length": "max_output_tokens", "content_filter": "content_filter"}
_ERROR_CODES: dict[Code, str] = {
    Code.RATE_LIMITED: "rate_limit_exceeded",
    Code.CONTEXT_LENGTH: "invalid_prompt",
    Code.INVALID_REQUEST: "invalid_prompt",
    Code.UNSUPPORTED: "invalid_prompt",
}
"""OpenAI has a closed list of codes; everything else is its ``server_error``."""


class InputDetails(msgspec.Struct, frozen=True, gc=False):
    cached_tokens: int
    cache_write_tokens: int = 0


class OutputDetails(msgspec.Struct, frozen=True, gc=False):
    """Engines do not count reasoning tokens apart, so they are among ``output_tokens`` only."""

    reasoning_tokens: int = 0


class ResponseUsage(msgspec.Struct, frozen=True, gc=False):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class ResponseFailure(msgspec.Struct, frozen=True, gc=False):
    """``code``: one of OpenAI's; the event's own stands in the message of the log."""

    code: str
    message: str


class IncompleteDetails(msgspec.Struct, frozen=True, gc=False):
    reason: str


class ReasoningEcho(msgspec.Struct, frozen=True, gc=False):
    effort: str | None
    summary: None = None


class ResponseObject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer of every endpoint that gives a response; times in Unix seconds."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None
    status: ResponseStatus
    background: bool
    error: ResponseFailure | None
    incomplete_details: IncompleteDetails | None
    instructions: str | None
    max_output_tokens: int | None
    max_tool_calls: int | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    presence_penalty: float
    frequency_penalty: float
    prompt_cache_key: str | None
    reasoning: ReasoningEcho
    safety_identifier: str | None
    service_tier: Literal["default"] = "default"
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["disabled"] = "disabled"
    usage: ResponseUsage | None
    user: str | None
    metadata: dict[str, str]


def response_id(generation: Generation) -> str:
    """``resp_`` and the generation's ULID."""
    return "resp_" + ulid(generation)


def ulid(generation: Generation) -> str:
    return generation.id[4:]  # after "gen_"


def terms_of(generation: Generation) -> ResponseTerms:
    """What was asked beside the request; the defaults for a log that another endpoint began."""
    return msgspec.convert(generation.wire_options.get(TERMS, {}), ResponseTerms)


def response_object(
    generation: Generation, output: Output, status: ResponseStatus, end: Finish | Error | None
) -> ResponseObject:
    """``end``: the log's, if it has come."""
    request, terms = generation.request, terms_of(generation)
    sampling = request.sampling
    options = request.extra or {}
    error = end if isinstance(end, Error) and status == "failed" else None
    reason = _INCOMPLETE[end.reasons[0]] if status == "incomplete" and type(end) is Finish else None
    return ResponseObject(
        id=response_id(generation),
        created_at=int(generation.created),
        completed_at=int(end.timestamp) if end is not None and status == "completed" else None,
        status=status,
        background=terms.background,
        error=None if error is None else ResponseFailure(_error_code(error), error.message),
        incomplete_details=None if reason is None else IncompleteDetails(reason),
        instructions=terms.instructions,
        max_output_tokens=sampling.max_tokens,
        max_tool_calls=terms.max_tool_calls,
        model=generation.model,
        output=[outside(item, sampling.logprobs is not None) for item in output.items],
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=terms.previous_response_id,
        presence_penalty=sampling.presence_penalty or 0.0,
        frequency_penalty=sampling.frequency_penalty or 0.0,
        prompt_cache_key=terms.prompt_cache_key,
        reasoning=ReasoningEcho(options.get("reasoning_effort")),
        safety_identifier=terms.safety_identifier,
        store=request.keep,
        temperature=1.0 if sampling.temperature is None else sampling.temperature,
        text={"format": _format(request), "verbosity": options.get("verbosity", "medium")},
        tool_choice=_tool_choice(request.tool_choice),
        tools=[_tool(tool) for tool in request.tools or ()],
        top_logprobs=sampling.logprobs or 0,
        top_p=1.0 if sampling.top_p is None else sampling.top_p,
        usage=_usage(end.usage) if type(end) is Finish else None,
        user=request.user,
        metadata=terms.metadata,
    )


def status_at_end(end: Finish | Error) -> ResponseStatus:
    """How a response ended."""
    if type(end) is Finish:
        return "incomplete" if end.reasons[0] in _INCOMPLETE else "completed"
    assert type(end) is Error
    return "cancelled" if end.code == Code.CANCELLED else "failed"


def items_at_end(status: ResponseStatus) -> Status:
    """What becomes of the items that were open then."""
    return "completed" if status == "completed" else "incomplete"


def conversation(read: OutputReader) -> tuple[Message, ...]:
    """What a next response follows: all messages but the instructions, and the answer, with what was added to
    it in mid-stream where it came in."""
    generation, output = read.generation, read.output
    messages = list(generation.request.messages)
    if terms_of(generation).instructions is not None:
        del messages[0]
    said, told = output.text, 0
    for behind, prompt in read.added:
        role: Literal["system", "user"] = "system" if prompt.role == "system" else "user"
        message = Message(role, prompt.content)
        if not behind and message in messages:
            continue  # a hook rewrote the request: it has this message already
        if behind > told:
            messages.append(Message("assistant", said[told:behind]))
        told = behind
        messages.append(message)
    calls = [
        {
            "id": item.call_id,
            "type": "function",
            "function": {"name": item.name, "arguments": item.text},
        }
        for item in output.items
        if item.kind == "call"
    ]
    thoughts = "".join(item.text for item in output.items if item.kind == "reasoning")
    last = Message("assistant", said[told:] or None, tool_calls=calls or None)
    messages.append(msgspec.structs.replace(last, reasoning_content=thoughts or None))
    return tuple(messages)


def input_items(generation: Generation) -> list[dict[str, Any]]:
    """The items that this response was asked with, without those of earlier responses."""
    terms = terms_of(generation)
    skipped = terms.before + (terms.instructions is not None)
    found: list[dict[str, Any]] = []
    for message in generation.request.messages[skipped:]:
        found += _items(message)
    name = ulid(generation)
    for at, item in enumerate(found):
        item["id"] = f"{'fc' if item['type'] == 'function_call' else 'msg'}_{name}_in{at}"
    return found


def _items(message: Message) -> list[dict[str, Any]]:
    if message.role == "tool":
        said = message.content
        output = said if isinstance(said, str) else _parts(message)
        return [
            {
                "type": "function_call_output",
                "call_id": message.tool_call_id or "",
                "output": output,
                "status": "completed",
            }
        ]
    found: list[dict[str, Any]] = []
    if message.content is not None:
        found.append(
            {
                "type": "message",
                "role": message.role,
                "status": "completed",
                "content": _parts(message),
            }
        )
    for call in message.tool_calls or ():
        function = call["function"]
        found.append(
            {
                "type": "function_call",
                "call_id": call.get("id", ""),
                "name": function["name"],
                "arguments": function.get("arguments", ""),
                "status": "completed",
            }
        )
    return found


def _parts(message: Message) -> list[dict[str, Any]]:
    content = message.content
    own = message.role == "assistant"
    parts: list[dict[str, Any]] = []
    for part in [content] if isinstance(content, str) else content or ():
        if isinstance(part, str):
            text: str | None = part
        else:
            text = getattr(part, "text", None)
        if text is None:
            image = getattr(part, "image_url", {})
            parts.append(
                {
                    "type": "input_image",
                    "image_url": image.get("url"),
                    "detail": image.get("detail") or "auto",
                }
            )
        elif own:
            parts.append({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
        else:
            parts.append({"type": "input_text", "text": text})
    return parts


def _usage(usage: Usage) -> ResponseUsage:
    return ResponseUsage(
        usage.prompt_tokens,
        InputDetails(usage.cached_tokens),
        usage.completion_tokens,
        OutputDetails(),
        usage.total_tokens,
    )


def _error_code(error: Error) -> str:
    return _ERROR_CODES.get(code_of(error), "server_error")


def _format(request: Request) -> dict[str, Any]:
    wanted = request.response_format
    if wanted is None:
        return {"type": "text"}
    if wanted["type"] != "json_schema":
        return {"type": wanted["type"]}
    inner = wanted["json_schema"]
    known = {"description": None, "strict": False}
    return {"type": "json_schema", **known, **inner}


def _tool(tool: dict[str, Any]) -> dict[str, Any]:
    known = {"description": None, "parameters": None, "strict": None}
    return {"type": "function", **known, **tool["function"]}


def _tool_choice(choice: str | dict[str, Any] | None) -> str | dict[str, Any]:
    if isinstance(choice, dict):
        return {"type": "function", "name": choice["function"]["name"]}
    return choice or "auto"
