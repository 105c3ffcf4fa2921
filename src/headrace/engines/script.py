"""What a scripted engine says, and when: plain data, as it stands in a JSON or TOML file."""

from __future__ import annotations

import msgspec

from headrace.domain.errors import Code
from headrace.domain.event import FinishReason
from headrace.domain.request import Request


class ScriptedCall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A piece of a tool call."""

    index: int = 0
    id: str | None = None
    name: str | None = None
    arguments: str = ""


class ScriptedToken(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One token. ``id`` 0: its place in the script, from 1. ``after_ms``: the pause before it, where it
    is not the script's. ``top``: alternatives and their log-probabilities."""

    text: str
    id: int = 0
    after_ms: float | None = None
    logprob: float = 0.0
    top: dict[str, float] = {}
    reasoning: bool = False
    tool_calls: tuple[ScriptedCall, ...] = ()


class Script(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One answer.

    ``when``: only for requests whose prompt contains this text. ``times``: for this many runs only (0:
    any number); after them the next script that fits is used. ``tokens``: what every choice says,
    ``repeat`` times over; ``choices``: what single choices say instead. ``prefill``: prompt tokens done
    so far, reported one after the other, ``prefill_ms`` apart, before the first token. ``delay_ms``:
    pause before each token. ``cached_tokens``: of the prompt, that it says a cache had. ``refuse``: a
    code with which the run fails at its start. ``fail_after``: tokens of a choice after which the run
    fails with ``fail_code``. ``hang_after``: tokens after which nothing more ever comes.
    """

    tokens: tuple[ScriptedToken | str, ...] = ()
    choices: tuple[tuple[ScriptedToken | str, ...], ...] = ()
    when: str = ""
    times: int = 0
    repeat: int = 1
    reason: FinishReason = "stop"
    delay_ms: float = 0.0
    prefill: tuple[int, ...] = ()
    prefill_ms: float = 0.0
    prompt_tokens: int | None = None
    cached_tokens: int = 0
    refuse: Code | None = None
    fail_after: int | None = None
    fail_code: Code = Code.ENGINE_FAILED
    hang_after: int | None = None

    def said_by(self, index: int) -> tuple[ScriptedToken, ...]:
        """The tokens of a choice, each with its id."""
        said = self.choices[index] if index < len(self.choices) else self.tokens
        tokens = [ScriptedToken(one) if isinstance(one, str) else one for one in said]
        return tuple(
            token if token.id else msgspec.structs.replace(token, id=place)
            for place, token in enumerate(tokens * self.repeat, 1)
        )

    def counted(self, request: Request) -> int:
        """Prompt tokens: as the script says, else the prompt's words."""
        if self.prompt_tokens is not None:
            return self.prompt_tokens
        return sum(len(text.split()) for text in prompt_texts(request))


def prompt_texts(request: Request) -> list[str]:
    """All text of a request's prompt; token ids as decimal numbers."""
    if request.kind == "chat":
        return [message.text for message in request.messages]
    return [
        prompt if isinstance(prompt, str) else " ".join(map(str, prompt))
        for prompt in request.prompts
    ]
