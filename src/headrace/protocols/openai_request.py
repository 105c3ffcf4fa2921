"""The bodies of OpenAI's chat and legacy completions, and how they become a :class:`Request`.

Every field falls in one of four groups: *used*; *harmless*, which clients send and which changes nothing
here; *lacking*, known options of OpenAI that are refused with ``UNSUPPORTED`` unless they ask for the
default; and what only some engines have, as all that nobody here knows: it goes to ``Request.extra``, and the
engine takes or refuses it.
https://platform.openai.com/docs/api-reference/chat/create
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta
from msgspec.structs import astuple

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import ImagePart, Message, Request, Sampling
from headrace.protocols.body import COMPLAINTS, Body, Unknown, refuse, require_plain

MAX_STOPS = 16
MAX_PROMPTS = 128
"""Prompts of one request; each has ``n`` choices."""
MAX_TOOLS = 128
MAX_LOGIT_BIASES = 1024

Stop = Annotated[str, Meta(min_length=1)]
Stops = Annotated[list[Stop], Meta(max_length=MAX_STOPS)]
Penalty = Annotated[float, Meta(ge=-2, le=2)]
Seed = Annotated[int, Meta(ge=-(2**63), le=2**63 - 1)]
MaxTokens = Annotated[int, Meta(ge=1, le=2**31 - 1)]
TokenId = Annotated[int, Meta(ge=0, le=2**31 - 1)]
Priority = Annotated[int, Meta(ge=-1_000_000, le=1_000_000)]
Bias = Annotated[float, Meta(ge=-100, le=100)]
TokenKey = Annotated[str, Meta(pattern="^[0-9]{1,10}$")]
Name = Annotated[str, Meta(min_length=1, max_length=256)]
Identity = Annotated[str, Meta(max_length=512)]


class StreamOptions(msgspec.Struct, frozen=True, gc=False):
    """``include_obfuscation`` changes nothing: nothing is obfuscated here."""

    include_usage: bool | None = None
    include_obfuscation: bool | None = None


class SharedBody(msgspec.Struct, forbid_unknown_fields=True, kw_only=True, gc=False):
    """What both bodies have. ``top_k`` … ``ignore_eos`` are the extensions that open engines share."""

    model: Name
    stream: bool | None = None
    max_tokens: MaxTokens | None = None
    temperature: Annotated[float, Meta(ge=0, le=2)] | None = None
    top_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    session_id: Identity | None = None
    # harmless
    metadata: dict[str, str] | None = None
    # rare
    stream_options: StreamOptions | None = None
    priority: Priority | None = None
    n: Annotated[int, Meta(ge=1, le=16)] | None = None
    stop: Stop | Stops | None = None
    seed: Seed | None = None
    presence_penalty: Penalty | None = None
    frequency_penalty: Penalty | None = None
    logit_bias: Annotated[dict[TokenKey, Bias], Meta(max_length=MAX_LOGIT_BIASES)] | None = None
    user: Identity | None = None
    top_k: Annotated[int, Meta(ge=-1, le=2**31 - 1)] | None = None
    min_p: Annotated[float, Meta(ge=0, le=1)] | None = None
    repeat_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    repetition_penalty: Annotated[float, Meta(gt=0, le=10)] | None = None
    ignore_eos: bool | None = None


class ChatBody(SharedBody, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /v1/chat/completions``."""

    # rare; they follow the rare fields of both bodies, so that one look tells whether any is there
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    tools: Annotated[list[dict[str, Any]], Meta(max_length=MAX_TOOLS)] | None = None
    tool_choice: Literal["none", "auto", "required"] | dict[str, Any] | None = None
    parallel_tool_calls: bool | None = None
    response_format: dict[str, Any] | None = None
    safety_identifier: Identity | None = None
    store: bool | None = None
    # of some engines
    reasoning_effort: str | None = None
    verbosity: str | None = None
    # lacking
    modalities: list[str] | None = None
    audio: dict[str, Any] | None = None
    functions: list[dict[str, Any]] | None = None
    function_call: str | dict[str, Any] | None = None
    prediction: dict[str, Any] | None = None
    web_search_options: dict[str, Any] | None = None
    moderation: dict[str, Any] | None = None
    # not rare
    messages: Annotated[tuple[Message, ...], Meta(min_length=1)]
    max_completion_tokens: MaxTokens | None = None
    # harmless
    service_tier: str | None = None
    prompt_cache_key: str | None = None
    prompt_cache_retention: str | None = None
    prompt_cache_options: dict[str, Any] | None = None


class CompletionBody(SharedBody, forbid_unknown_fields=True, kw_only=True, gc=False):
    """``POST /v1/completions``."""

    prompt: str | Annotated[list[str | TokenId | list[TokenId]], Meta(min_length=1)] | None
    echo: bool | None = None
    logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    # lacking
    best_of: Annotated[int, Meta(ge=1)] | None = None
    suffix: str | None = None


