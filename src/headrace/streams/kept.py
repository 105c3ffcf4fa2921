"""``Kept``: a generation that no longer runs, as protocols see it: only its log."""

from __future__ import annotations

from typing import Any, Literal

from headrace.domain.request import Caller, Request
from headrace.streams.log import Log
from headrace.streams.reader import Reader, Subscription


class Kept:
    """The generation behind an ended log. ``reservation``: knows what its caller has left, where it is the answer to
    a request."""

    __slots__ = ("_log", "reservation")

    def __init__(self, log: Log) -> None:
        self._log = log
        self.reservation: Any = None

    @property
    def id(self) -> str:
        return self._log.id

    @property
    def created(self) -> float:
        return self._log.header.created

    @property
    def model(self) -> str:
        return self._log.header.model

    @property
    def request(self) -> Request:
        return self._log.header.request

    @property
    def caller(self) -> Caller:
        return self._log.header.caller

    @property
    def wire(self) -> str:
        return self._log.header.wire

    @property
    def wire_options(self) -> dict[str, Any]:
        return self._log.header.wire_options

    @property
    def state(self) -> Literal["finished", "failed"]:
        return "finished" if self._log.end == "finish" else "failed"

    @property
    def last_seq(self) -> int:
        return self._log.visible_seq

    def attach(self, reader: Reader, *, client: bool) -> Subscription:
        """Read from ``seq`` 1. Nobody's leaving matters any more."""
        return self._log.attach(reader)
