"""What OpenAI has, at its paths."""

from __future__ import annotations

from headrace.protocols.batches import BatchBody, BatchList, BatchObject
from headrace.protocols.embeddings import EmbeddingList, EmbeddingsBody
from headrace.protocols.files import FileDeleted, FileList, FileObject
from headrace.protocols.models import Model, ModelList
from headrace.protocols.openai_chat import ChatCompletion
from headrace.protocols.openai_completions import TextCompletion
from headrace.protocols.openai_request import ChatBody, CompletionBody
from headrace.protocols.openapi.operation import (
    COMPUTE,
    FIND,
    MESSAGES,
    MODEL,
    TOKENS,
    Json,
    Operation,
)
from headrace.protocols.openapi.parameters import BEGIN
from headrace.protocols.responses import Deleted, InputItems, InputTokens
from headrace.protocols.responses_object import ResponseObject
from headrace.protocols.responses_request import ResponsesBody

_KEPT = (401, 403, 404, 503)

EXAMPLES: dict[str, Json] = {
    "ChatBody": {"model": MODEL, "messages": MESSAGES, "max_tokens": 50, "stream": True},
    "CompletionBody": {"model": MODEL, "prompt": "The mill", "max_tokens": 50},
    "ResponsesBody": {"model": MODEL, "input": "Write a story.", "background": True},
    "EmbeddingsBody": {"model": "minilm", "input": ["The mill", "A headrace"]},
    "BatchBody": {
        "input_file_id": "file-01M8AMS68SQD6SFHQQYRP72VXZ",
        "endpoint": "/v1/chat/completions",
        "completion_window": "24h",
    },
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/chat/completions",
        "Answer a conversation",
        ChatCompletion,
        ChatBody,
        True,
        BEGIN,
        COMPUTE,
    ),
    Operation(
        "POST",
        "/v1/completions",
        "Complete a text",
        TextCompletion,
        CompletionBody,
        True,
        BEGIN,
        COMPUTE,
    ),
    Operation(
        "POST",
        "/v1/responses",
        "Answer as a response that can be read, followed and cancelled later",
        ResponseObject,
        ResponsesBody,
        True,
        BEGIN,
        (*COMPUTE, 409),
    ),
    Operation(
        "POST",
        "/v1/responses/input_tokens",
        "Count the tokens of a response's prompt",
        InputTokens,
        ResponsesBody,
        errors=(*TOKENS, 409, 410, 503),
    ),
    Operation(
        "GET",
        "/v1/responses/{id}",
        "A response, as it is now or as a stream",
        ResponseObject,
        None,
        True,
        ("id", "stream", "starting_after", "token", "Last-Event-ID", "X-Stream-Events"),
        (*FIND, 406),
    ),
    Operation(
        "DELETE",
        "/v1/responses/{id}",
        "Forget a response",
        Deleted,
        parameters=("id",),
        errors=FIND,
    ),
    Operation(
        "POST",
        "/v1/responses/{id}/cancel",
        "End a background response",
        ResponseObject,
        parameters=("id",),
        errors=FIND,
    ),
    Operation(
        "GET",
        "/v1/responses/{id}/input_items",
        "What a response was asked with",
        InputItems,
        parameters=("id", "limit", "order", "item"),
        errors=FIND,
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
    Operation("GET", "/v1/models", "List the models", ModelList, errors=(401,)),
    Operation("GET", "/v1/models/{id}", "One model", Model, parameters=("id",), errors=(401, 404)),
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
)
