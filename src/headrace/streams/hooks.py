"""``BaseHook`` to derive hooks from, and ``HookChain``: all hooks of the server as one.

A hook is user code. With ``on_error = "fail"`` its exception ends the generation with ``hook_failed``,
naming the hook. With ``"skip"`` it is bypassed for the rest of that generation: what it was given in
the failing call passes unchanged, what it held back before is asked for once with ``on_finish``, and
one line in the log tells. So ``on_token`` should raise before it takes the deltas, not after.
Raising ``HOOK_REFUSED`` is a decision, not a failure: it ends the generation under either policy.

Where no hook awaits, the chain answers at once. What has to wait or has gone wrong is a *flow*: a
generator that yields awaitables and returns deltas, run by :func:`_run`.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Generator, Sequence
from functools import partial
from inspect import isawaitable, iscoroutinefunction
from typing import Any

from headrace.domain.delta import Delta
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Error, Finish
from headrace.domain.request import Message
from headrace.streams.hook import HookContext
from headrace.streams.hook_loading import LoadedHook, OnError, load_hooks

__all__ = ["BaseHook", "HookChain", "LoadedHook", "load_hooks"]

_logger = logging.getLogger("headrace.streams")

_Flow = Generator[Awaitable[Any], Any, Any]
_End = Finish | Error
_Which = Callable[["_Link", HookContext], Callable[[], Any] | None]
"""A link's method that says what it holds back; None where it has none."""
_PLAIN = (list, tuple)


