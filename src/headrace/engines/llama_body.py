"""Requests for llama.cpp's ``/completion``: by text or token ids, one choice each.

https://github.com/ggml-org/llama.cpp/tree/master/tools/server#post-completion-given-a-prompt-it-returns-the-predicted-completion
"""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.domain.delta import Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import ImagePart, Request, Sampling
from headrace.engines.ask import tokens_left
from headrace.engines.base import refuse_extra, unsupported
from headrace.engines.engine import Work

Prompt = str | list[str | int]
"""A text; token ids; or texts and token ids after each other."""
TurnPrompt = tuple[str | int, ...]
"""Texts and token ids after each other: a conversation with turns that are known by their ids."""

_SAME_NAME = (
    *("temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty"),
    "repeat_penalty",
)
TEMPLATE_EXTRA = frozenset({"chat_template_kwargs"})
"""Engine-specific options that shape the prompt, not the sampling."""
_encode = msgspec.json.Encoder().encode


def needs_chat(request: Request) -> bool:
    """Whether llama.cpp itself must read the answer (tool calls) or the prompt (images)."""
    return bool(request.tools) or has_images(request)


def is_whole(request: Request) -> bool:
    """Whether its answer has to be computed from its beginning: a grammar cannot begin in its middle."""
    formatted = (request.response_format or {}).get("type", "text") != "text"
    return formatted or "grammar" in (request.extra or {}) or needs_chat(request)


def has_images(request: Request) -> bool:
    """Whether a message carries an image."""
    return any(
        isinstance(part, ImagePart)
        for message in request.messages
        if isinstance(message.content, list)
        for part in message.content
    )


def check(request: Request, accepted: frozenset[str], sees: bool) -> None:
    """Raise ``UNSUPPORTED``, naming the field, for what llama.cpp lacks with this model. ``sees``: takes
    images."""
    refuse_extra(request, accepted)
    if has_images(request) and not sees:
        raise unsupported("messages", "This model does not take images.")
    kind = (request.response_format or {}).get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        raise unsupported("response_format", f"There is no response_format of type {kind!r}.")
    for token in request.sampling.logit_bias or {}:
        if not token.isdigit():
            raise unsupported("logit_bias", f"{token!r} is no token id.")
    if request.tools and request.sampling.logprobs is not None:
        raise unsupported("logprobs", "This model's engine has no logprobs beside tools.")


def prompt_with(prompt: str | TurnPrompt, prefix: Prefix) -> Prompt:
    """A prompt followed by what was already computed: by its ids where they are known."""
    if isinstance(prompt, str):
        return [prompt, *prefix.token_ids] if prefix.token_ids else prompt + prefix.text
    if prefix.text and not prefix.token_ids:
        if isinstance(prompt[-1], str):
            return [*prompt, prefix.text]
        why = "The prompt is token ids, but those of its answer are not known."
        raise HeadraceError(Code.NOT_CONTINUABLE, why)
    return [*prompt, *prefix.token_ids]


def split(prompt: Prompt) -> tuple[Prompt, tuple[int, ...]]:
    """A prompt up to its last text (it may be empty), and the ids after that."""
    if isinstance(prompt, str):
        return prompt, ()
    ids: list[int] = []
    for place in range(len(prompt) - 1, -1, -1):
        one = prompt[place]
        if isinstance(one, str):
            return (prompt[: place + 1] if place else one), tuple(reversed(ids))
        ids.append(one)
    return "", tuple(reversed(ids))


def check_prefixes(work: Work) -> None:
    """Raise ``NOT_CONTINUABLE`` for a prefix that a prompt cannot be followed by."""
    request = work.request
    if request.kind == "completion":
        for index, prefix in enumerate(work.prefixes):
            if not work.turns:
                prompt_with(request.prompts[index // request.sampling.n], prefix)


def without_echo(request: Request, prompt: str | TurnPrompt, prefix: Prefix) -> Prefix:
    """A prefix without the prompt that was echoed before it."""
    if not (request.echo and isinstance(prompt, str) and prefix.text.startswith(prompt)):
        return prefix
    return msgspec.structs.replace(prefix, text=prefix.text[len(prompt) :])


def completion(
    request: Request, index: int, prompt: Prompt, prefix: Prefix, default_tokens: int
) -> dict[str, Any]:
    """The body's fields for choice ``index``, but for the slot. Always streamed: llama.cpp looks whether
    its client is still there only when it has something for it."""
    sampling = request.sampling
    left = tokens_left(sampling, prefix)
    fields: dict[str, Any] = {
        "prompt": prompt,
        "n_predict": left if left is not None else _default_left(default_tokens, prefix),
        "stream": True,
        "return_tokens": True,
        "return_progress": True,
    }
    _sampling(fields, sampling, index)
    _format(fields, request.response_format)
    if request.extra:
        fields |= {
            name: value for name, value in request.extra.items() if name not in TEMPLATE_EXTRA
        }
    return fields


def encode(fields: dict[str, Any]) -> bytes:
    """A body."""
    return _encode(fields)


def _default_left(default_tokens: int, prefix: Prefix) -> int:
    """``-1``: until the context is full."""
    return max(1, default_tokens - len(prefix.token_ids)) if default_tokens else -1


def _sampling(fields: dict[str, Any], sampling: Sampling, index: int) -> None:
    for name in _SAME_NAME:
        value = getattr(sampling, name)
        if value is not None:
            fields[name] = value
    if sampling.seed is not None:
        fields["seed"] = (sampling.seed + index % sampling.n) & 0xFFFFFFFF
    if sampling.stop:
        fields["stop"] = sampling.stop
    if sampling.logit_bias:
        fields["logit_bias"] = [[int(token), bias] for token, bias in sampling.logit_bias.items()]
    if sampling.logprobs is not None:
        fields["n_probs"] = max(1, sampling.logprobs)
    if sampling.ignore_eos:
        fields["ignore_eos"] = True


def _format(fields: dict[str, Any], response_format: dict[str, Any] | None) -> None:
    kind = (response_format or {}).get("type", "text")
    if response_format is None or kind == "text":
        return
    named = response_format.get("json_schema") or {}
    schema = named.get("schema") if kind == "json_schema" else response_format.get("schema")
    fields["json_schema"] = schema or {"type": "object"}