Asked = tuple[Request, dict[str, Any], str | None]
"""A decoded body: the request, what the wire has to remember, and the body's ``session_id``, if any."""

_chat = Body(ChatBody)
_decode_chat = _chat.strict
_completion = Body(CompletionBody)

_NAMES = ChatBody.__struct_fields__
_RARE = slice(_NAMES.index("stream_options"), _NAMES.index("messages"))
"""Where a body's values have what few bodies say. All of them are None where nothing is said."""
_NOTHING_RARE = (None,) * len(_NAMES[_RARE])

_CHAT_LACKS: tuple[tuple[str, Any], ...] = (
    ("modalities", ["text"]),
    ("audio", None),
    ("functions", []),
    ("function_call", "none"),
    ("prediction", None),
    ("web_search_options", None),
    ("moderation", None),
)
"""Options that no engine here has, and the value that asks for nothing."""


def decode_chat(body: bytes) -> Asked:
    """A chat request. Raises ``INVALID_JSON``, ``INVALID_REQUEST`` and ``UNSUPPORTED``."""
    try:
        said = _decode_chat(body)
    except COMPLAINTS as complaint:
        return chat_request(*_chat.tolerate(body, complaint))
    if astuple(said)[_RARE] != _NOTHING_RARE:
        return chat_request(said, None)
    messages = said.messages
    for message in messages:
        if type(message.content) is not str or message.tool_calls is not None:
            _check_messages(messages)
            break
    max_tokens = said.max_completion_tokens or said.max_tokens
    sampling = Sampling(max_tokens, said.temperature, said.top_p)
    request = Request(said.model, "chat", messages, (), sampling, said.stream is True)
    return request, {}, said.session_id


def decode_completion(body: bytes) -> Asked:
    """A legacy completion request. Raises ``INVALID_JSON``, ``INVALID_REQUEST`` and ``UNSUPPORTED``."""
    return completion_request(*_completion.decode(body))


def chat_of(value: Unknown) -> Asked:
    """The same of a body that is decoded already."""
    return chat_request(*_chat.convert(value))


def completion_of(value: Unknown) -> Asked:
    return completion_request(*_completion.convert(value))


def chat_request(body: ChatBody, unknown: Unknown | None) -> Asked:
    """The request of any body. Raises as :func:`decode_chat` does, which knows a shorter way for most."""
    _refuse_lacking_options(body)
    _check_messages(body.messages)
    if body.tools is not None:
        _check_tools(body.tools)
    if isinstance(body.tool_choice, dict):
        _check_function(body.tool_choice, "tool_choice")
    if body.response_format is not None:
        _check_response_format(body.response_format)
    if body.top_logprobs and not body.logprobs:
        raise refuse("top_logprobs", "needs `logprobs`: true")
    logprobs = (body.top_logprobs or 0) if body.logprobs else None
    request = Request(
        model=body.model,
        kind="chat",
        messages=body.messages,
        sampling=_sampling(body, logprobs, body.max_completion_tokens or body.max_tokens),
        stream=body.stream is True,
        tools=body.tools or None,
        tool_choice=body.tool_choice,
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=body.response_format,
        user=body.safety_identifier or body.user,
        extra=engine_options(unknown, body.reasoning_effort, body.verbosity),
        keep=body.store is not False,
        priority=body.priority or 0,
    )
    return request, _wire_options(body), body.session_id


def completion_request(body: CompletionBody, unknown: Unknown | None) -> Asked:
    if body.suffix:
        raise _lacking("suffix")
    if body.best_of is not None and body.best_of != (body.n or 1):
        raise _lacking("best_of")
    request = Request(
        model=body.model,
        kind="completion",
        prompts=_prompts(body.prompt),
        sampling=_sampling(body, body.logprobs, body.max_tokens or DEFAULT_COMPLETION_TOKENS),
        stream=body.stream is True,
        echo=body.echo is True,
        user=body.user,
        extra=plain_extra(unknown),
        priority=body.priority or 0,
    )
    return request, _wire_options(body), body.session_id


DEFAULT_COMPLETION_TOKENS = 16
"""OpenAI's own default of legacy completions."""


def plain_extra(unknown: Unknown | None) -> Unknown | None:
    """Options that nobody here knows, for the engine. Raises ``INVALID_REQUEST`` for what it cannot be given."""
    if unknown is not None:
        for name, value in unknown.items():
            require_plain(value, name)
    return unknown


def engine_options(
    unknown: Unknown | None, effort: str | None, verbosity: str | None = None
) -> Unknown | None:
    """Options that only some engines have, and those that nobody here knows. Raises as :func:`plain_extra`."""
    options = plain_extra(unknown) or {}
    if effort not in (None, "none"):
        options["reasoning_effort"] = effort
    if verbosity not in (None, "medium"):
        options["verbosity"] = verbosity
    return options or None