class BaseHook:
    """A hook that does nothing: override what you need, as ``def`` or ``async def``."""

    def on_start(self, context: HookContext) -> None | Awaitable[None]:
        return None

    def on_token(
        self, context: HookContext, deltas: Sequence[Delta]
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        return deltas

    def on_prompt(
        self, context: HookContext, messages: Sequence[Message]
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        return messages

    def on_turn_end(self, context: HookContext) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        return ()

    def on_finish(
        self, context: HookContext, end: Finish | Error
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        return ()


def _method(hook: object, name: str) -> Callable[..., Any] | None:
    """The hook's method, None where it does not override the base class's no-op."""
    own = getattr(type(hook), name, None)
    if own is None or own is getattr(BaseHook, name):
        return None
    method: Callable[..., Any] = getattr(hook, name)
    return method


class _Link:
    """One hook in the chain: its name, its policy, and the methods it really has."""

    __slots__ = ("finish", "name", "on_error", "prompt", "start", "token", "turn_end")

    def __init__(self, loaded: LoadedHook) -> None:
        self.name = loaded.name
        self.on_error: OnError = loaded.on_error
        self.start = _method(loaded.hook, "on_start")
        self.token = _method(loaded.hook, "on_token")
        self.prompt = _method(loaded.hook, "on_prompt")
        self.turn_end = _method(loaded.hook, "on_turn_end")
        self.finish = _method(loaded.hook, "on_finish")


class HookChain:
    """The hooks in their order. ``is_async``: some method of a generation's output is a coroutine function."""

    def __init__(self, hooks: Sequence[LoadedHook]) -> None:
        self._links = tuple(_Link(hook) for hook in hooks)
        self._start = tuple((link, link.start) for link in self._links if link.start is not None)
        self._token = tuple(link.token for link in self._links if link.token is not None)
        self._finish = tuple(link.finish for link in self._links if link.finish is not None)
        self.is_async = any(
            iscoroutinefunction(method)
            for link in self._links
            for method in (link.start, link.token, link.turn_end, link.finish)
        )

    def __len__(self) -> int:
        return len(self._links)

    def on_start(self, context: HookContext) -> Awaitable[None] | None:
        """Ask every hook. Raises ``HOOK_REFUSED`` or ``HOOK_FAILED``, here or when awaited."""
        if not self._start:
            return None
        for position, (link, start) in enumerate(self._start):
            try:
                answer = start(context)
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                _bypass(link, context, error)
                continue
            if answer is not None and isawaitable(answer):
                waiting: Awaitable[None] = _run(_start(answer, context, self._start[position:]))
                return waiting
        return None

    def on_token(
        self, context: HookContext, deltas: Sequence[Delta]
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """Pass deltas through every hook. Raises ``HOOK_REFUSED`` or ``HOOK_FAILED``, here or when awaited."""
        if context.bypassed is not None:
            return _out(_pass(_nothing(deltas), context, self._tokens_from(0)))
        for token in self._token:
            try:
                answer = token(context, deltas)
                if answer is deltas and answer:
                    continue
                waits = type(answer) not in _PLAIN and isawaitable(answer)
                if not waits and type(answer) not in _PLAIN:
                    answer = tuple(answer or ())  # of a generator, which runs only here
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                link, *rest = self._tokens_from(self._token.index(token))
                return _out(_pass(_skip(link, context, deltas, error), context, rest))
            if waits:
                link, *rest = self._tokens_from(self._token.index(token))
                return _out(_pass(_settle(link, context, deltas, answer), context, rest))
            if not answer:
                return ()
            deltas = answer
        return deltas

    @property
    def rewrites(self) -> bool:
        """Whether some hook has ``on_prompt``."""
        return any(link.prompt is not None for link in self._links)

    def on_prompt(
        self, context: HookContext, messages: Sequence[Message]
    ) -> Sequence[Message] | Awaitable[Sequence[Message]]:
        """Pass messages through every hook. Raises ``HOOK_REFUSED`` or ``HOOK_FAILED``, here or when awaited."""
        links = [link for link in self._links if link.prompt is not None]
        rewritten: Sequence[Message] | Awaitable[Sequence[Message]] = _run(
            _prompt(messages, context, links)
        )
        return rewritten

    def on_turn_end(self, context: HookContext) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """What hooks held back, as in :meth:`on_finish`. Raises like :meth:`on_token`."""
        return _out(_rest((), context, self._links, _ends_turn))

    def on_finish(
        self, context: HookContext, end: _End
    ) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
        """What hooks held back, each one's passed through those behind it. Raises like :meth:`on_token`."""
        for finish in self._finish:
            if context.bypassed is not None and _bypassed(self._finishing(finish), context):
                continue
            try:
                answer = finish(context, end)
            except Exception as error:  # noqa: BLE001 - user code may raise anything
                _lose(self._finishing(finish), context, error)
                continue
            if answer or (type(answer) not in _PLAIN and isawaitable(answer)):
                links = self._links[self._links.index(self._finishing(finish)) :]
                return _out(_finish(answer, context, end, links))
        return ()

    # The links behind the methods; looked for only where something has to wait or has gone wrong.

    def _tokens_from(self, position: int) -> list[_Link]:
        return [link for link in self._links if link.token is not None][position:]

    def _finishing(self, finish: Callable[..., Any]) -> _Link:
        return next(link for link in self._links if link.finish is finish)


def _out(flow: _Flow) -> Sequence[Delta] | Awaitable[Sequence[Delta]]:
    out: Sequence[Delta] | Awaitable[Sequence[Delta]] = _run(flow)
    return out


def _run(flow: _Flow) -> Any:
    """The flow's result, or an awaitable of it if it has to wait."""
    try:
        waiting = next(flow)
    except StopIteration as stop:
        return stop.value
    return _run_on(flow, waiting)


async def _run_on(flow: _Flow, waiting: Awaitable[Any]) -> Any:
    try:
        while True:
            try:
                answer = await waiting
            except Exception as error:  # noqa: BLE001 - the flow judges it
                waiting = flow.throw(error)
            else:
                waiting = flow.send(answer)
    except StopIteration as stop:
        return stop.value


def _start(
    answer: Any, context: HookContext, links: Sequence[tuple[_Link, Callable[..., Any]]]
) -> _Flow:
    """From the link that has to be waited for, with its ``answer``, on."""
    for position, (link, start) in enumerate(links):
        try:
            if position:
                answer = start(context)
            if answer is not None and isawaitable(answer):
                yield answer
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            _bypass(link, context, error)


def _pass(first: _Flow, context: HookContext, links: Sequence[_Link]) -> _Flow:
    deltas = yield from first
    for link in links:
        if deltas and not _bypassed(link, context):
            deltas = yield from _token(link, context, deltas)
    return deltas


def _finish(answer: Any, context: HookContext, end: _End, links: Sequence[_Link]) -> _Flow:
    """From the first link that has an ``answer`` on: what it held back passes through those behind it."""
    held: Sequence[Delta] = yield from _settle_last(links[0], context, answer)
    return (yield from _rest(held, context, links[1:], partial(_finishes, end)))


def _rest(
    held: Sequence[Delta], context: HookContext, links: Sequence[_Link], which: _Which
) -> _Flow:
    """``held`` and what each of these links holds back, through those behind it; ``which`` asks a link."""
    for link in links:
        if _bypassed(link, context):
            continue
        if held and link.token is not None:
            held = yield from _token(link, context, held)
        method = which(link, context)
        if method is not None and not _bypassed(link, context):
            rest = yield from _last_words(link, context, method)
            held = [*held, *rest] if held else rest
    return held


def _prompt(messages: Sequence[Message], context: HookContext, links: Sequence[_Link]) -> _Flow:
    for link in links:
        if not messages or _bypassed(link, context):
            continue
        assert link.prompt is not None
        try:
            answer = link.prompt(context, messages)
            if type(answer) not in _PLAIN and isawaitable(answer):
                answer = yield answer
        except Exception as error:
            _judge(link, context, error)
            _logger.error(
                "hook %s failed at a prompt of %s", link.name, context.generation, exc_info=error
            )
            continue
        messages = answer
    return messages


def _nothing(deltas: Sequence[Delta]) -> _Flow:
    yield from ()
    return deltas


def _token(link: _Link, context: HookContext, deltas: Sequence[Delta]) -> _Flow:
    if link.token is None:
        return deltas
    try:
        answer = link.token(context, deltas)
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        return (yield from _skip(link, context, deltas, error))
    return (yield from _settle(link, context, deltas, answer))


def _settle(link: _Link, context: HookContext, deltas: Sequence[Delta], answer: Any) -> _Flow:
    """The answer of ``on_token``, waited for if it is an awaitable."""
    if type(answer) in _PLAIN or not isawaitable(answer):
        return answer
    try:
        return (yield answer)
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        return (yield from _skip(link, context, deltas, error))


def _skip(link: _Link, context: HookContext, deltas: Sequence[Delta], error: Exception) -> _Flow:
    """After a failure that the policy lets pass: what the hook held back, then what it was given."""
    _bypass(link, context, error)
    if link.finish is None:
        return deltas
    end = Error(0, 0.0, Code.HOOK_FAILED.value, f"Hook {link.name} failed.")
    held = yield from _last_words(link, context, partial(link.finish, context, end))
    return [*held, *deltas]


def _last_words(link: _Link, context: HookContext, method: Callable[[], Any]) -> _Flow:
    try:
        answer = method()
    except Exception as error:  # noqa: BLE001 - user code may raise anything
        _lose(link, context, error)
        return ()
    return (yield from _settle_last(link, context, answer))


def _settle_last(link: _Link, context: HookContext, answer: Any) -> _Flow:
    """The answer of ``on_finish``, waited for if it is an awaitable."""
    if type(answer) not in _PLAIN and isawaitable(answer):
        try:
            answer = yield answer
        except Exception as error:  # noqa: BLE001 - user code may raise anything
            _lose(link, context, error)
            return ()
    return answer or ()


def _finishes(end: _End, link: _Link, context: HookContext) -> Callable[[], Any] | None:
    return partial(link.finish, context, end) if link.finish is not None else None


def _ends_turn(link: _Link, context: HookContext) -> Callable[[], Any] | None:
    return partial(link.turn_end, context) if link.turn_end is not None else None


def _lose(link: _Link, context: HookContext, error: Exception) -> None:
    _bypass(link, context, error)
    _logger.error("hook %s: what it held back of %s is lost", link.name, context.generation)


def _bypassed(link: _Link, context: HookContext) -> bool:
    return context.bypassed is not None and link in context.bypassed


def _judge(link: _Link, context: HookContext, error: Exception) -> None:
    """Raise what an error of this hook means, unless the policy lets it pass."""
    if isinstance(error, HeadraceError) and error.code is Code.HOOK_REFUSED:
        raise error
    if link.on_error == "fail":
        # Clients are not told more than its type; who is to repair it has to know where.
        _logger.error("hook %s failed at %s", link.name, context.generation, exc_info=error)
        raise HeadraceError(
            Code.HOOK_FAILED,
            f"Hook {link.name} failed ({type(error).__name__}); the server's operator can repair it.",
        ) from error


def _bypass(link: _Link, context: HookContext, error: Exception) -> None:
    """Raise what ends the generation, or note that this hook is skipped from now on."""
    _judge(link, context, error)
    if context.bypassed is None:
        context.bypassed = set()
    context.bypassed.add(link)
    _logger.error(
        "hook %s failed and is skipped for the rest of %s",
        link.name,
        context.generation,
        exc_info=error,
    )
