"""``grpc.reflection.v1alpha.ServerReflection``: what grpcurl and its like ask before they call anything. Its ``v1``,
which they try first, has the same messages.
https://github.com/grpc/grpc/blob/master/doc/server-reflection.md"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Sequence
from typing import Any

from google.protobuf.descriptor import FileDescriptor, ServiceDescriptor
from grpc_reflection.v1alpha import reflection_pb2 as pb

from headrace.domain.errors import Code
from headrace.domain.errors import HeadraceError as Refusal
from headrace.protocols.grpc.call import RpcCall
from headrace.protocols.grpc.rpcs import Method, methods_of
from headrace.protocols.grpc.status import OK

SERVICE = pb.DESCRIPTOR.services_by_name["ServerReflection"]


class Reflection:
    """``services``: the others that there are, those with a pool of their own last."""

    def __init__(self, services: Sequence[ServiceDescriptor]) -> None:
        self._names = sorted(service.full_name for service in (*services, SERVICE))
        # The shared pool comes last: others in the process may have names of ours in it.
        pools = [service.file.pool for service in (*reversed(services), SERVICE)]
        self._pools = tuple(dict.fromkeys(pools))

    def methods(self) -> Sequence[Method]:
        methods = methods_of(SERVICE, {}, {"ServerReflectionInfo": self._open}, keyless=True)
        newer = [each._replace(path=each.path.replace(".v1alpha.", ".v1.")) for each in methods]
        return [*methods, *newer]

    def answer(self, asked: Any) -> Any:
        """The response to one request."""
        response = pb.ServerReflectionResponse(original_request=asked)
        try:
            self._fill(response, asked)
        except (KeyError, Refusal) as error:
            refusal = error if isinstance(error, Refusal) else Refusal(Code.NOT_FOUND, "not found")
            response.error_response.error_code = refusal.meaning.grpc
            response.error_response.error_message = refusal.message
        return response

    def _fill(self, response: Any, asked: Any) -> None:
        """Raises ``KeyError`` for what is not there."""
        match asked.WhichOneof("message_request"):
            case "list_services":
                listed = [pb.ServiceResponse(name=name) for name in self._names]
                response.list_services_response.service.extend(listed)
            case "file_by_filename":
                _add_files(response, self._find("FindFileByName", asked.file_by_filename))
            case "file_containing_symbol":
                _add_files(
                    response, self._find("FindFileContainingSymbol", asked.file_containing_symbol)
                )
            case _:  # our messages have no extensions
                raise Refusal(Code.METHOD_NOT_ALLOWED, "extensions are not looked up here")

    def _find(self, how: str, what: str) -> FileDescriptor:
        """In the pool that has it. Raises ``KeyError``."""
        for pool in self._pools:
            try:
                found: FileDescriptor = getattr(pool, how)(what)
            except KeyError:
                continue
            return found
        raise KeyError(what)

    def _open(self, call: RpcCall) -> _Questions:
        return _Questions(self, call)


class _Questions:
    """One call: a response to each of its requests. Implements ``Inbox``."""

    def __init__(self, reflection: Reflection, call: RpcCall) -> None:
        self._reflection = reflection
        self._reply = call.reply
        self._room: asyncio.Future[None] | None = None
        call.start()
        call.reply.watch(self._drained, self._drained)

    def received(self, asked: Any) -> Awaitable[None] | None:
        response = self._reflection.answer(asked)
        if self._reply.send((response.SerializeToString(),)):
            return None
        self._room = asyncio.get_running_loop().create_future()
        return self._room

    def half_closed(self) -> None:
        self._reply.end(OK)

    def _drained(self) -> None:
        if self._room is not None and not self._room.done():
            self._room.set_result(None)


def _add_files(response: Any, descriptor: FileDescriptor) -> None:
    """A file, and before it those that it needs."""
    found: dict[str, bytes] = {}

    def add(file: FileDescriptor) -> None:
        for needed in file.dependencies:
            if needed.name not in found:
                add(needed)
        found[file.name] = file.serialized_pb

    add(descriptor)
    response.file_descriptor_response.file_descriptor_proto.extend(found.values())
