"""From a decoded request to the generation that answers it: one that begins, or the one that it is a repeat of."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from headrace.domain.errors import HeadraceError
from headrace.domain.request import Caller, Request
from headrace.protocols.openai_request import renamed
from headrace.protocols.pending import Pending
from headrace.protocols.port import Generation, Service


class Asked(NamedTuple):
    """What the service is asked: the request, whose it is, and in which format it is answered. ``names``: of the
    client's options, by ours, where they differ."""

    request: Request
    caller: Caller
    wire: str
    options: dict[str, Any]
    names: Mapping[str, str] = {}


def submit(service: Service, asked: Asked, then: Callable[[Generation], None]) -> Pending | None:
    """Begin, and go on with ``then``; what is returned waits where there may be a generation already. Raises as
    the service does, and what ``then`` raises."""
    request, caller, wire, options, names = asked
    if service.joins(request, caller):
        return _join(service, asked, then)
    try:
        generation = service.submit(request, caller, wire, options)
    except HeadraceError as error:
        raise renamed(error, names) from None
    then(generation)
    return None


async def submitted(service: Service, asked: Asked) -> Generation:
    """The same for who can wait."""
    request, caller, wire, options, names = asked
    try:
        if service.joins(request, caller):
            return await service.submit_once(request, caller, wire, options)
        return service.submit(request, caller, wire, options)
    except HeadraceError as error:
        raise renamed(error, names) from None


async def _join(service: Service, asked: Asked, then: Callable[[Generation], None]) -> None:
    then(await submitted(service, asked))
