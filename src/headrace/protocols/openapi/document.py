"""``/openapi.json``: OpenAPI 3.1, generated from the types that decode requests and encode answers.

An operation is one row of a protocol's ``OPERATIONS``; a test holds that the rows and the routes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.domain.errors import MEANINGS
from headrace.protocols.accept import NDJSON_TYPE, SSE_TYPE
from headrace.protocols.anthropic_errors import OVERLOADED, AnthropicError
from headrace.protocols.batch import MAX_BATCH
from headrace.protocols.call import Call
from headrace.protocols.errors import ErrorAnswer
from headrace.protocols.files import LEAST_S, MOST_S, PURPOSES
from headrace.protocols.generations import AbortBody
from headrace.protocols.infer import InferBody
from headrace.protocols.openapi import anthropic, native, openai, serving
from headrace.protocols.openapi.operation import TEXT, Json, Operation
from headrace.protocols.openapi.parameters import PARAMETERS
from headrace.protocols.operations import Health
from headrace.protocols.router import Route

_JSON = "application/json"
_FORM = "multipart/form-data"
_BINARY: Json = {"type": "string", "format": "binary"}
_UPLOAD: Json = {
    "type": "object",
    "properties": {
        "purpose": {"enum": list(PURPOSES)},
        "file": _BINARY,
        "expires_after[anchor]": {"enum": ["created_at"]},
        "expires_after[seconds]": {"type": "integer", "minimum": LEAST_S, "maximum": MOST_S},
    },
    "required": ["purpose", "file"],
}
_SSE_EVENT: Json = {
    "description": "One server-sent event; `id` is the cursor.",
    "type": "object",
    "properties": {
        "data": TEXT,
        "event": TEXT,
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "retry": {"type": "integer"},
    },
}
_REF = "#/components/schemas/{name}"

_PROTOCOLS = (openai, anthropic, native, serving)
OPERATIONS = tuple(operation for protocol in _PROTOCOLS for operation in protocol.OPERATIONS)
EXAMPLES = {name: body for protocol in _PROTOCOLS for name, body in protocol.EXAMPLES.items()}
"""Of the bodies, by the names of their types."""


class Described(NamedTuple):
    """Paths of a protocol that not every server has, and the types that they name."""

    paths: Json
    schemas: Json


class OpenApi:
    """Made once, on the first request for it."""

    def __init__(self, version: str, more: Described | None = None) -> None:
        self._version = version
        self._more = more
        self._document: bytes | None = None

    def routes(self) -> Sequence[Route]:
        return (Route("GET", "/openapi.json", self.document, open=True),)

    def document(self, call: Call, _: str) -> None:
        if self._document is None:
            self._document = msgspec.json.encode(describe(self._version, self._more))
        call.json(msgspec.Raw(self._document))


def describe(version: str, more: Described | None = None) -> Json:
    """The whole document."""
    types = [Health, ErrorAnswer, AnthropicError] + [
        kind[0] if isinstance(kind, list) else kind
        for operation in OPERATIONS
        for kind in (operation.answer, operation.body)
        if kind not in (None, str, dict, bytes)
    ]
    _, components = msgspec.json.schema_components(types, ref_template=_REF)
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    if more is not None:
        paths |= more.paths
        components |= more.schemas
    return {
        "openapi": "3.1.0",
        "info": {"title": "Headrace", "version": version},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _operation(operation: Operation) -> Json:
    described: Json = {
        "operationId": f"{operation.method.lower()}{operation.path.replace('/', '_')}".replace(
            "{", ""
        )
        .replace("}", "")
        .replace(".", "_"),
        "summary": operation.summary,
        "parameters": [_parameter(name) for name in operation.parameters],
        "responses": _responses(operation),
    }
    if operation.body is bytes:
        described["requestBody"] = {"required": True, "content": {_FORM: {"schema": _UPLOAD}}}
    elif operation.body is not None:
        described["requestBody"] = {
            "required": operation.body is not AbortBody,
            "content": {
                _JSON: {"schema": _schema(operation.body), "example": _example(operation.body)}
            },
        }
    if operation.path.startswith(("/v1/", "/tokenize", "/detokenize", "/metrics", "/admin/")):
        described["security"] = [{"key": []}, {}]
    return described


def _parameter(name: str) -> Json:
    return {"name": name, **PARAMETERS[name]}


def _responses(operation: Operation) -> Json:
    content: Json = {}
    if operation.answer is str:
        content = {"*/*": {}}
    elif operation.answer is bytes:
        content = {"application/octet-stream": {"schema": _BINARY}}
    elif operation.answer is not None:
        content[_JSON] = {"schema": _schema(operation.answer)}
    if operation.streams:
        content[SSE_TYPE] = {"schema": _SSE_EVENT}
        content[NDJSON_TYPE] = {"schema": TEXT}
    responses: Json = {"200": {"description": "The answer", "content": content}}
    if operation.streams:
        responses["204"] = {"description": "The client has seen the last event"}
    if operation.answer is Health and operation.path not in ("/livez", "/ping"):
        health = {_JSON: {"schema": _schema(Health)}}
        responses["503"] = {"description": "No model can serve", "content": health}
    for status in (*operation.errors, 500):
        error = {_JSON: {"schema": _schema(operation.error)}}
        responses[str(status)] = {"description": _meaning(status), "content": error}
    return responses


def _meaning(status: int) -> str:
    if status == OVERLOADED:
        return "overloaded_error"
    codes = [code.value for code, meaning in MEANINGS.items() if meaning.http == status]
    return ", ".join(codes)


def _example(kind: Any) -> Any:
    return [_example(kind[0])] if isinstance(kind, list) else EXAMPLES[kind.__name__]


def _schema(kind: Any) -> Json:
    if kind == [InferBody]:
        any_item = {"description": "Anything else gets its own `error` in the answer."}
        item = {"anyOf": [_schema(InferBody), any_item]}
        return {"type": "array", "items": item, "maxItems": MAX_BATCH}
    if isinstance(kind, list):
        return {"type": "array", "items": _schema(kind[0])}
    if kind is dict:
        return {"type": "object"}
    return {"$ref": _REF.format(name=kind.__name__)}
