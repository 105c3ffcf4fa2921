"""``HookChain`` and ``load_hooks``."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from inspect import isawaitable
from typing import Any

import pytest

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Finish, Usage
from headrace.domain.request import Caller, Message, Request
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook, HookChain, LoadedHook, load_hooks

Run = Callable[[Coroutine[Any, Any, Any]], Any]
END = Finish(0, 0.0, ("stop",), Usage())


def context() -> HookContext:
    return HookContext("gen_a", Request("m", "chat"), Caller())


def chain(*hooks: BaseHook, on_error: str = "fail") -> HookChain:
    return HookChain(
        [LoadedHook(hook, type(hook).__name__, on_error) for hook in hooks]  # type: ignore[arg-type]
    )


def texts(deltas: Any) -> list[str]:
    return [delta.text for delta in deltas]


class Appends(BaseHook):
    def __init__(self, mark: str) -> None:
        self.mark = mark

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return [Delta(delta.text + self.mark) for delta in deltas]


class AppendsLater(Appends):
    async def on_token(  # type: ignore[override]
        self, context: HookContext, deltas: Sequence[Delta]
    ) -> Sequence[Delta]:
        await asyncio.sleep(0)
        return Appends.on_token(self, context, deltas)


class Yields(BaseHook):
    """Not as the protocol has it, but easily written."""

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Any:
        for delta in deltas:
            if delta.text == "bad":
                raise ValueError(delta.text)
            yield Delta(delta.text + "!")


class Empties(BaseHook):
    def on_token(self, context: HookContext, deltas: Any) -> Any:
        deltas.clear()
        return deltas


class LooksAtTheFirst(BaseHook):
    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        return [deltas[0]]


def test_a_generator_is_run_in_the_chain() -> None:
    out = chain(Yields()).on_token(context(), [Delta("a"), Delta("b")])
    assert isinstance(out, tuple)
    assert texts(out) == ["a!", "b!"]
    skipped = chain(Yields(), on_error="skip").on_token(context(), [Delta("bad")])
    assert texts(skipped) == ["bad"]


def test_who_has_nothing_left_is_the_last_of_the_chain() -> None:
    assert not chain(Empties(), LooksAtTheFirst()).on_token(context(), [Delta("a")])


class Holds(BaseHook):
    """Holds everything back until the end."""

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        context.state.setdefault("held", []).extend(deltas)
        return []

    def on_finish(self, context: HookContext, end: Finish | Error) -> Sequence[Delta]:
        return context.state.pop("held", [])  # type: ignore[no-any-return]


class Breaks(BaseHook):
    """Holds one delta back, fails at the third call."""

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        calls = context.state["calls"] = context.state.get("calls", 0) + 1
        if calls == 3:
            raise RuntimeError("broken")
        out = context.state.pop("kept", [])
        context.state["kept"] = list(deltas)
        return out  # type: ignore[no-any-return]

    def on_finish(self, context: HookContext, end: Finish | Error) -> Sequence[Delta]:
        return context.state.pop("kept", [])  # type: ignore[no-any-return]


class Refuses(BaseHook):
    def on_start(self, context: HookContext) -> None:
        raise HeadraceError(Code.HOOK_REFUSED, "not you")


class RefusesLater(BaseHook):
    async def on_start(self, context: HookContext) -> None:  # type: ignore[override]
        await asyncio.sleep(0)
        raise HeadraceError(Code.HOOK_REFUSED, "not you either")


def test_hooks_run_in_their_order_and_at_once_where_none_awaits() -> None:
    hooks = chain(Appends("1"), BaseHook(), Appends("2"))
    out = hooks.on_token(context(), [Delta("a"), Delta("b")])
    assert texts(out) == ["a12", "b12"]
    assert not hooks.is_async


def test_a_hook_that_awaits_makes_the_rest_wait_in_order(run: Run) -> None:
    hooks = chain(Appends("1"), AppendsLater("2"), Appends("3"))
    assert hooks.is_async

    async def main() -> None:
        out = hooks.on_token(context(), [Delta("a")])
        assert isawaitable(out)
        assert texts(await out) == ["a123"]

    run(main())


def test_without_a_delta_left_the_hooks_behind_are_not_asked() -> None:
    class Counts(BaseHook):
        calls = 0

        def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
            self.calls += 1
            return deltas

    counts = Counts()
    assert not chain(Holds(), counts).on_token(context(), [Delta("a")])
    assert counts.calls == 0


def test_what_a_hook_held_back_passes_the_hooks_behind_it_at_the_end(run: Run) -> None:
    hooks = chain(Holds(), Appends("!"))
    where = context()
    assert not hooks.on_token(where, [Delta("a")])
    assert texts(hooks.on_finish(where, END)) == ["a!"]

    async def main() -> None:
        later = chain(Holds(), AppendsLater("?"), Appends("!"))
        held = context()
        await _settled(later.on_token(held, [Delta("b")]))
        assert texts(await _settled(later.on_finish(held, END))) == ["b?!"]

    run(main())


async def _settled(answer: Any | Awaitable[Any]) -> Any:
    return await answer if isawaitable(answer) else answer


def test_a_refusal_at_the_start_is_passed_on_whatever_the_policy(run: Run) -> None:
    for policy in ("fail", "skip"):
        with pytest.raises(HeadraceError, match="not you") as refused:
            chain(Refuses(), on_error=policy).on_start(context())
        assert refused.value.code is Code.HOOK_REFUSED

    async def main() -> None:
        waiting = chain(BaseHook(), RefusesLater(), on_error="skip").on_start(context())
        assert waiting is not None
        await waiting

    with pytest.raises(HeadraceError, match="not you either"):
        run(main())


def test_a_failing_hook_ends_the_generation_and_is_named(caplog: pytest.LogCaptureFixture) -> None:
    where, hooks = context(), chain(Breaks())
    for text in "ab":
        hooks.on_token(where, [Delta(text)])
    with pytest.raises(HeadraceError, match="Breaks") as failed:
        hooks.on_token(where, [Delta("c")])
    assert failed.value.code is Code.HOOK_FAILED
    assert "broken" not in failed.value.message
    assert "gen_a" in caplog.text
    assert "broken" in caplog.text, "nobody hears what is wrong with it"


def test_a_failing_hook_is_skipped_for_this_generation_only_and_loses_nothing(
    caplog: pytest.LogCaptureFixture,
) -> None:
    hooks = chain(Breaks(), Appends("!"), on_error="skip")
    where, other = context(), context()
    out = [texts(hooks.on_token(where, [Delta(text)])) for text in "abcd"]
    assert out == [[], ["a!"], ["b!", "c!"], ["d!"]]
    assert hooks.on_finish(where, END) == ()
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    assert "Breaks" in caplog.text
    assert "gen_a" in caplog.text
    hooks.on_token(other, [Delta("x")])
    assert texts(hooks.on_finish(other, END)) == ["x!"]


def test_an_awaiting_hook_that_fails_is_skipped_as_well(run: Run) -> None:
    class BreaksLater(BaseHook):
        async def on_token(  # type: ignore[override]
            self, context: HookContext, deltas: Sequence[Delta]
        ) -> Sequence[Delta]:
            await asyncio.sleep(0)
            raise RuntimeError("broken")

    async def main() -> None:
        hooks, where = chain(BreaksLater(), Appends("!"), on_error="skip"), context()
        assert texts(await _settled(hooks.on_token(where, [Delta("a")]))) == ["a!"]
        assert texts(hooks.on_token(where, [Delta("b")])) == ["b!"]
        with pytest.raises(HeadraceError) as failed:
            await _settled(chain(BreaksLater()).on_token(context(), [Delta("a")]))
        assert failed.value.code is Code.HOOK_FAILED

    run(main())


def test_hooks_are_loaded_by_name_with_their_own_options() -> None:
    [audit_free, redact] = load_hooks(
        [
            {"class": "headrace.streams.hooks:BaseHook"},
            {
                "class": "headrace.streams.redact:Redact",
                "on_error": "skip",
                "patterns": ["card"],
                "replacement": "#",
            },
        ]
    )
    assert (audit_free.on_error, redact.on_error) == ("fail", "skip")
    assert redact.name == "headrace.streams.redact:Redact"
    hooks, where = HookChain([audit_free, redact]), context()
    assert not hooks.on_token(where, [Delta("4111111111111111")])
    assert texts(hooks.on_finish(where, END)) == ["#"]


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({}, "hooks[1].class: must be 'module:Class'"),
        ({"class": "json"}, "hooks[1].class: must be 'module:Class'"),
        ({"class": "no.such.module:Hook"}, "cannot import 'no.such.module'"),
        ({"class": "headrace.streams.hooks:Nothing"}, "has no 'Nothing'"),
        ({"class": "headrace.streams.hooks:BaseHook", "on_error": "cry"}, "hooks[1].on_error"),
        ({"class": "headrace.streams.hooks:BaseHook", "what": 1}, "cannot be made"),
        ({"class": "headrace.streams.redact:Redact", "patterns": ["("]}, "cannot be made"),
    ],
)
def test_a_hook_that_cannot_be_had_is_refused_by_its_place(
    spec: dict[str, Any], message: str
) -> None:
    with pytest.raises(ValueError) as refused:  # noqa: PT011 - its text is what we look at
        load_hooks([{"class": "headrace.streams.hooks:BaseHook"}, spec])
    assert message in str(refused.value)


class HoldsTurns(Holds):
    """Gives back at the end of a turn too."""

    def on_turn_end(self, context: HookContext) -> Sequence[Delta]:
        return context.state.pop("held", [])  # type: ignore[no-any-return]


def test_what_is_held_at_the_end_of_a_turn_passes_through_the_hooks_behind() -> None:
    hooks, where = chain(HoldsTurns(), BaseHook(), Appends("1")), context()
    assert not hooks.on_token(where, [Delta("a")])
    assert texts(hooks.on_turn_end(where)) == ["a1"]
    assert texts(hooks.on_turn_end(where)) == []


class BreaksAtTurns(BaseHook):
    def on_turn_end(self, context: HookContext) -> Sequence[Delta]:
        raise RuntimeError("broken")

    def on_prompt(self, context: HookContext, messages: Sequence[Message]) -> Sequence[Message]:
        raise RuntimeError("broken")


def test_a_hook_that_breaks_at_a_prompt_fails_or_is_passed_by(
    caplog: pytest.LogCaptureFixture,
) -> None:
    messages = (Message("user", "more"),)
    failing, where = chain(BreaksAtTurns()), context()
    for method in (lambda: failing.on_prompt(where, messages), lambda: failing.on_turn_end(where)):
        with pytest.raises(HeadraceError) as error:
            method()
        assert error.value.code is Code.HOOK_FAILED
    skipped = chain(BreaksAtTurns(), Appends("1"), on_error="skip")
    assert skipped.on_prompt(where, messages) == messages
    assert where.bypassed is None  # it still sees tokens
    assert "failed at a prompt" in caplog.text
    assert texts(skipped.on_turn_end(where)) == []
    assert where.bypassed
