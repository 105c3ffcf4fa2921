"""What OpenAI-compatible engines send, typed as far as we read it, and folded into deltas.

One decode an event, and a second one where plain text ends (:mod:`headrace.engines.plain`). A whole
answer and a chunk of a stream have the same form but for ``message`` in place of ``delta``, so both are
folded by the same code.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import FinishReason, TokenLogprob, ToolCallDelta, Usage
from headrace.engines.faults import broken_off
from headrace.engines.plain import UNREADABLE, Counted, decode_plain_event


class Function(msgspec.Struct, gc=False):
    name: str | None = None
    arguments: str | None = None


class ToolCall(msgspec.Struct, gc=False):
    index: int | None = None
    id: str | None = None
    function: Function | None = None


class Content(msgspec.Struct, gc=False):
    """A ``delta`` or a ``message``. vLLM calls reasoning ``reasoning``, others ``reasoning_content``."""

    content: str | None = None
    reasoning_content: str | None = None
    reasoning: str | None = None
    refusal: str | None = None
    tool_calls: list[ToolCall] | None = None


class Alternative(msgspec.Struct, gc=False):
    token: str
    logprob: float
    bytes: tuple[int, ...] | None = None


class TokenProbability(msgspec.Struct, gc=False):
    token: str
    logprob: float | None = None
    bytes: tuple[int, ...] | None = None
    top_logprobs: list[Alternative] | None = None


class Probabilities(msgspec.Struct, gc=False):
    """``content`` in chat answers; the three lists in completions."""

    content: list[TokenProbability] | None = None
    tokens: list[str] | None = None
    token_logprobs: list[float | None] | None = None
    top_logprobs: list[dict[str, float] | None] | None = None


class Choice(msgspec.Struct, gc=False):
    """vLLM calls the stop string that ended it ``stop_reason``, SGLang ``matched_stop``; a number is a token."""

    index: int = 0
    delta: Content | None = None
    message: Content | None = None
    text: str | None = None
    finish_reason: str | None = None
    logprobs: Probabilities | None = None
    token_ids: tuple[int, ...] | None = None
    stop_reason: Any = None
    matched_stop: Any = None


class Progress(msgspec.Struct, gc=False):
    """Of llama.cpp: tokens of the prompt that are computed."""

    processed: int = 0
    total: int = 0


class Chunk(msgspec.Struct, gc=False):
    """``prompt_token_ids``: of vLLM, in the first chunk."""

    choices: list[Choice] = []
    usage: Counted | None = None
    error: Any = None
    prompt_token_ids: list[int] | None = None
    prompt_progress: Progress | None = None


_REASONS: dict[str, FinishReason] = {
    "stop": "stop",
    "length": "length",
    "tool_calls": "tool_calls",
    "function_call": "tool_calls",
    "content_filter": "content_filter",
}
_FAILURES = frozenset({"abort", "error"})
"""Finish reasons with which vLLM and SGLang say that they gave up."""
_decode = msgspec.json.Decoder(Chunk).decode


class ChatFold(msgspec.Struct, gc=False):
    """Folds the chunks of one upstream stream. Its choices have the indices from ``first_index`` on.
    ``on_prompt`` is told how many tokens of the prompt are computed, and of how many, where that is said before any
    output.
    ``stop``: the stop string that ended choice 0. ``_plain``: the next is probably plain text."""

    first_index: int
    on_prompt: Callable[[int, int], None] | None = None
    reasons: dict[int, FinishReason] = {}
    stop: str | None = None
    _plain: bool = False
    _pieces: int = 0
    _counted: Counted | None = None

    def take(self, payloads: Sequence[bytes], deltas: list[Delta]) -> bool:
        """Events; True: the last was among them. Raises what the upstream reported, and
        ``ENGINE_FAILED`` for what is no event. Hot: one frame for all of a read."""
        for payload in payloads:
            if self._plain:
                try:
                    (piece,) = decode_plain_event(payload).choices
                except UNREADABLE:
                    self._plain = False
                else:
                    text, ids = piece.delta.content, piece.token_ids
                    if text or ids:
                        self._pieces += 1
                        index = self.first_index + piece.index
                        deltas.append(Delta(text or "", index, ids or ()))
                    continue
            if self._take(payload, deltas):
                return True
        return False

    def usage(self) -> Usage:
        """What the upstream counted; else an estimate: one token a piece of output, prompt unknown."""
        counted = self._counted
        return Usage(0, self._pieces, 0) if counted is None else counted.usage()

    def _take(self, payload: bytes, deltas: list[Delta]) -> bool:
        """One event of any kind."""
        if payload == b"[DONE]":
            return True
        try:
            chunk = _decode(payload)
        except UNREADABLE as error:
            raise _no_event(error) from None
        if chunk.error is not None:
            raise broken_off(chunk.error)
        if chunk.usage is not None:
            self._counted = chunk.usage
        if self.on_prompt is not None and chunk.choices and not self._pieces:
            self._tell_prompt(chunk, self.on_prompt)
        for choice in chunk.choices:
            content = choice.delta or choice.message
            if (
                content is None
                or choice.logprobs is not None
                or choice.text
                or content.tool_calls
                or content.reasoning_content
                or content.reasoning
                or content.refusal
            ):
                self._take_more(choice, content, deltas)
            else:
                text, ids = content.content, choice.token_ids
                if text or ids:
                    # One plain event follows another; to be wrong costs an exception.
                    self._plain = chunk.usage is None and len(chunk.choices) == 1
                    self._pieces += 1
                    deltas.append(Delta(text or "", self.first_index + choice.index, ids or ()))
            word = choice.finish_reason
            if word:
                reason = _REASONS.get(word) or _unusual_reason(word)
                index = self.first_index + choice.index
                self.reasons[index] = reason
                stop = choice.stop_reason or choice.matched_stop
                if index == 0 and reason == "stop" and isinstance(stop, str):
                    self.stop = stop
        return False

    def _tell_prompt(self, chunk: Chunk, on_prompt: Callable[[int, int], None]) -> None:
        progress, usage = chunk.prompt_progress, chunk.usage
        if progress is not None:
            on_prompt(progress.processed, progress.total)
        elif chunk.prompt_token_ids:
            on_prompt(len(chunk.prompt_token_ids), len(chunk.prompt_token_ids))
        elif usage is not None and usage.prompt_tokens:
            on_prompt(usage.prompt_tokens, usage.prompt_tokens)

    def _take_more(self, choice: Choice, content: Content | None, deltas: list[Delta]) -> None:
        """A choice with anything besides text and token ids, or in the form of completions."""
        index = self.first_index + choice.index
        text = choice.text or (content.content or content.refusal if content else "") or ""
        ids = choice.token_ids or ()
        logprobs = probabilities(choice.logprobs) if choice.logprobs is not None else None
        if content is not None:
            reasoning = content.reasoning_content or content.reasoning
            if reasoning:
                self._pieces += 1
                deltas.append(Delta(reasoning, index, () if text else ids, True))
        calls = tool_calls(content.tool_calls) if content and content.tool_calls else None
        if text or calls or logprobs or (ids and not (content and content.reasoning_content)):
            self._pieces += 1
            deltas.append(Delta(text, index, ids, False, logprobs, calls))


def _no_event(error: Exception) -> HeadraceError:
    what = f"The engine sent an event that is not one of its protocol: {error}"
    return HeadraceError(Code.ENGINE_FAILED, what)


def _unusual_reason(word: str) -> FinishReason:
    if word in _FAILURES:
        raise HeadraceError(Code.ENGINE_FAILED, f"The engine gave up the request ({word}).")
    return "stop"


def tool_calls(calls: list[ToolCall]) -> tuple[ToolCallDelta, ...]:
    """Pieces of tool calls; those of a whole message have no index but their place."""
    return tuple(
        ToolCallDelta(
            place if call.index is None else call.index,
            call.id,
            call.function.name if call.function else None,
            (call.function.arguments if call.function else None) or "",
        )
        for place, call in enumerate(calls)
    )


def probabilities(found: Probabilities) -> tuple[TokenLogprob, ...] | None:
    """Token probabilities of either form; None where there are none."""
    if found.content:
        return tuple(_of_chat(token) for token in found.content)
    if not found.tokens:
        return None
    own = found.token_logprobs or []
    top = found.top_logprobs or []
    return tuple(
        TokenLogprob(
            token,
            own[at] if at < len(own) else None,
            tuple(token.encode()),
            _of_completion(top[at] if at < len(top) else None),
        )
        for at, token in enumerate(found.tokens)
    )


def _of_chat(found: TokenProbability) -> TokenLogprob:
    return TokenLogprob(
        found.token,
        found.logprob,
        _bytes(found.token, found.bytes),
        tuple((a.token, a.logprob, _bytes(a.token, a.bytes)) for a in found.top_logprobs or ()),
    )


def _of_completion(top: dict[str, float] | None) -> tuple[tuple[str, float, tuple[int, ...]], ...]:
    return tuple((token, value, tuple(token.encode())) for token, value in (top or {}).items())


def _bytes(token: str, said: tuple[int, ...] | None) -> tuple[int, ...]:
    return said if said is not None else tuple(token.encode())
