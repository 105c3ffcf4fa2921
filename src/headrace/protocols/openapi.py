"""``/openapi.json``: OpenAPI 3.1, generated from the types that decode requests and encode answers.

An operation is one row of ``OPERATIONS``; a test holds that the rows and the routes are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from headrace.domain.errors import MEANINGS
from headrace.domain.key import Key
from headrace.domain.tenant import NAME, Tenant
from headrace.protocols.accept import NDJSON_TYPE, SSE_TYPE
from headrace.protocols.admin import KeyBody, KeyList, NewKey, ReloadState, TenantList, TermsBody
from headrace.protocols.admin_models import ModelBody, ModelStates
from headrace.protocols.anthropic_errors import OVERLOADED, AnthropicError
from headrace.protocols.anthropic_message import MessageObject, TokenCount
from headrace.protocols.anthropic_request import CountBody, MessagesBody
from headrace.protocols.batch import MAX_BATCH
from headrace.protocols.batches import BatchBody, BatchList, BatchObject
from headrace.protocols.call import Call
from headrace.protocols.embeddings import EmbeddingList, EmbeddingsBody
from headrace.protocols.errors import ErrorAnswer
from headrace.protocols.files import LEAST_S, MOST_S, PURPOSES, FileDeleted, FileList, FileObject
from headrace.protocols.files import MAX_LISTED as MOST_FILES
from headrace.protocols.formats import ENCODERS
from headrace.protocols.generations import (
    AbortBody,
    Aborted,
    AddedPrompts,
    GenerationList,
    GenerationState,
    PromptBody,
    TokenGiven,
)
from headrace.protocols.infer import InferAnswer, InferBody
from headrace.protocols.models import Model, ModelInfo, ModelList
from headrace.protocols.openai_chat import ChatCompletion
from headrace.protocols.openai_completions import TextCompletion
from headrace.protocols.openai_request import ChatBody, CompletionBody
from headrace.protocols.operations import Health, Version
from headrace.protocols.responses import Deleted, InputItems, InputTokens
from headrace.protocols.responses_object import ResponseObject
from headrace.protocols.responses_request import ResponsesBody
from headrace.protocols.router import Route
from headrace.protocols.tokenizer import DetokenizeBody, Detokenized, TokenizeBody, Tokenized

Json = dict[str, Any]

_JSON = "application/json"
_FORM = "multipart/form-data"
_TEXT: Json = {"type": "string"}
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
_TOKEN: Json = {"type": "string", "minLength": 1, "maxLength": 256}
_SSE_EVENT: Json = {
    "description": "One server-sent event; `id` is the cursor.",
    "type": "object",
    "properties": {
        "data": _TEXT,
        "event": _TEXT,
        "id": {"type": "string", "pattern": "^[0-9]+$"},
        "retry": {"type": "integer"},
    },
}
_REF = "#/components/schemas/{name}"
_CALLER = ("X-Request-ID", "X-On-Disconnect", "X-Abort-Token", "X-Session-ID", "X-Continue-Mode")
_BEGIN = (*_CALLER, "X-Stream-Events", "Idempotency-Key", "Last-Event-ID", "X-Generation-Id")

PARAMETERS: dict[str, Json] = {
    "X-Request-ID": {
        "in": "header",
        "description": "Comes back in the answer and is in the logs; one that cannot be is replaced.",
        "schema": _TEXT,
    },
    "X-On-Disconnect": {
        "in": "header",
        "description": "What becomes of the generation when its client leaves.",
        "schema": {"type": "string", "pattern": r"^(cancel|continue|grace=[0-9]{1,4})$"},
    },
    "X-Abort-Token": {
        "in": "header",
        "description": "POST /v1/abort with the same token ends the generation.",
        "schema": _TOKEN,
    },
    "X-Session-ID": {
        "in": "header",
        "description": "Generations are found again by it.",
        "schema": _TOKEN,
    },
    "X-Stream-Events": {
        "in": "header",
        "description": "Events that a stream shows: token, progress, prompt.",
        "schema": {
            "type": "string",
            "pattern": "^(token|progress|prompt)(,(token|progress|prompt))*$",
        },
    },
    "X-Continue-Mode": {
        "in": "header",
        "description": "How a generation goes on after its engine was lost.",
        "schema": {"enum": ["fast", "exact"]},
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "Says that the client wants to come back: the generation then outlives it by 30 s, unless"
        " X-On-Disconnect says otherwise. A repeat is not recognised yet: it begins a generation of its own.",
        "schema": _TOKEN,
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "The cursor of the last event seen; wins over `after`. On a POST it needs X-Generation-Id.",
        "schema": {"type": "string", "pattern": "^[0-9]{0,15}$"},
    },
    "X-Generation-Id": {
        "in": "header",
        "description": "The generation to resume.",
        "schema": _TEXT,
    },
    "id": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "after": {
        "in": "query",
        "description": "Show the events after this one.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
    },
    "format": {
        "in": "query",
        "description": "The form of the events; openai is the one that the generation was first sent in.",
        "schema": {"enum": ["openai", *ENCODERS]},
    },
    "stream": {
        "in": "query",
        "description": "`true`: as a stream of what was said and will be.",
        "schema": {"type": "boolean"},
    },
    "starting_after": {
        "in": "query",
        "description": "Show the messages after this number.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
    },
    "order": {"in": "query", "schema": {"enum": ["asc", "desc"]}},
    "item": {
        "name": "after",
        "in": "query",
        "description": "Show the items after the one with this id.",
        "schema": _TEXT,
    },
    "token": {
        "in": "query",
        "description": "A token of POST /v1/generations/{id}/token, for who cannot send a key.",
        "schema": _TEXT,
    },
    "files": {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_FILES},
    },
    "purpose": {"in": "query", "description": "Those sent for this.", "schema": _TEXT},
    "file": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "batch": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "key_id": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "tenant": {"in": "path", "required": True, "schema": {"type": "string", "pattern": NAME}},
    "limit": {"in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
    "session_id": {"in": "query", "schema": _TEXT},
    "model": {"in": "query", "schema": _TEXT},
}


_MODEL = "smollm2-135m"
_MESSAGES: list[Json] = [{"role": "user", "content": "Why is the sky blue?"}]
EXAMPLES: dict[str, Json] = {
    "ChatBody": {"model": _MODEL, "messages": _MESSAGES, "max_tokens": 50, "stream": True},
    "CompletionBody": {"model": _MODEL, "prompt": "The mill", "max_tokens": 50},
    "ResponsesBody": {"model": _MODEL, "input": "Write a story.", "background": True},
    "MessagesBody": {"model": _MODEL, "messages": _MESSAGES, "max_tokens": 50},
    "CountBody": {"model": _MODEL, "messages": _MESSAGES},
    "ModelBody": {"model": "minilm"},
    "KeyBody": {
        "tenant": "shop",
        "scopes": ["infer"],
        "name": "the shop's backend",
        "expires_in_s": 7_776_000,
        "limits": {"tokens_per_day": 1_000_000},
    },
    "TermsBody": {"weight": 2, "level": "interactive", "ttft_ms": 800},
    "InferBody": {"prompt": "The mill", "max_tokens": 50},
    "TokenizeBody": {"content": "The mill"},
    "DetokenizeBody": {"tokens": [504, 4889]},
    "PromptBody": {"role": "user", "content": "Shorter, please."},
    "EmbeddingsBody": {"model": "minilm", "input": ["The mill", "A headrace"]},
    "AbortBody": {"token": "my-token"},
    "BatchBody": {
        "input_file_id": "file-01M8AMS68SQD6SFHQQYRP72VXZ",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
}
"""Of the bodies, by the names of their types."""


class Operation(NamedTuple):
    """``body``, ``answer``: the types; a list of one type is an array, bytes are an upload or what is in a file.
    ``errors``: statuses beside 500, each with an ``error``."""

    method: str
    path: str
    summary: str
    answer: Any
    body: Any = None
    streams: bool = False
    parameters: tuple[str, ...] = ()
    errors: tuple[int, ...] = ()
    error: type[ErrorAnswer | AnthropicError] = ErrorAnswer


_COMPUTE = (400, 401, 403, 404, 406, 408, 410, 413, 415, 422, 429, 499, 502, 503, 504)
_TOKENS = (400, 401, 404, 406, 413, 415, 502, 504)
_FIND = (400, 401, 404, 410, 503)
_KEPT = (401, 403, 404, 503)
_ADMIN = (401, 403, 404)
_CHANGE = (400, *_ADMIN, 409, 413, 415)
_LOAD = (400, *_ADMIN, 413, 415, 503)

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "Answer a conversation",
        ChatCompletion,
        ChatBody,
        True,
        _BEGIN,
        _COMPUTE,
    ),
    Operation(
        "POST",
        "/v1/completions",
        "Complete a text",
        TextCompletion,
        CompletionBody,
        True,
        _BEGIN,
        _COMPUTE,
    ),
    Operation(
        "POST",
        "/v1/responses",
        "Answer as a response that can be read, followed and cancelled later",
        ResponseObject,
        ResponsesBody,
        True,
        _BEGIN,
        (*_COMPUTE, 409),
    ),
    Operation(
        "POST",
        "/v1/responses/input_tokens",
        "Count the tokens of a response's prompt",
        InputTokens,
        ResponsesBody,
        errors=(*_TOKENS, 409, 410, 503),
    ),
    Operation(
        "GET",
        "/v1/responses/{id}",
        "A response, as it is now or as a stream",
        ResponseObject,
        None,
        True,
        ("id", "stream", "starting_after", "token", "Last-Event-ID", "X-Stream-Events"),
        (*_FIND, 406),
    ),
    Operation(
        "DELETE",
        "/v1/responses/{id}",
        "Forget a response",
        Deleted,
        parameters=("id",),
        errors=_FIND,
    ),
    Operation(
        "POST",
        "/v1/responses/{id}/cancel",
        "End a background response",
        ResponseObject,
        parameters=("id",),
        errors=_FIND,
    ),
    Operation(
        "GET",
        "/v1/responses/{id}/input_items",
        "What a response was asked with",
        InputItems,
        parameters=("id", "limit", "order", "item"),
        errors=_FIND,
    ),
    Operation(
        "POST",
        "/v1/messages",
        "Answer a conversation as Anthropic's API does",
        MessageObject,
        MessagesBody,
        True,
        _BEGIN,
        (*_COMPUTE, 409, OVERLOADED),
        AnthropicError,
    ),
    Operation(
        "POST",
        "/v1/messages/count_tokens",
        "Count the tokens of a conversation's prompt",
        TokenCount,
        CountBody,
        errors=(*_TOKENS, OVERLOADED),
        error=AnthropicError,
    ),
    Operation(
        "POST",
        "/v1/embeddings",
        "Vectors of texts",
        EmbeddingList,
        EmbeddingsBody,
        False,
        ("X-Request-ID",),
        (400, 401, 404, 406, 408, 413, 415, 429, 502, 503, 504),
    ),
    Operation(
        "POST", "/tokenize", "A text as tokens", Tokenized, TokenizeBody, errors=(*_TOKENS, 503)
    ),
    Operation(
        "POST",
        "/detokenize",
        "The text of tokens",
        Detokenized,
        DetokenizeBody,
        errors=(*_TOKENS, 503),
    ),
    Operation(
        "POST", "/v1/infer", "Answer a prompt", InferAnswer, InferBody, True, _BEGIN, _COMPUTE
    ),
    Operation(
        "POST",
        "/v1/stream_infer",
        "Answer a prompt as a stream of events",
        None,
        InferBody,
        True,
        _BEGIN,
        _COMPUTE,
    ),
    Operation(
        "POST",
        "/v1/batch_infer",
        "Answer many prompts, in order",
        [InferAnswer],
        [InferBody],
        False,
        _CALLER,
        (400, 401, 406, 413, 415),
    ),
    Operation("GET", "/v1/models", "List the models", ModelList, errors=(401,)),
    Operation("GET", "/v1/models/{id}", "One model", Model, parameters=("id",), errors=(401, 404)),
    Operation(
        "GET",
        "/v1/model_info",
        "Facts of a model",
        ModelInfo,
        parameters=("model",),
        errors=(400, 401, 404),
    ),
    Operation(
        "GET",
        "/v1/generations",
        "List generations, newest first",
        GenerationList,
        parameters=("session_id", "limit"),
        errors=(400, 401, 503),
    ),
    Operation(
        "GET",
        "/v1/generations/{id}",
        "The state of a generation",
        GenerationState,
        parameters=("id",),
        errors=_FIND,
    ),
    Operation(
        "GET",
        "/v1/generations/{id}/events",
        "The events of a generation, from any cursor",
        None,
        None,
        True,
        ("id", "after", "format", "token", "Last-Event-ID", "X-Stream-Events"),
        (*_FIND, 406),
    ),
    Operation(
        "POST",
        "/v1/generations/{id}/prompts",
        "Add a message to a running generation",
        AddedPrompts,
        PromptBody,
        parameters=("id",),
        errors=(400, 401, 403, 404, 409, 410, 413, 415, 429, 503),
    ),
    Operation(
        "POST",
        "/v1/generations/{id}/token",
        "A token with which a page may read a generation's events for an hour",
        TokenGiven,
        parameters=("id",),
        errors=_FIND,
    ),
    Operation(
        "POST",
        "/v1/generations/{id}/cancel",
        "End a generation",
        GenerationState,
        parameters=("id",),
        errors=_FIND,
    ),
    Operation(
        "POST",
        "/v1/abort",
        "End the generations that carry an abort token",
        Aborted,
        AbortBody,
        False,
        ("X-Abort-Token",),
        (400, 401, 413, 415),
    ),
    Operation(
        "POST",
        "/v1/files",
        "Send a file; it is streamed, however long it is",
        FileObject,
        bytes,
        errors=(400, *_KEPT, 409, 413, 415, 499),
    ),
    Operation(
        "GET",
        "/v1/files",
        "List the files",
        FileList,
        parameters=("purpose", "files", "order", "item"),
        errors=(400, *_KEPT),
    ),
    Operation("GET", "/v1/files/{file}", "A file", FileObject, parameters=("file",), errors=_KEPT),
    Operation(
        "DELETE",
        "/v1/files/{file}",
        "Forget a file",
        FileDeleted,
        parameters=("file",),
        errors=(*_KEPT, 409),
    ),
    Operation(
        "GET",
        "/v1/files/{file}/content",
        "What is in a file",
        bytes,
        parameters=("file",),
        errors=_KEPT,
    ),
    Operation(
        "POST",
        "/v1/batches",
        "Run the requests of a file, without a client",
        BatchObject,
        BatchBody,
        errors=(400, *_KEPT, 406, 409, 413, 415),
    ),
    Operation(
        "GET",
        "/v1/batches",
        "List the batches, newest first",
        BatchList,
        parameters=("limit", "item"),
        errors=(400, *_KEPT),
    ),
    Operation(
        "GET",
        "/v1/batches/{batch}",
        "A batch",
        BatchObject,
        parameters=("batch",),
        errors=_KEPT,
    ),
    Operation(
        "POST",
        "/v1/batches/{batch}/cancel",
        "Stop a batch; what it has so far is left",
        BatchObject,
        parameters=("batch",),
        errors=(*_KEPT, 409),
    ),
    Operation("GET", "/livez", "Is the process up?", Health),
    Operation("GET", "/ping", "Is the process up?", Health),
    Operation("GET", "/readyz", "Can a model serve?", Health),
    Operation("GET", "/health", "Can a model serve?", Health),
    Operation("GET", "/version", "The version", Version),
    Operation(
        "GET", "/metrics", "Figures, as text or as JSON by Accept", str, errors=(401, 403, 404)
    ),
    Operation("GET", "/admin/keys", "List the keys, without what they are", KeyList, errors=_ADMIN),
    Operation("POST", "/admin/keys", "A new key, shown this once", NewKey, KeyBody, errors=_CHANGE),
    Operation(
        "DELETE",
        "/admin/keys/{key_id}",
        "Revoke a key",
        Key,
        parameters=("key_id",),
        errors=(*_ADMIN, 409),
    ),
    Operation("GET", "/admin/tenants", "List the tenants", TenantList, errors=_ADMIN),
    Operation(
        "GET",
        "/admin/tenants/{tenant}",
        "A tenant's terms",
        Tenant,
        parameters=("tenant",),
        errors=_ADMIN,
    ),
    Operation(
        "PUT",
        "/admin/tenants/{tenant}",
        "Give a tenant terms, whatever the settings say",
        Tenant,
        TermsBody,
        parameters=("tenant",),
        errors=_CHANGE,
    ),
    Operation(
        "DELETE",
        "/admin/tenants/{tenant}",
        "Take them away: what the settings say counts again",
        Tenant,
        parameters=("tenant",),
        errors=_ADMIN,
    ),
    Operation(
        "POST",
        "/admin/reload",
        "Read the settings again",
        ReloadState,
        errors=(*_ADMIN, 422),
    ),
    Operation("GET", "/admin/models", "Which models are loaded", ModelStates, errors=(401, 403)),
    Operation(
        "POST",
        "/admin/models/load",
        "Load a model that takes tensors",
        ModelStates,
        ModelBody,
        errors=_LOAD,
    ),
    Operation(
        "POST",
        "/admin/models/unload",
        "Unload it, until it is loaded again",
        ModelStates,
        ModelBody,
        errors=_LOAD,
    ),
    Operation("GET", "/openapi.json", "This document", dict),
)


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
        content[NDJSON_TYPE] = {"schema": _TEXT}
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
