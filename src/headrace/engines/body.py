"""The JSON body of a request to an OpenAI-compatible engine.

A struct, not a dict: filling it in and encoding it is one call each, and what is not set is left out
by the encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import msgspec

from headrace.domain.request import Message

Prompt = str | tuple[int, ...]


class Body(msgspec.Struct, omit_defaults=True, gc=False, kw_only=True):
    """What an upstream may be asked, under the names that :class:`~headrace.domain.request.Sampling`
    has for it; :func:`body_type` makes one with the upstream's own."""

    model: str
    messages: tuple[Message, ...] | None = None
    prompt: Prompt | tuple[Prompt, ...] | None = None
    stream: bool = False
    stream_options: dict[str, bool] | None = None
    return_token_ids: bool = False
    return_progress: bool = False
    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    min_p: float | None = None
    stop: tuple[str, ...] = ()
    seed: int | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    repeat_penalty: float | None = None
    logit_bias: dict[str, float] | None = None
    ignore_eos: bool = False
    n: int = 1
    logprobs: int | None = None
    top_logprobs: int | None = None
    echo: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None
    continue_final_message: bool = False
    add_generation_prompt: bool = True


def body_type(names: Mapping[str, str]) -> type[Body]:
    """A :class:`Body` that is encoded under other ``names``: ours, and the upstream's.

    Raises :class:`ValueError` for two fields of one name."""
    fields = msgspec.structs.fields(Body)
    again: list[Any] = [
        (field.name, field.type) if field.required else (field.name, field.type, field.default)
        for field in fields
    ]
    # msgspec renames only what a class itself defines, so all fields are defined again.
    named = msgspec.defstruct("NamedBody", again, bases=(Body,), rename=dict(names), kw_only=True)
    return cast(type[Body], named)
