"""Anthropic's messages."""

from __future__ import annotations

from headrace.protocols.anthropic_errors import OVERLOADED, AnthropicError
from headrace.protocols.anthropic_message import MessageObject, TokenCount
from headrace.protocols.anthropic_request import CountBody, MessagesBody
from headrace.protocols.openapi.operation import COMPUTE, MESSAGES, MODEL, TOKENS, Json, Operation
from headrace.protocols.openapi.parameters import BEGIN

EXAMPLES: dict[str, Json] = {
    "MessagesBody": {"model": MODEL, "messages": MESSAGES, "max_tokens": 50},
    "CountBody": {"model": MODEL, "messages": MESSAGES},
}

OPERATIONS: tuple[Operation, ...] = (
    Operation(
        "POST",
        "/v1/messages",
        "Answer a conversation as Anthropic's API does",
        MessageObject,
        MessagesBody,
        True,
        BEGIN,
        (*COMPUTE, 409, OVERLOADED),
        AnthropicError,
    ),
    Operation(
        "POST",
        "/v1/messages/count_tokens",
        "Count the tokens of a conversation's prompt",
        TokenCount,
        CountBody,
        errors=(*TOKENS, OVERLOADED),
        error=AnthropicError,
    ),
)
