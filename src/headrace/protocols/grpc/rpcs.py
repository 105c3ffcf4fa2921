"""All methods, and the one way into them: whatever the wire, a call is understood, authenticated and answered here.

What HTTP's ``Api.handle`` does for an exchange. Every call ends with a status; none is ever missing.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from google.protobuf.descriptor import ServiceDescriptor
from google.protobuf.descriptor_pb2 import MethodOptions
from google.protobuf.message import DecodeError, Message
from google.protobuf.message_factory import GetMessageClass

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.principal import Scope
from headrace.protocols.call import request_ids
from headrace.protocols.grpc.call import Reply, RpcCall
from headrace.protocols.grpc.tracing import System, TracedReply, rpc_attributes
from headrace.protocols.pending import Guarded, Pending
from headrace.protocols.port import Service
from headrace.protocols.terms import Terms
from headrace.protocols.tracing import Tracer


class Inbox(Protocol):
    """Takes the messages of a call whose client streams. What they raise ends the call."""

    def received(self, message: Any) -> Awaitable[None] | None:
        """The next message. Nothing more comes until what this returns is done."""

    def half_closed(self) -> None:
        """The client sends nothing more."""


Answer = Callable[[RpcCall, Any], Pending | None]
"""Answers a call with one message; may raise :class:`HeadraceError`."""
Open = Callable[[RpcCall], Inbox]


class Method(NamedTuple):
    """``answer`` or ``open``: whether its client sends one message or streams them. ``safe``: one that does has no
    side effects. ``keyless``: anybody may call it. ``scope``: what the key must be good for. ``read``: makes what is
    answered of a serialized request; raises ``DecodeError``. None: it is a ``request``."""

    path: str
    request: type[Message]
    response: type[Message]
    streams: bool
    """Whether it answers with any number of messages."""
    safe: bool
    answer: Answer | None = None
    open: Open | None = None
    keyless: bool = False
    scope: Scope = "infer"
    read: Callable[[bytes], Any] | None = None


def methods_of(
    service: ServiceDescriptor,
    answers: Mapping[str, Answer],
    opens: Mapping[str, Open],
    *,
    keyless: bool = False,
) -> Sequence[Method]:
    """The methods of a service as its descriptor has them. Raises ``KeyError`` for one that nobody answers."""
    found = []
    for method in service.methods:
        streams_in = method.client_streaming
        found.append(
            Method(
                f"/{service.full_name}/{method.name}",
                GetMessageClass(method.input_type),
                GetMessageClass(method.output_type),
                method.server_streaming,
                method.GetOptions().idempotency_level == MethodOptions.NO_SIDE_EFFECTS,
                None if streams_in else answers[method.name],
                opens[method.name] if streams_in else None,
                keyless,
            )
        )
    return found


class Rpcs:
    """``methods`` by their paths. ``tracer``: records calls; None to record none."""

    def __init__(
        self, service: Service, methods: Sequence[Method], tracer: Tracer | None = None
    ) -> None:
        self._service = service
        self._tracer = tracer
        self._new_id = request_ids()
        self.methods = {method.path: method for method in methods}

    def begun(
        self,
        method: Method,
        terms: Terms,
        request_id: str,
        reply: Reply,
        system: System,
        certificate: tuple[str, ...] | None = None,
    ) -> RpcCall:
        """A call has come, over whatever wire."""
        call = RpcCall(reply, terms, request_id, certificate)
        if self._tracer is not None:
            call.trace = trace = self._tracer.follow(terms.trace)
            if trace is not None and trace.sampled:
                name, attributes = method.path[1:], rpc_attributes(system, method.path)
                call.span = self._tracer.request(trace, terms.trace, request_id, name, attributes)
                call.reply = TracedReply(reply, call.span, system)
        return call

    def ask(self, call: RpcCall, method: Method, data: bytes) -> Pending | None:
        """Begin to answer a call with one message. What is returned is to be awaited or closed, and does not raise."""
        try:
            self._admit(call, method)
            assert method.answer is not None
            waiting = method.answer(call, _decoded(method, data))
        except HeadraceError as error:
            call.fail(error)
            return None
        except Exception:  # noqa: BLE001 - a boundary: every call gets an answer
            call.crash()
            return None
        return None if waiting is None else Guarded(waiting, call)

    async def converse(self, call: RpcCall, method: Method, messages: Messages) -> None:
        """Take all messages of a call whose client streams."""
        try:
            self._admit(call, method)
            assert method.open is not None
            inbox = method.open(call)
            while (data := await messages()) is not None:
                waiting = inbox.received(_decoded(method, data))
                if waiting is not None:
                    await waiting
            inbox.half_closed()
        except HeadraceError as error:
            call.fail(error)
        except Exception:  # noqa: BLE001 - a boundary: every call gets an answer
            call.crash()

    def _admit(self, call: RpcCall, method: Method) -> None:
        if method.keyless:
            return
        key = call.terms.key
        names = None if key else call.certificate
        principal = self._service.authenticate(key, method.scope, names)
        call.tenant, call.key_id = principal.tenant, principal.key_id


Messages = Callable[[], Awaitable[bytes | None]]
"""Gives the next message of a client, None after the last."""


def _decoded(method: Method, data: bytes) -> Any:
    try:
        if method.read is not None:
            return method.read(data)
        message = method.request()
        message.ParseFromString(data)
    except DecodeError:
        name = method.request.DESCRIPTOR.full_name
        raise HeadraceError(Code.INVALID_REQUEST, f"The message is no {name}.") from None
    return message
