"""A call: one RPC being answered, with what its metadata says and the way to answer it.

The wires (gRPC, gRPC-Web, Connect) differ behind :class:`Reply`; what is above cannot tell them apart.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import monotonic, time
from typing import Protocol

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.trace import Trace
from headrace.protocols.allowances import Named, openai_allowance
from headrace.protocols.grpc.status import OK, Status, status_of
from headrace.protocols.port import Reservation
from headrace.protocols.terms import Terms
from headrace.protocols.tracing import Span

_logger = logging.getLogger("headrace.protocols")

HIGH_WATER_BYTES = 64 * 1024
"""Unsent bytes of one call above which :meth:`Reply.send` says stop."""
LOW_WATER_BYTES = 16 * 1024
"""Unsent bytes at which ``on_drain`` is called."""


class Answer(Protocol):
    """A message."""

    def SerializeToString(self) -> bytes: ...


class Reply(Protocol):
    """The way to answer one RPC. Calls after the client is gone, or after ``end``, do nothing."""

    @property
    def late(self) -> bool:
        """Whether the deadline of the call has passed."""

    def watch(self, on_gone: Callable[[], None], on_drain: Callable[[], None] | None) -> None:
        """``on_gone``: called once, when the call is over: also if the client leaves or its deadline passes,
        and if others end it. ``on_drain``: called after ``send`` returned False, when most is sent."""

    def start(self, request_id: str, generation_id: str, left: Sequence[Named]) -> None:
        """The initial metadata; ``generation_id`` is empty without one. ``left``: of the caller's limits."""

    def send(self, messages: Sequence[bytes]) -> bool:
        """Messages, serialized. False: too much is unsent, nothing more until ``on_drain``."""

    def end(self, status: Status) -> None:
        """The call is over."""


class RpcCall:
    """``terms``: what its metadata says. ``certificate``: the URIs in that of its client. ``tenant``: whose key
    it had."""

    __slots__ = (
        "_started",
        "certificate",
        "generation_id",
        "key_id",
        "reply",
        "request_id",
        "reservation",
        "span",
        "tenant",
        "terms",
        "trace",
    )

    def __init__(
        self,
        reply: Reply,
        terms: Terms,
        request_id: str,
        certificate: tuple[str, ...] | None = None,
    ) -> None:
        self.reply = reply
        self.terms = terms
        self.request_id = request_id
        self.certificate = certificate
        self.tenant = "default"
        self.key_id = ""
        self.trace: Trace | None = None
        self.reservation: Reservation | None = None
        """Of what this call began, where its caller has limits."""
        self.span: Span | None = None
        self.generation_id = ""
        self._started = False

    def header(self, name: bytes) -> str | None:
        """A value of the metadata, latin-1; None if it is not there."""
        value = self.terms.fields.get(name)
        return None if value is None else value.decode("latin-1")

    def start(self, generation_id: str = "") -> None:
        """From now on this call answers; from a generation's log, if there is one."""
        self._started = True
        self.generation_id = generation_id
        left: Sequence[Named] = ()
        if self.reservation is not None:
            left = openai_allowance(self.reservation.allowance(monotonic(), time()))
        self.reply.start(self.request_id, generation_id, left)

    def answer(self, message: Answer) -> None:
        """Answer with one message."""
        if not self._started:
            self.start()
        self.reply.send((message.SerializeToString(),))
        self.reply.end(OK)

    def fail(self, error: HeadraceError) -> None:
        """End with an error."""
        if not self._started:
            self.start()
        self.reply.end(status_of(error, self.generation_id))

    def crash(self) -> None:
        """An exception that is our fault is being handled: log it once, and end the call."""
        named = {"request_id": self.request_id}
        _logger.exception("request %s failed in the server", self.request_id, extra=named)
        said = f"The server failed at this request; its log says why under {self.request_id}."
        self.fail(HeadraceError(Code.INTERNAL, said))
