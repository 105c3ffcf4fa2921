"""Requests as OpenAI-compatible engines want them."""

from __future__ import annotations

from typing import Any

import msgspec

from headrace.domain.delta import Prefix
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Message, Request, Sampling
from headrace.engines.base import refuse_extra, unsupported
from headrace.engines.dialect import Dialect

_SAME_NAME = ("temperature", "top_p", "seed", "presence_penalty", "frequency_penalty", "logit_bias")
_encode = msgspec.json.Encoder().encode


class Asking(msgspec.Struct, frozen=True):
    """How one upstream is asked: under which ``model`` name, in which dialect. ``max_tokens_field``:
    OpenAI's reasoning models want ``max_completion_tokens``. ``extra`` goes into every body."""

    model: str
    dialect: Dialect
    max_tokens_field: str = "max_tokens"
    stream_usage: bool = True
    extra: dict[str, Any] = {}

    def check(self, request: Request) -> None:
        """Raise ``UNSUPPORTED`` for what this upstream cannot be asked."""
        for name in ("top_k", "min_p", "repeat_penalty", "ignore_eos"):
            asked = getattr(request.sampling, name)
            if asked is not None and asked is not False and name not in self.dialect.extensions:
                raise unsupported(name, f"This model's engine has no option {name!r}.")
        if len({isinstance(prompt, str) for prompt in request.prompts}) > 1:
            raise unsupported("prompt", "This model's engine takes texts or token ids, not both.")
        refuse_extra(request, self.dialect.extra)

    def body(self, request: Request, stream: bool, more: dict[str, Any] | None = None) -> bytes:
        """A request from its beginning, all its choices. ``more``: fields that it has besides."""
        fields = self._fields(request, stream)
        if more:
            fields |= more
        if request.kind == "chat":
            fields["messages"] = request.messages
        else:
            prompts = request.prompts
            fields["prompt"] = prompts[0] if len(prompts) == 1 else prompts
        return _encode(fields)

    def continuation(self, request: Request, index: int, prefix: Prefix, stream: bool) -> bytes:
        """One choice of a request, from where it stopped. Raises ``NOT_CONTINUABLE``."""
        fields = self._fields(request, stream)
        fields.pop("n", None)
        fields.pop("echo", None)
        left = tokens_left(request.sampling, prefix)
        if left is not None:
            fields[self.max_tokens_field] = left
        if request.kind == "chat":
            self._prefill(fields, request, prefix)
        else:
            fields["prompt"] = _after(request, request.prompts[index // request.sampling.n], prefix)
        return _encode(fields)

    def _prefill(self, fields: dict[str, Any], request: Request, prefix: Prefix) -> None:
        if prefix.text:
            unfinished = Message("assistant", prefix.text)
            fields["messages"] = (*request.messages, unfinished)
            fields["continue_final_message"] = True
            fields["add_generation_prompt"] = False
        else:
            fields["messages"] = request.messages

    def _fields(self, request: Request, stream: bool) -> dict[str, Any]:
        sampling = request.sampling
        fields: dict[str, Any] = {"model": self.model}
        if stream:
            fields["stream"] = True
            if self.stream_usage:
                fields["stream_options"] = {"include_usage": True}
            if self.dialect.token_ids:
                fields["return_token_ids"] = True
        self._sampling(fields, sampling)
        if sampling.logprobs is not None:
            _logprobs(fields, request.kind == "chat", sampling.logprobs)
        _options(fields, request)
        if self.extra:
            fields |= self.extra
        if request.extra:
            fields |= request.extra
        return fields

    def _sampling(self, fields: dict[str, Any], sampling: Sampling) -> None:
        if sampling.max_tokens is not None:
            fields[self.max_tokens_field] = sampling.max_tokens
        for name in _SAME_NAME:
            value = getattr(sampling, name)
            if value is not None:
                fields[name] = value
        for name, theirs in self.dialect.extensions.items():
            value = getattr(sampling, name)
            if value is not None and value is not False:
                fields[theirs] = value
        if sampling.stop:
            fields["stop"] = sampling.stop
        if sampling.n > 1:
            fields["n"] = sampling.n


def _logprobs(fields: dict[str, Any], chat: bool, alternatives: int) -> None:
    if chat:
        fields["logprobs"] = True
        if alternatives:
            fields["top_logprobs"] = alternatives
    else:
        fields["logprobs"] = alternatives


def _options(fields: dict[str, Any], request: Request) -> None:
    if request.echo:
        fields["echo"] = True
    for name in ("tools", "tool_choice", "parallel_tool_calls", "response_format", "user"):
        value = getattr(request, name)
        if value is not None:
            fields[name] = value


def tokens_left(sampling: Sampling, prefix: Prefix) -> int | None:
    """How many tokens a continued choice may still produce; None: as many as the model likes."""
    if sampling.max_tokens is None:
        return None
    return sampling.max_tokens - max(prefix.tokens, len(prefix.token_ids))


def _after(
    request: Request, prompt: str | tuple[int, ...], prefix: Prefix
) -> str | tuple[int, ...]:
    """A prompt and what followed it. An echoed prompt is in the prefix's text already."""
    if isinstance(prompt, tuple):
        if prefix.text and not prefix.token_ids:
            why = "The prompt is token ids, but the engine did not say those of its answer."
            raise HeadraceError(Code.NOT_CONTINUABLE, why)
        return (*prompt, *prefix.token_ids)
    echoed = request.echo and prefix.text.startswith(prompt)
    return prefix.text if echoed else prompt + prefix.text


def check_continuable(request: Request, dialect: Dialect) -> None:
    """Raise ``NOT_CONTINUABLE`` for what cannot go on from its text in this dialect."""
    if request.tools or (request.response_format or {}).get("type", "text") != "text":
        why = (
            "A generation with tools or a schema cannot go on at this engine: the grammar restarts."
        )
    elif request.kind == "chat" and not dialect.prefill:
        why = "This engine cannot go on from the beginning of an answer."
    else:
        return
    raise HeadraceError(Code.NOT_CONTINUABLE, why)
