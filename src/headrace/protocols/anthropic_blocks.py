"""Blocks of Anthropic's Messages API as the messages of a chat.

The results of tools are messages of the role ``tool``; what an assistant thought, said and called is one message.
https://docs.anthropic.com/en/api/messages
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from headrace.domain.errors import Code
from headrace.domain.request import ImagePart, Message, Part, TextPart
from headrace.protocols.body import convert_part, refuse
from headrace.protocols.openai_request import Name

Blocks = list[dict[str, Any]]
Role = Literal["user", "assistant", "system"]


class _Block(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``cache_control`` changes nothing: every prompt is cached here as far as it can be."""

    type: str
    cache_control: dict[str, Any] | None = None


class TextBlock(_Block, kw_only=True, gc=False):
    text: str
    citations: list[dict[str, Any]] | None = None


class ImageSource(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    type: Literal["base64", "url"]
    media_type: str = ""
    data: str = ""
    url: str = ""


class ImageBlock(_Block, kw_only=True, gc=False):
    source: ImageSource


class ToolUseBlock(_Block, kw_only=True, gc=False):
    id: Name
    name: Name
    input: dict[str, Any]
    caller: dict[str, Any] | None = None


class ToolResultBlock(_Block, kw_only=True, gc=False):
    """``is_error`` is said by the content as well: engines have no place for it."""

    tool_use_id: Name
    content: str | Blocks = ""
    is_error: bool | None = None


class ThinkingBlock(msgspec.Struct, gc=False):
    """One that is redacted says nothing that an engine could read."""

    type: str
    thinking: str = ""


Block = TextBlock | ImageBlock | ToolUseBlock | ToolResultBlock | ThinkingBlock
_KINDS: dict[str, type[Block]] = {
    "text": TextBlock,
    "image": ImageBlock,
    "tool_use": ToolUseBlock,
    "tool_result": ToolResultBlock,
    "thinking": ThinkingBlock,
    "redacted_thinking": ThinkingBlock,
}
_ALLOWED = {
    "user": ("text", "image", "tool_result"),
    "assistant": ("text", "tool_use", "thinking", "redacted_thinking"),
    "system": ("text",),
    "result": ("text", "image"),
}
"""Kinds of blocks by where they are."""


def messages_of(role: Role, content: str | Blocks, path: str) -> Iterator[Message]:
    """The messages that one of Anthropic's is: one, but for results of tools."""
    if isinstance(content, str):
        yield Message(role, content)
        return
    parts: list[Part] = []
    calls: list[dict[str, Any]] = []
    thoughts = ""
    for place, block in _blocks(content, f"{path}.content", role):
        match block:
            case ToolResultBlock():
                if parts:
                    yield Message(role, _joined(parts))
                    parts = []
                yield _result(block, place)
            case ToolUseBlock():
                arguments = msgspec.json.encode(block.input).decode()
                function = {"name": block.name, "arguments": arguments}
                calls.append({"id": block.id, "type": "function", "function": function})
            case TextBlock():
                parts.append(TextPart(block.text))
            case ImageBlock():
                parts.append(_image(block.source, place))
            case ThinkingBlock():
                thoughts += block.thinking
    if parts or calls:
        yield Message(
            role,
            _joined(parts) if parts else None,
            tool_calls=calls or None,
            reasoning_content=thoughts or None,
        )


def _blocks(content: Blocks, path: str, within: str) -> Iterator[tuple[str, Block]]:
    """Each with its path."""
    allowed = _ALLOWED[within]
    for at, value in enumerate(content):
        place = f"{path}[{at}]"
        kind = value.get("type")
        if not isinstance(kind, str) or kind not in allowed:
            said = f"must be one of {', '.join(allowed)} here"
            raise refuse(f"{place}.type", said, Code.UNSUPPORTED)
        yield place, convert_part(value, _KINDS[kind], place)


def _result(block: ToolResultBlock, path: str) -> Message:
    content = block.content
    said: str | list[Part] = content if isinstance(content, str) else ""
    if not isinstance(content, str):
        parts: list[Part] = []
        for place, one in _blocks(content, f"{path}.content", "result"):
            if isinstance(one, TextBlock):
                parts.append(TextPart(one.text))
            elif isinstance(one, ImageBlock):
                parts.append(_image(one.source, place))
        said = _joined(parts)
    return Message("tool", said, tool_call_id=block.tool_use_id)


def _image(source: ImageSource, path: str) -> ImagePart:
    if source.type == "url":
        if not source.url:
            raise refuse(f"{path}.source.url", "is required")
        return ImagePart({"url": source.url})
    if not source.data or not source.media_type.startswith("image/"):
        raise refuse(f"{path}.source", "must have `media_type` image/… and `data`")
    return ImagePart({"url": f"data:{source.media_type};base64,{source.data}"})


def _joined(parts: Sequence[Part]) -> str | list[Part]:
    if all(isinstance(part, TextPart) for part in parts):
        return "".join(part.text for part in parts if isinstance(part, TextPart))
    return list(parts)


def text_of(content: str | Blocks, path: str) -> str:
    if isinstance(content, str):
        return content
    blocks = _blocks(content, path, "system")
    return "".join(block.text for _, block in blocks if isinstance(block, TextBlock))
