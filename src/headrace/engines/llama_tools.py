"""Tool calls of a model whose chat template knows no tools: forced by a schema, read from JSON.

The functions are told in the system message and the answer must be ``{"name": …, "arguments": …}`` for one
of them. That is honest where the client wants a call (``required`` or a named function); whether to call
at all (``auto``) is a choice that such a model was never taught, so it is refused.
"""

from __future__ import annotations

import json
import re
import secrets
from typing import Any

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import ToolCallDelta
from headrace.domain.request import Message, Request, TextPart
from headrace.engines.base import unsupported
from headrace.engines.llama_body import has_images

_HEAD = re.compile(r'\s*\{\s*"name"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"arguments"\s*:')
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
"""A small model left free to would write white space until its limit."""


def check(request: Request) -> None:
    """Raise ``UNSUPPORTED`` for what cannot be forced, ``INVALID_REQUEST`` for a function that is not there."""
    if request.tool_choice in (None, "auto"):
        why = "This model's chat template knows no tools, so it cannot decide whether to call one; "
        why += 'tool_choice may be "required", a named function or "none".'
        raise unsupported("tools", why)
    if request.tool_choice == "none":
        return
    if has_images(request):
        raise unsupported("tools", "This model's engine has no tools beside images.")
    if (request.response_format or {}).get("type", "text") != "text":
        raise unsupported("response_format", "This model's engine has no format beside tools.")
    if not _wanted(request):
        why = "tool_choice names a function that is not among the tools."
        raise HeadraceError(Code.INVALID_REQUEST, why, param="tool_choice")


def without_tools(request: Request) -> Request:
    """The request as this model can be asked it: functions as text, a call as a format."""
    messages = tuple(_plain(message) for message in request.messages)
    replace = msgspec.structs.replace
    asked = replace(request, messages=messages, tools=None, tool_choice=None)
    if request.tool_choice == "none":
        return asked
    wanted = _wanted(request)
    schema = {"type": "json_schema", "json_schema": {"name": "call", "schema": _schema(wanted)}}
    return replace(asked, messages=_told(messages, wanted), response_format=schema)


class CallReader:
    """Makes one choice's JSON a tool call, piece by piece."""

    __slots__ = ("_depth", "_escaped", "_head", "_named", "_quoted", "over")

    def __init__(self) -> None:
        self._head = ""
        self._named = self._quoted = self._escaped = self.over = False
        self._depth = 0

    def through(self, deltas: list[Delta]) -> list[Delta]:
        """The same, as pieces of the call."""
        return [
            Delta("", delta.index, delta.token_ids, False, None, (piece,))
            for delta in deltas
            if (piece := self._read(delta.text)) is not None
        ]

    def _read(self, text: str) -> ToolCallDelta | None:
        if self._named:
            arguments = self._arguments(text)
            return ToolCallDelta(0, None, None, arguments) if arguments else None
        self._head += text
        found = _HEAD.match(self._head)
        if found is None:
            return None
        self._named = True
        rest = self._arguments(self._head[found.end() :])
        return ToolCallDelta(0, "call_" + secrets.token_hex(12), json.loads(found[1]), rest)

    def _arguments(self, text: str) -> str:
        """The part of it that belongs to the arguments, a JSON object."""
        if self.over:
            return ""
        if not self._depth:
            text = text.lstrip()
        for at, char in enumerate(text):
            if self._escaped:
                self._escaped = False
            elif self._quoted:
                self._escaped = char == "\\"
                self._quoted = char != '"'
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if not self._depth:
                    self.over = True
                    return text[: at + 1]
        return text


def _wanted(request: Request) -> list[dict[str, Any]]:
    """The functions one of which is to be called."""
    functions = [tool["function"] for tool in request.tools or ()]
    choice = request.tool_choice
    if not isinstance(choice, dict):
        return functions
    return [one for one in functions if one["name"] == choice["function"]["name"]]


def _schema(functions: list[dict[str, Any]]) -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    calls = []
    for number, function in enumerate(functions):
        place = f"tool{number}"
        definitions[place] = _moved(_parameters(function), f"#/$defs/{place}")
        calls.append(
            {
                "type": "object",
                "properties": {
                    "name": {"const": function["name"]},
                    "arguments": {"$ref": f"#/$defs/{place}"},
                },
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": definitions, "x-guidance": _COMPACT}


_ELSEWHERE = frozenset(("$ref", "allOf", "anyOf", "oneOf", "patternProperties"))
"""Where a schema may declare properties besides ``properties``."""


def _parameters(function: dict[str, Any]) -> dict[str, Any]:
    """What its arguments must be. Only those declared, unless others are asked for: a model that was
    not taught to call functions makes some up."""
    parameters = function.get("parameters") or {}
    closed = {} if _ELSEWHERE & parameters.keys() else {"additionalProperties": False}
    return {"type": "object", **closed, **parameters}


def _moved(schema: Any, place: str) -> Any:
    """A schema whose references to its own root point to where it is now."""
    if isinstance(schema, list):
        return [_moved(one, place) for one in schema]
    if not isinstance(schema, dict):
        return schema
    return {
        key: place + value[1:]
        if key == "$ref" and isinstance(value, str) and value.startswith("#")
        else _moved(value, place)
        for key, value in schema.items()
    }


def _told(messages: tuple[Message, ...], functions: list[dict[str, Any]]) -> tuple[Message, ...]:
    """The messages with the functions in the system message."""
    lines = [json.dumps(function, ensure_ascii=False) for function in functions]
    text = (
        "Functions:\n" + "\n".join(lines) + "\nCall the one that fits. Answer with a JSON object "
    )
    text += '{"name": the function\'s name, "arguments": its arguments} and nothing else.'
    if messages and messages[0].role in ("system", "developer"):
        first = messages[0]
        whole = msgspec.structs.replace(first, content=f"{_text(first)}\n\n{text}")
        return (whole, *messages[1:])
    return (Message("system", text), *messages)


def _plain(message: Message) -> Message:
    """A message of a conversation with tools, for a template that knows none."""
    if message.role in ("tool", "function"):
        return Message("user", f"The function's result: {_text(message)}")
    if not message.tool_calls:
        return message
    calls = [
        f'{{"name": {json.dumps(call["function"]["name"])}, '
        f'"arguments": {call["function"].get("arguments") or "{}"}}}'
        for call in message.tool_calls
    ]
    return Message("assistant", "\n".join([*filter(None, [_text(message)]), *calls]))


def _text(message: Message) -> str:
    content = message.content
    if content is None or isinstance(content, str):
        return content or ""
    return "\n".join(part.text for part in content if isinstance(part, TextPart))
