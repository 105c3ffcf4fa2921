"""Our own: prompts, generations and their events; tokens as llama.cpp has them."""

from __future__ import annotations

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
from headrace.protocols.models import ModelInfo
from headrace.protocols.openapi.operation import COMPUTE, FIND, TOKENS, Json, Operation
from headrace.protocols.openapi.parameters import BEGIN, CALLER
from headrace.protocols.tokenizer import DetokenizeBody, Detokenized, TokenizeBody, Tokenized

EXAMPLES: dict[str, Json] = {
    "InferBody": {"prompt": "The mill", "max_tokens": 50},
    "TokenizeBody": {"content": "The mill"},
    "DetokenizeBody": {"tokens": [504, 4889]},
    "PromptBody": {"role": "user", "content": "Shorter, please."},
    "AbortBody": {"token": "my-token"},
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST", "/tokenize", "A text as tokens", Tokenized, TokenizeBody, errors=(*TOKENS, 503)
    ),
    Operation(
        "POST",
        "/detokenize",
        "The text of tokens",
        Detokenized,
        DetokenizeBody,
        errors=(*TOKENS, 503),
    ),
    Operation("POST", "/v1/infer", "Answer a prompt", InferAnswer, InferBody, True, BEGIN, COMPUTE),
    Operation(
        "POST",
        "/v1/stream_infer",
        "Answer a prompt as a stream of events",
        None,
        InferBody,
        True,
        BEGIN,
        COMPUTE,
    ),
    Operation(
        "POST",
        "/v1/batch_infer",
        "Answer many prompts, in order",
        [InferAnswer],
        [InferBody],
        False,
        CALLER,
        (400, 401, 406, 413, 415),
    ),
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
        errors=FIND,
    ),
    Operation(
        "GET",
        "/v1/generations/{id}/events",
        "The events of a generation, from any cursor",
        None,
        None,
        True,
        ("id", "after", "format", "token", "Last-Event-ID", "X-Stream-Events"),
        (*FIND, 406),
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
        errors=FIND,
    ),
    Operation(
        "POST",
        "/v1/generations/{id}/cancel",
        "End a generation",
        GenerationState,
        parameters=("id",),
        errors=FIND,
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
)
