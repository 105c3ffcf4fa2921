"""A request: what a client asked for, after decoding. Protocol-neutral and validated.

It is stored with its generation, so that a restarted server can go on with it; every field
therefore is plain data that msgspec can encode.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from headrace.domain.tenant import Level
from headrace.domain.trace import Trace


class ImagePart(msgspec.Struct, frozen=True, gc=False, tag="image_url", tag_field="type"):
    """An image of a message, as OpenAI has it: ``{"type": "image_url", "image_url": {...}}``."""

    image_url: dict[str, Any]


class TextPart(msgspec.Struct, frozen=True, gc=False, tag="text", tag_field="type"):
    text: str


Part = TextPart | ImagePart


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One message of a conversation. Encoded, it is an OpenAI chat message."""

    role: Literal["system", "developer", "user", "assistant", "tool", "function"]
    content: str | list[Part] | None = None
    name: str | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_call_id: str | None = None
    reasoning_content: str | None = None

    @property
    def text(self) -> str:
        """All text of it."""
        content = self.content or ""
        if isinstance(content, str):
            return content
        return " ".join(part.text for part in content if isinstance(part, TextPart))


class Sampling(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """How tokens are chosen. ``None`` means: the model's default. ``logprobs``: how many alternatives a
    token should carry (0: only its own probability), ``None`` for no probabilities at all."""

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
    logprobs: int | None = None
    n: int = 1
    ignore_eos: bool = False


class Cap(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a limit of ours leaves of an answer: ``tokens`` of each choice. ``by``: the limit's name."""

    tokens: int
    by: str


class Request(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One inference request. ``kind`` says which of ``messages`` and ``prompts`` is used.

    ``prompts``: texts or token-id lists; each gets ``sampling.n`` choices, so choice index
    ``i`` belongs to prompt ``i // n``. ``tools``, ``tool_choice``, ``response_format`` are the OpenAI
    objects as sent. ``extra``: engine-specific options that the model's engine declared it accepts.
    ``keep``: False if nobody is to read it again some time after its end. ``goes_on``: the answer is the rest of
    the last message, which is the assistant's. ``cap``: set where a limit allows less output than was asked for.
    ``priority``: among the requests of its tenant, lower is sooner, as vLLM has it.
    """

    model: str
    kind: Literal["chat", "completion"]
    messages: tuple[Message, ...] = ()
    prompts: tuple[str | tuple[int, ...], ...] = ()
    sampling: Sampling = Sampling()
    stream: bool = False
    echo: bool = False
    tools: list[dict[str, Any]] | None = None
    tool_choice: str | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    user: str | None = None
    extra: dict[str, Any] | None = None
    keep: bool = True
    goes_on: bool = False
    priority: int = 0
    cap: Cap | None = None

    @property
    def choices(self) -> int:
        """How many answers this request has."""
        if self.kind == "chat":
            return self.sampling.n
        return self.sampling.n * len(self.prompts)


def capped(request: Request) -> Request:
    """The request as an engine gets it: its cap, if it has one, is its ``max_tokens``."""
    if request.cap is None:
        return request
    replace = msgspec.structs.replace
    return replace(request, sampling=replace(request.sampling, max_tokens=request.cap.tokens))


def less_tokens(request: Request, tokens: int) -> Request:
    """The request with so many of its ``max_tokens`` spent."""
    sampling = request.sampling
    if sampling.max_tokens is None or not tokens:
        return request
    left = max(0, sampling.max_tokens - tokens)
    replace = msgspec.structs.replace
    return replace(request, sampling=replace(sampling, max_tokens=left))


class Leaving(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What becomes of a generation whose client left (``X-On-Disconnect``): ``grace_s`` is 0 for
    *cancel*, a number of seconds for *grace*, ``None`` for *continue*."""

    grace_s: float | None = 0.0

    @property
    def durable(self) -> bool:
        """Whether the generation may go on after a restart of the server."""
        return self.grace_s is None or self.grace_s > 0


CANCEL = Leaving(0.0)
CONTINUE = Leaving(None)


class Once(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """What a request that must not be computed twice is known by. ``digest``: of what it asks for, so that
    another request with the same key shows; empty until the service has seen it."""

    key: str
    digest: bytes = b""


class Urgency(msgspec.Struct, frozen=True, gc=False, array_like=True):
    """How soon an answer is wanted. ``ttft_s``, ``tpot_s``: targets of the time to the first token and per output
    token. ``level``: what kind of request it is; one below its tenant's lets the tenant's others go ahead. ``spare``:
    it takes what nobody else wants, and gives it back."""

    ttft_s: float | None = None
    tpot_s: float | None = None
    level: Level | None = None
    spare: bool = False


class Caller(msgspec.Struct, frozen=True, gc=False):
    """Who asks: the tenant that the key named, and how this request wants to be treated. ``trace``: to which
    trace it belongs; the parent of all spans of its generation. ``retry``: which try of the same request it
    is, from 0, where its client counts them. ``key_id``: which key it was, empty for none. ``urgency``: how soon
    it wants its answer, where it says that itself."""

    tenant: str = "default"
    request_id: str = ""
    session_id: str | None = None
    abort_token: str | None = None
    leaving: Leaving = CANCEL
    exact: bool = False
    trace: Trace | None = None
    once: Once | None = None
    retry: int | None = None
    key_id: str = ""
    urgency: Urgency | None = None
