"""Prompts in mid-stream at llama.cpp: what was said stays the token ids it was, the rest is rendered around it.

The model's template renders the whole conversation with a mark in place of each closed turn's text; the
rendered text is split at the marks, and the ids are put there. So the beginning of the prompt is, token for
token, what the slot has in its cache.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from itertools import pairwise

from headrace.domain.delta import Prefix, Turn
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Message, Request
from headrace.engines.base import check_has_middle, unsupported
from headrace.engines.llama_body import TurnPrompt, has_images


def check(request: Request) -> None:
    """Raise ``UNSUPPORTED`` for an answer that cannot be closed in its middle."""
    check_has_middle(request)
    if "grammar" in (request.extra or {}):
        raise unsupported("grammar", "An answer with a grammar takes no prompt.")
    if has_images(request):
        raise unsupported("messages", "A conversation with images takes no prompt.")


class Marks:
    """The conversation with closed turns, for the template, and what the template made of it."""

    __slots__ = ("_marks", "_turns", "messages")

    def __init__(
        self, conversation: Sequence[Message], turns: Sequence[Turn], plain: bool = False
    ) -> None:
        """``plain``: for a template that wants a user's message and an answer in turn. What was added is the
        user's then, and joined to the message before if nothing was said between."""
        self._turns = [turn for turn in turns if turn.said.text]
        self._marks: list[str] = []
        messages = list(conversation)
        for turn in turns:
            if turn.said.text:
                mark = f"turn{secrets.token_hex(12)}"
                self._marks.append(mark)
                messages.append(Message("assistant", mark))
            added = turn.message
            if plain:
                before = messages.pop() if messages and messages[-1].role == "user" else None
                text = f"{before.text}\n\n{added.text}" if before else added.text
                added = Message("user", text)
            messages.append(added)
        self.messages = messages

    def split(self, rendered: str) -> TurnPrompt:
        """The rendered text with what was said in place of the marks. Raises ``NOT_CONTINUABLE`` if the
        template did not show each of them once, in order."""
        places = [rendered.find(mark) for mark in self._marks]
        if any(one >= two for one, two in pairwise([-1, *places])) or any(
            rendered.count(mark) != 1 for mark in self._marks
        ):
            why = "The model's chat template does not show earlier answers as they were said."
            raise HeadraceError(Code.NOT_CONTINUABLE, why)
        prompt: list[str | int] = []
        at = 0
        for turn, mark, place in zip(self._turns, self._marks, places, strict=True):
            prompt += (rendered[at:place], *_said(turn.said))
            at = place + len(mark)
        return (*prompt, rendered[at:])


def completion(prompt: str | tuple[int, ...], turns: Sequence[Turn]) -> TurnPrompt:
    """A text without turns: what was added stands in it as it came."""
    parts: list[str | int] = [prompt] if isinstance(prompt, str) else list(prompt)
    for turn in turns:
        parts += (*_said(turn.said), turn.message.text)
    return tuple(parts)


def _said(said: Prefix) -> tuple[str | int, ...]:
    if said.token_ids:
        return said.token_ids
    return (said.text,) if said.text else ()
