"""Requests as ONNX Runtime GenAI can compute them, and what it cannot."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.domain.delta import Prefix, Turn
from headrace.domain.request import Request
from headrace.engines.ask import tokens_left
from headrace.engines.base import refuse_extra, unsupported
from headrace.engines.engine import Work
from headrace.engines.genai_wire import Prompt, Start
from headrace.engines.llama_body import has_images

MISSING = ("min_p", "presence_penalty", "frequency_penalty", "logit_bias")
"""Sampling options that GenAI has not; 0 or none of it is what it does anyway."""


def check(request: Request) -> None:
    """Raise ``UNSUPPORTED``, naming the field, for what GenAI lacks."""
    sampling = request.sampling
    for name in MISSING:
        if getattr(sampling, name):
            raise unsupported(name, f"This model's engine has no option {name!r}.")
    if sampling.logprobs is not None:
        raise unsupported("logprobs", "This model's engine tells no probabilities.")
    if request.echo:
        raise unsupported("echo", "This model's engine does not repeat prompts.")
    if request.tools:
        raise unsupported("tools", "This model's engine calls no tools.")
    if has_images(request):
        raise unsupported("messages", "This model does not take images.")
    kind = (request.response_format or {}).get("type", "text")
    if kind not in ("text", "json_object", "json_schema"):
        raise unsupported("response_format", f"There is no response_format of type {kind!r}.")
    refuse_extra(request, frozenset())


def prompt(request: Request, index: int, turns: Sequence[Turn]) -> Prompt:
    """Of choice ``index``."""
    if request.kind == "chat":
        return Prompt(request.messages, goes_on=request.goes_on, turns=tuple(turns))
    return Prompt(text=request.prompts[index // request.sampling.n], turns=tuple(turns))


def start(run: int, work: Work, index: int, prefix: Prefix) -> Start | None:
    """What the process is told of choice ``index``; None: it has all its tokens. Raises ``NOT_CONTINUABLE``."""
    request = work.request
    sampling = request.sampling
    left = tokens_left(sampling, prefix)
    if left is not None and left <= 0:
        return None
    own = msgspec.structs.replace(sampling, n=1, seed=None)
    return Start(
        run,
        prompt(request, index, work.turns),
        own,
        None if sampling.seed is None else sampling.seed + index % sampling.n,
        left or 0,
        prefix if prefix.text else None,
        work.exact,
        schema(request),
    )


def schema(request: Request) -> str:
    """The schema of the JSON that the answer has to be; empty: it may be any text."""
    wanted = request.response_format or {}
    kind = wanted.get("type", "text")
    if kind == "text":
        return ""
    named = wanted.get("json_schema") or {}
    found = named.get("schema") if kind == "json_schema" else wanted.get("schema")
    return msgspec.json.encode(found or {"type": "object"}).decode()
