"""Items of an output as OpenAI's Responses API shows them.

https://platform.openai.com/docs/api-reference/responses/object
"""

from __future__ import annotations

from typing import Any

from headrace.domain.event import TokenLogprob
from headrace.protocols.output import Item


def outside(item: Item, logprobs: bool) -> dict[str, Any]:
    """The item as clients see it."""
    if item.kind == "call":
        return {
            "type": "function_call",
            "id": item.id,
            "call_id": item.call_id,
            "name": item.name,
            "arguments": item.text,
            "status": item.status,
        }
    content = [part(item, logprobs)] if item.pieces else []
    if item.kind == "reasoning":
        return {"type": "reasoning", "id": item.id, "summary": [], "content": content}
    return {
        "type": "message",
        "id": item.id,
        "status": item.status,
        "role": "assistant",
        "content": content,
    }


def part(item: Item, logprobs: bool) -> dict[str, Any]:
    """Its one part of content."""
    if item.kind == "reasoning":
        return {"type": "reasoning_text", "text": item.text}
    said = [token_logprob(entry) for entry in item.logprobs] if logprobs else []
    return {"type": "output_text", "text": item.text, "annotations": [], "logprobs": said}


def token_logprob(entry: TokenLogprob) -> dict[str, Any]:
    """A token's probability as output_text has it."""
    return {
        "token": entry.token,
        "logprob": -9999.0 if entry.logprob is None else entry.logprob,
        "bytes": list(entry.bytes),
        "top_logprobs": [
            {"token": token, "logprob": logprob, "bytes": list(raw)}
            for token, logprob, raw in entry.top
        ],
    }
