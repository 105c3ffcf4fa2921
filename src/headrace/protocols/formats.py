"""The formats in which a log can be read, by name: the name is what a log stores as its ``wire``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.anthropic_stream import AnthropicEncoder
from headrace.protocols.encoder import Encoder, Framing
from headrace.protocols.native import NativeEncoder
from headrace.protocols.openai_chat import ChatEncoder
from headrace.protocols.openai_completions import CompletionEncoder
from headrace.protocols.port import Generation
from headrace.protocols.responses_stream import ResponsesEncoder

NATIVE = "native"
OPENAI_CHAT = "openai-chat"
OPENAI_COMPLETIONS = "openai-completions"
RESPONSES = "responses"
ANTHROPIC = "anthropic"

EncoderFactory = Callable[[Generation, dict[str, Any], Framing], Encoder]

ENCODERS: dict[str, EncoderFactory] = {
    NATIVE: NativeEncoder,
    OPENAI_CHAT: ChatEncoder,
    OPENAI_COMPLETIONS: CompletionEncoder,
    RESPONSES: ResponsesEncoder,
    ANTHROPIC: AnthropicEncoder,
}


def chosen_format(asked: str | None, generation: Generation) -> tuple[str, dict[str, Any]]:
    """The format that ``?format=`` asks for, and its options: the stored ones where the log was written
    to that format, so that what was sent once is sent again byte for byte. Raises ``INVALID_REQUEST``."""
    if asked is None or asked == NATIVE:
        wire = NATIVE
    elif asked == "openai":
        wire = generation.wire
        if wire not in (OPENAI_CHAT, OPENAI_COMPLETIONS):
            wire = OPENAI_CHAT if generation.request.kind == "chat" else OPENAI_COMPLETIONS
    elif asked in ENCODERS:
        wire = asked
    else:
        known = ", ".join(["openai", *ENCODERS])
        raise HeadraceError(Code.INVALID_REQUEST, f"`format` is one of {known}.", param="format")
    return wire, generation.wire_options if wire == generation.wire else {}
