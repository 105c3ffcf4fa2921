"""Which handler answers a method and a path: exact paths by one look-up, the few with an id by prefix."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.ids import find_ulid
from headrace.domain.principal import Scope
from headrace.protocols.call import Call
from headrace.protocols.errors import OPENAI, Manner
from headrace.protocols.pending import Pending

Handler = Callable[[Call, str], Pending | None]
"""Answers a call; the second argument is the id in the path, if there is one. An awaitable is run as a task.
Raises :class:`HeadraceError`."""


class Route(NamedTuple):
    """``path`` may hold one ``{id}``, which is one segment (of a generation), or ``{id:path}``, which
    may have several. ``open``: needs no key. ``manner``: how it says errors. ``by_token``: a read token
    in the query does as well as a key. ``scope``: what the key must be good for."""

    method: str
    path: str
    handler: Handler
    open: bool = False
    manner: Manner = OPENAI
    by_token: bool = False
    scope: Scope = "infer"


Methods = dict[str, Route]


class WrongMethod(HeadraceError):
    """``METHOD_NOT_ALLOWED``, with what is allowed instead."""

    __slots__ = ("allow",)

    def __init__(self, method: str, allow: str) -> None:
        super().__init__(
            Code.METHOD_NOT_ALLOWED, f"{method[:20]} is not allowed here; use {allow}."
        )
        self.allow = allow


class Router:
    """Built once from all routes."""

    def __init__(self, routes: Sequence[Route]) -> None:
        self._exact: dict[str, Methods] = {}
        self._by_prefix: list[tuple[str, str, bool, Methods]] = []
        patterns: dict[str, Methods] = {}
        for route in routes:
            table = patterns if "{" in route.path else self._exact
            methods = table.setdefault(route.path, {})
            methods[route.method] = route
            if route.method == "GET":
                methods.setdefault("HEAD", route)
        for path, methods in patterns.items():
            prefix, _, tail = path.partition("{")
            name, _, suffix = tail.partition("}")
            self._by_prefix.append((prefix, suffix, name.endswith(":path"), methods))

    def find(self, method: str, path: str) -> tuple[Route, str]:
        """The route and the id in the path. Raises ``NOT_FOUND`` and :class:`WrongMethod`."""
        methods, argument = self._methods(path)
        route = methods.get(method)
        if route is not None:
            return route, argument
        if "{id}" in _any(methods).path and find_ulid(argument) is None:
            # No id, so it names an operation that others have there: POST /v1/responses/compact.
            raise HeadraceError(Code.NOT_FOUND, f"There is no {method[:20]} {path[:200]!r} here.")
        raise WrongMethod(method, _allow(methods))

    def manner(self, path: str) -> Manner:
        """How errors are said there: as by the route of that path, or the nearest above it."""
        while path:
            try:
                return _any(self._methods(path)[0]).manner
            except HeadraceError:
                path = path.rpartition("/")[0]
        return OPENAI

    def allowed(self, path: str) -> str:
        """The value of the ``Allow`` header for this path. Raises ``NOT_FOUND``."""
        return _allow(self._methods(path)[0])

    def _methods(self, path: str) -> tuple[Methods, str]:
        exact = self._exact.get(path)
        if exact is not None:
            return exact, ""
        for prefix, suffix, takes_rest, methods in self._by_prefix:
            if path.startswith(prefix) and path.endswith(suffix):
                argument = path[len(prefix) : len(path) - len(suffix)]
                if argument and (takes_rest or "/" not in argument):
                    return methods, argument
        raise HeadraceError(Code.NOT_FOUND, f"There is nothing at {path[:200]!r}.")


def _any(methods: Methods) -> Route:
    return next(iter(methods.values()))


def _allow(methods: Methods) -> str:
    return ", ".join(sorted({*methods, "OPTIONS"}))
