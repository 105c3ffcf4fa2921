"""The input of a response: its items as the messages of a chat.

A run of function calls is one assistant message that makes them, its outputs are messages of the role ``tool``,
and what was thought belongs to what was said or called then.
https://platform.openai.com/docs/api-reference/responses/create
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from headrace.domain.errors import Code
from headrace.domain.request import ImagePart, Message, Part, TextPart
from headrace.protocols.body import convert_part, refuse
from headrace.protocols.openai_request import Name


class _Item(msgspec.Struct, gc=False):
    """What every item may have: ids and states of earlier answers are read and not needed."""

    id: str | None = None
    status: str | None = None


class MessageItem(_Item, forbid_unknown_fields=True, kw_only=True, gc=False):
    type: str = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[dict[str, Any]]
    phase: str | None = None


class CallItem(_Item, forbid_unknown_fields=True, kw_only=True, gc=False):
    type: str
    call_id: Name
    name: Name
    arguments: str


class CallOutputItem(_Item, forbid_unknown_fields=True, kw_only=True, gc=False):
    type: str
    call_id: Name
    output: str | list[dict[str, Any]]


class ReasoningText(msgspec.Struct, gc=False):
    text: str


class ReasoningItem(_Item, kw_only=True, gc=False):
    """``summary``, and what is encrypted, says nothing that an engine could read."""

    type: str
    summary: list[dict[str, Any]] = []
    content: list[ReasoningText] | None = None


_KINDS: dict[str, type[_Item]] = {
    "message": MessageItem,
    "function_call": CallItem,
    "function_call_output": CallOutputItem,
    "reasoning": ReasoningItem,
}


def messages_of(items: Sequence[dict[str, Any]]) -> list[Message]:
    """Raises ``INVALID_REQUEST`` and ``UNSUPPORTED``, naming the path."""
    found: list[Message] = []
    calls: list[dict[str, Any]] = []
    thoughts = ""
    for position, value in enumerate(items):
        path = f"input[{position}]"
        item = _item(value, path)
        if isinstance(item, CallItem):
            function = {"name": item.name, "arguments": item.arguments}
            calls.append({"id": item.call_id, "type": "function", "function": function})
            continue
        if isinstance(item, ReasoningItem):
            thoughts += "".join(thought.text for thought in item.content or ())
            continue
        if calls:
            found.append(_calling(found, calls, thoughts))
            calls, thoughts = [], ""
        if isinstance(item, MessageItem):
            content = _content(item.content, f"{path}.content")
            if item.role == "assistant":
                found.append(Message(item.role, content, reasoning_content=thoughts or None))
                thoughts = ""
            else:
                found.append(Message(item.role, content))
        elif isinstance(item, CallOutputItem):
            said = _content(item.output, f"{path}.output")
            found.append(Message("tool", said, tool_call_id=item.call_id))
    if calls:
        found.append(_calling(found, calls, thoughts))
    return found


def _calling(found: list[Message], calls: list[dict[str, Any]], thoughts: str) -> Message:
    """The assistant's message that makes these calls: one with what it said right before them."""
    last = found[-1] if found else None
    if last is None or last.role != "assistant" or last.tool_calls is not None:
        return Message("assistant", None, tool_calls=calls, reasoning_content=thoughts or None)
    found.pop()
    thoughts = (last.reasoning_content or "") + thoughts
    return msgspec.structs.replace(last, tool_calls=calls, reasoning_content=thoughts or None)


def _item(value: dict[str, Any], path: str) -> _Item:
    kind = value.get("type", "message")
    if not isinstance(kind, str) or kind not in _KINDS:
        known = ", ".join(_KINDS)
        raise refuse(f"{path}.type", f"must be one of {known}", Code.UNSUPPORTED)
    return convert_part(value, _KINDS[kind], path)


def _content(content: str | list[dict[str, Any]], path: str) -> str | list[Part]:
    if isinstance(content, str):
        return content
    parts = [_part(part, f"{path}[{at}]") for at, part in enumerate(content)]
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return parts


def _part(part: dict[str, Any], path: str) -> Part:
    kind = part.get("type")
    if kind in ("input_text", "output_text", "text", "refusal"):
        text = part.get("refusal" if kind == "refusal" else "text")
        if not isinstance(text, str):
            raise refuse(f"{path}.text", "must be a text")
        return TextPart(text)
    if kind == "input_image":
        url = part.get("image_url")
        if not isinstance(url, str):
            raise refuse(f"{path}.image_url", "must be a URL; files are not kept here")
        detail = part.get("detail")
        return ImagePart({"url": url} if detail is None else {"url": url, "detail": detail})
    said = "must be input_text, output_text, refusal or input_image"
    raise refuse(f"{path}.type", said, Code.UNSUPPORTED)
