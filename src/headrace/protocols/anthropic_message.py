"""The message object of Anthropic's Messages API: what it says of a generation. Fields that its schema
requires are there as ``null``.

https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.domain.event import Finish, Usage
from headrace.protocols.output import Item, Output
from headrace.protocols.port import Generation

StopReason = Literal["end_turn", "max_tokens", "stop_sequence", "tool_use", "refusal"]


class MessageUsage(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """``input_tokens`` are those that were not in the prompt cache."""

    input_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int
    output_tokens: int
    output_tokens_details: None = None
    server_tool_use: None = None


class FullUsage(MessageUsage, frozen=True, kw_only=True, gc=False):
    """The same in a message; in the middle of a stream there is less."""

    cache_creation: None = None
    inference_geo: None = None
    service_tier: Literal["standard"] = "standard"


class MessageObject(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The answer of ``POST /v1/messages`` without a stream, and how one begins."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: StopReason | None
    stop_sequence: str | None
    stop_details: None = None
    container: None = None
    usage: FullUsage


class TokenCount(msgspec.Struct, frozen=True, gc=False):
    input_tokens: int


def message_id(generation: Generation) -> str:
    """``msg_`` and the generation's ULID."""
    return "msg_" + generation.id[4:]  # after "gen_"


def message_object(generation: Generation, output: Output, end: Finish) -> MessageObject:
    """The whole message."""
    reason, sequence = stop_of(generation, output, end)
    return MessageObject(
        id=message_id(generation),
        model=generation.model,
        content=[block(item) for item in output.items],
        stop_reason=reason,
        stop_sequence=sequence,
        usage=full_usage(end.usage),
    )


def message_beginning(generation: Generation, prompt_tokens: int) -> MessageObject:
    """The message before it says anything. ``prompt_tokens``: of the prefill's progress; 0 where an upstream says
    nothing of it. The end of the stream has them in any case."""
    return MessageObject(
        id=message_id(generation),
        model=generation.model,
        content=[],
        stop_reason=None,
        stop_sequence=None,
        usage=full_usage(Usage(prompt_tokens, 0)),
    )


def stop_of(generation: Generation, output: Output, end: Finish) -> tuple[StopReason, str | None]:
    """Why it ended, and the sequence that ended it."""
    reason = end.reasons[0]
    if reason == "length":
        return "max_tokens", None
    if reason == "content_filter":
        return "refusal", None
    # Some engines say "stop" where a tool was named that had to be called.
    if reason == "tool_calls" or any(item.kind == "call" for item in output.items):
        return "tool_use", None
    if end.stop is not None and end.stop in generation.request.sampling.stop:
        return "stop_sequence", end.stop
    return "end_turn", None


def full_usage(usage: Usage) -> FullUsage:
    fresh, cached = _fresh_and_cached(usage)
    return FullUsage(
        input_tokens=fresh,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )


def delta_usage(usage: Usage) -> MessageUsage:
    """As the end of a stream has it."""
    fresh, cached = _fresh_and_cached(usage)
    return MessageUsage(
        input_tokens=fresh,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
    )


def _fresh_and_cached(usage: Usage) -> tuple[int, int]:
    cached = min(usage.cached_tokens, usage.prompt_tokens)
    return usage.prompt_tokens - cached, cached


def block(item: Item) -> dict[str, Any]:
    """An item as a block of content."""
    found = empty_block(item)
    match item.kind:
        case "reasoning":
            found["thinking"] = item.text
        case "message":
            found["text"] = item.text
        case "call":
            found["input"] = _input(item.text)
    return found


def empty_block(item: Item) -> dict[str, Any]:
    """The same before it says anything."""
    match item.kind:
        case "reasoning":
            return {"type": "thinking", "thinking": "", "signature": ""}
        case "message":
            return {"type": "text", "text": "", "citations": None}
        case "call":
            return {
                "type": "tool_use",
                "id": item.call_id,
                "name": item.name,
                "input": {},
                "caller": {"type": "direct"},
            }


def _input(arguments: str) -> dict[str, Any]:
    """What a tool is called with. What is no JSON object, as where an answer was cut short, is told as
    Anthropic's documentation has it."""
    try:
        value = msgspec.json.decode(arguments or "{}")
    except (msgspec.DecodeError, RecursionError):
        value = None
    return value if isinstance(value, dict) else {"INVALID_JSON": arguments}
