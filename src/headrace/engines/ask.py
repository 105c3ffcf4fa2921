"""Requests as OpenAI-compatible engines want them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec

from headrace.domain.delta import Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Message, Request, Sampling
from headrace.engines.base import check_has_middle, refuse_extra, unsupported
from headrace.engines.body import Body, body_type
from headrace.engines.dialect import EXTENSIONS, Dialect

_encode = msgspec.json.Encoder().encode
_USAGE = {"include_usage": True}
_NOTHING: Mapping[str, Any] = MappingProxyType({})


class Asking:
    """How one upstream is asked: under which ``model`` name, in which dialect. ``max_tokens_field``:
    OpenAI's reasoning models want ``max_completion_tokens``. ``extra`` goes into every body."""

    def __init__(
        self,
        model: str,
        dialect: Dialect,
        max_tokens_field: str = "max_tokens",
        stream_usage: bool = True,
        extra: Mapping[str, Any] = _NOTHING,
    ) -> None:
        """Raises :class:`ValueError` for a ``max_tokens_field`` that is another field's name."""
        self.model = model
        self.dialect = dialect
        self._stream_usage = stream_usage
        self._extra = extra
        self._max_tokens_field = max_tokens_field
        self._body = body_type({"max_tokens": max_tokens_field, **dialect.extensions})
        self._ours = max_tokens_field == "max_tokens" and not extra
        self._beginnings = tuple(self._beginning(stream) for stream in (False, True))
        self._top_k, self._min_p, self._repeat_penalty, self._ignore_eos = (
            name in dialect.extensions for name in EXTENSIONS
        )

    def check(self, request: Request) -> None:
        """Raise ``UNSUPPORTED`` for what this upstream cannot be asked."""
        sampling = request.sampling
        # Compared by hand: this is asked of every request, and few have any of these.
        if (
            sampling.top_k is not None
            or sampling.min_p is not None
            or sampling.repeat_penalty is not None
            or sampling.ignore_eos
        ):
            self._check_extensions(sampling)
        if request.goes_on and not (self.dialect.prefill or self.dialect.goes_on):
            why = "This model's engine cannot go on from a message of the assistant."
            raise unsupported("messages", why)
        if request.prompts and len({isinstance(prompt, str) for prompt in request.prompts}) > 1:
            raise unsupported("prompt", "This model's engine takes texts or token ids, not both.")
        if request.extra:
            refuse_extra(request, self.dialect.extra)

    def _check_extensions(self, sampling: Sampling) -> None:
        for name in EXTENSIONS:
            asked = getattr(sampling, name)
            if asked is not None and asked is not False and name not in self.dialect.extensions:
                raise unsupported(name, f"This model's engine has no option {name!r}.")

    def body(self, request: Request, stream: bool, more: Mapping[str, Any] = _NOTHING) -> bytes:
        """A request from its beginning, all its choices. ``more``: fields that it has besides."""
        sampling = request.sampling
        # What nearly every request is, messages and how to sample, is encoded as it is: a body of all
        # that could be asked takes twice as long.
        if (
            self._ours
            and request.kind == "chat"
            and request.extra is None
            and request.tools is None
            and request.tool_choice is None
            and request.parallel_tool_calls is None
            and request.response_format is None
            and request.user is None
            and not request.goes_on
            and not request.priority
            and sampling.top_k is None
            and sampling.min_p is None
            and sampling.repeat_penalty is None
            and sampling.logprobs is None
            and not sampling.ignore_eos
            and not more
        ):
            options = _encode(sampling)
            end = b"," + options[1:] if options != b"{}" else b"}"
            return b"%b%b%b" % (self._beginnings[stream], _encode(request.messages), end)
        return self._any_body(request, stream, more)

    def _any_body(self, request: Request, stream: bool, more: Mapping[str, Any]) -> bytes:
        """:meth:`body`, whatever the request has."""
        body = self._filled(request, stream)
        if request.kind == "chat":
            self._converse(body, request, "")
        else:
            prompts = request.prompts
            body.prompt = prompts[0] if len(prompts) == 1 else prompts
        if self._extra or request.extra or request.priority or more:
            return self._with_extra(body, request, more)
        return _encode(body)

    def continuation(self, request: Request, index: int, prefix: Prefix, stream: bool) -> bytes:
        """One choice of a request, from where it stopped. Raises ``NOT_CONTINUABLE``."""
        body = self._filled(request, stream)
        body.n = 1
        body.echo = False
        left = tokens_left(request.sampling, prefix)
        if request.kind == "chat":
            self._converse(body, request, prefix.text)
        else:
            body.prompt = _after(request, request.prompts[index // request.sampling.n], prefix)
        return self._with_extra(
            body, request, {} if left is None else {self._max_tokens_field: left}
        )

    def _converse(self, body: Body, request: Request, said: str) -> None:
        """``said``: what the answer has already."""
        messages = request.messages
        if said and request.goes_on:
            last = msgspec.structs.replace(messages[-1], content=messages[-1].text + said)
            messages = (*messages[:-1], last)
        elif said:
            messages = (*messages, Message("assistant", said))
        body.messages = messages
        if (said or request.goes_on) and self.dialect.prefill:
            body.continue_final_message = True
            body.add_generation_prompt = False

    def _with_extra(self, body: Body, request: Request, more: Mapping[str, Any]) -> bytes:
        fields = msgspec.to_builtins(body)
        # An engine has one line for all tenants: a request may step back in it, and not ahead of others'.
        if request.priority > 0 and self.dialect.priority:
            fields["priority"] = request.priority * self.dialect.priority
        return _encode({**fields, **self._extra, **(request.extra or {}), **more})

    def _beginning(self, stream: bool) -> bytes:
        """Of every chat's body, up to its messages."""
        return _encode(self._body(**self._fixed(stream)))[:-1] + b',"messages":'

    def _fixed(self, stream: bool) -> dict[str, Any]:
        """What is the same in every body."""
        return {
            "model": self.model,
            "stream": stream,
            "stream_options": _USAGE if stream and self._stream_usage else None,
            "return_token_ids": stream and self.dialect.token_ids,
            "return_progress": stream and self.dialect.progress,
        }

    def _filled(self, request: Request, stream: bool) -> Body:
        """All but what is to be gone on from."""
        sampling = request.sampling
        body = self._body(
            **self._fixed(stream),
            max_tokens=sampling.max_tokens,
            temperature=sampling.temperature,
            top_p=sampling.top_p,
            top_k=sampling.top_k if self._top_k else None,
            min_p=sampling.min_p if self._min_p else None,
            stop=sampling.stop,
            seed=sampling.seed,
            presence_penalty=sampling.presence_penalty,
            frequency_penalty=sampling.frequency_penalty,
            repeat_penalty=sampling.repeat_penalty if self._repeat_penalty else None,
            logit_bias=sampling.logit_bias,
            ignore_eos=sampling.ignore_eos and self._ignore_eos,
            n=sampling.n,
            echo=request.echo,
            tools=request.tools,
            tool_choice=request.tool_choice,
            parallel_tool_calls=request.parallel_tool_calls,
            response_format=request.response_format,
            user=request.user,
        )
        if sampling.logprobs is not None:
            _logprobs(body, request.kind == "chat", sampling.logprobs)
        return body


def _logprobs(body: Body, chat: bool, alternatives: int) -> None:
    if chat:
        body.logprobs = True
        body.top_logprobs = alternatives or None
    else:
        body.logprobs = alternatives


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


def check_prompt(request: Request) -> None:
    """Raise ``UNSUPPORTED`` for an answer that no message can be added to in its middle."""
    check_has_middle(request)
    if request.kind == "completion" and not isinstance(request.prompts[0], str):
        raise unsupported("prompt", "Token ids take no further text at this model's engine.")


def with_turns(request: Request, turns: Sequence[Turn]) -> Request:
    """The request with what was said and added since, as if its client had sent it so."""
    if request.kind == "completion":
        added = "".join(turn.said.text + turn.message.text for turn in turns)
        return msgspec.structs.replace(request, prompts=(str(request.prompts[0]) + added,))
    messages = list(request.messages)
    for turn in turns:
        if turn.said.text:
            messages.append(Message("assistant", turn.said.text))
        messages.append(turn.message)
    return msgspec.structs.replace(request, messages=tuple(messages))


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
