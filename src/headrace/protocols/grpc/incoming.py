"""The messages of a call whose client streams, as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.exchange import Exchange
from headrace.protocols.grpc.framing import HEAD_BYTES, Framing


class Incoming:
    """Reads on only when the next message is asked for. Holds at most one message of ``limit`` bytes and what the
    client may send unasked. ``close`` it when the call is over: there is no next message then."""

    def __init__(
        self, exchange: Exchange, framing: Framing, fields: Mapping[bytes, bytes], limit: int
    ) -> None:
        self._exchange = exchange
        self._framing = framing
        self._fields = fields
        self._limit = limit
        self._data = bytearray()
        self._untaken = 0
        self._over = False
        self._wake: asyncio.Future[None] | None = None
        exchange.on_data = self._received

    async def following(self) -> bytes | None:
        """The next message; None after the last. Raises ``INVALID_REQUEST`` and ``BODY_TOO_LARGE``."""
        while True:
            end = self._end()
            if end is not None and len(self._data) >= end:
                message = bytes(self._data[:end])
                del self._data[:end]
                found = self._framing.messages(message, self._fields, self._limit)
                if not found:
                    raise HeadraceError(Code.INVALID_REQUEST, "A message has flags of a trailer.")
                return found[0]
            if self._over:
                if self._data:
                    raise HeadraceError(Code.INVALID_REQUEST, "The call ends within a message.")
                return None
            size, self._untaken = self._untaken, 0
            self._exchange.take(size)
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None

    def close(self) -> None:
        self._data.clear()
        self._end_of_body()

    def _end(self) -> int | None:
        """Where the next message ends, if that is known."""
        if len(self._data) < HEAD_BYTES:
            return None
        size = int.from_bytes(self._data[1:HEAD_BYTES], "big")
        if size > self._limit:
            raise HeadraceError(
                Code.BODY_TOO_LARGE, f"The message is longer than {self._limit} bytes."
            )
        return HEAD_BYTES + size

    def _received(self, data: bytes) -> None:
        if not data:
            self._end_of_body()
            return
        self._data += data
        self._untaken += len(data)
        self._awake()

    def _end_of_body(self) -> None:
        self._over = True
        self._awake()

    def _awake(self) -> None:
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