def renamed(error: HeadraceError, names: Mapping[str, str]) -> HeadraceError:
    """An engine's refusal of an option, about the name by which the client asked for it."""
    ours = error.param
    theirs = names.get(ours or "")
    if ours is None or theirs is None:
        return error
    return HeadraceError(error.code, error.message.replace(ours, theirs), param=theirs)


def _sampling(body: SharedBody, logprobs: int | None, max_tokens: int | None) -> Sampling:
    stop = body.stop
    return Sampling(
        max_tokens,
        body.temperature,
        body.top_p,
        body.top_k,
        body.min_p,
        () if stop is None else (stop,) if isinstance(stop, str) else tuple(stop),
        body.seed,
        body.presence_penalty,
        body.frequency_penalty,
        body.repeat_penalty if body.repeat_penalty is not None else body.repetition_penalty,
        body.logit_bias or None,
        logprobs,
        body.n or 1,
        body.ignore_eos is True,
    )


def _wire_options(body: SharedBody) -> dict[str, Any]:
    options = body.stream_options
    if options is None:
        return {}
    if not body.stream:
        raise refuse("stream_options", "needs `stream`: true")
    return {"usage": True} if options.include_usage else {}


def _prompts(prompt: str | list[Any] | None) -> tuple[str | tuple[int, ...], ...]:
    if prompt is None or isinstance(prompt, str):
        return (prompt or "",)
    kinds = {type(item) for item in prompt}
    if len(kinds) > 1:
        raise refuse("prompt", "mixes texts and token ids; it is one kind of them")
    if kinds == {int}:
        return (tuple(prompt),)
    if len(prompt) > MAX_PROMPTS:
        raise refuse("prompt", f"has {len(prompt)} prompts; {MAX_PROMPTS} is the most")
    if kinds == {str}:
        return tuple(prompt)
    for position, tokens in enumerate(prompt):
        if not tokens:
            raise refuse(f"prompt[{position}]", "is empty")
    return tuple(tuple(tokens) for tokens in prompt)


def _lacking(param: str) -> Exception:
    return refuse(param, "is an option that this server lacks", Code.UNSUPPORTED)


def _refuse_lacking_options(body: ChatBody) -> None:
    for param, nothing in _CHAT_LACKS:
        value = getattr(body, param)
        if value is not None and value != nothing:
            raise _lacking(param)


def _check_messages(messages: tuple[Message, ...]) -> None:
    for position, message in enumerate(messages):
        _check_message(message, f"messages[{position}]")


def _check_message(message: Message, path: str) -> None:
    if message.content is None and message.role != "assistant":
        raise refuse(f"{path}.content", "is required")
    if isinstance(message.content, list):
        for number, part in enumerate(message.content):
            if isinstance(part, ImagePart):
                require_plain(part.image_url, f"{path}.content[{number}]")
    if message.tool_calls is not None:
        for number, call in enumerate(message.tool_calls):
            _check_tool_call(call, f"{path}.tool_calls[{number}]")


def _check_tool_call(call: dict[str, Any], path: str) -> None:
    _check_function(call, path)
    if not isinstance(call["function"].get("arguments", ""), str):
        raise refuse(f"{path}.function.arguments", "must be a text of JSON")


def _check_tools(tools: list[dict[str, Any]]) -> None:
    for position, tool in enumerate(tools):
        path = f"tools[{position}]"
        _check_function(tool, path)
        parameters = tool["function"].get("parameters")
        if parameters is not None and not isinstance(parameters, dict):
            raise refuse(f"{path}.function.parameters", "must be a JSON schema (an object)")


def _check_function(value: dict[str, Any], path: str) -> None:
    require_plain(value, path)
    if value.get("type") != "function":
        raise refuse(f"{path}.type", 'must be "function"', Code.UNSUPPORTED)
    function = value.get("function")
    if not isinstance(function, dict):
        raise refuse(f"{path}.function", "must be an object")
    name = function.get("name")
    if not isinstance(name, str) or not 0 < len(name) <= 256:
        raise refuse(f"{path}.function.name", "must be a text of 1 to 256 characters")


def _check_response_format(response_format: dict[str, Any]) -> None:
    require_plain(response_format, "response_format")
    kind = response_format.get("type")
    if kind in ("text", "json_object"):
        return
    if kind != "json_schema":
        raise refuse("response_format.type", "must be text, json_object or json_schema")
    wrapped = response_format.get("json_schema")
    if not isinstance(wrapped, dict):
        raise refuse("response_format.json_schema", "is required and must be an object")
    schema = wrapped.get("schema")
    if schema is not None and not isinstance(schema, dict):
        raise refuse("response_format.json_schema.schema", "must be an object")
