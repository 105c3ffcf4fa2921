"""A body that is taken as it arrives: no more of it is here than was asked for."""

from __future__ import annotations

import asyncio

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.exchange import Exchange


class Arriving:
    """The pieces of an exchange's body, whether it is complete already or still arrives. ``close`` it when the call is
    over."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._pieces: list[bytes] = [exchange.body] if exchange.body else []
        # Bounded by what the front lets in before it is taken.
        self._over = not exchange.arrives
        self._wake: asyncio.Future[None] | None = None
        if exchange.arrives:
            exchange.on_data = self._received

    async def following(self) -> bytes:
        """All that is here by now, at least something; empty at the end. Raises ``CLIENT_GONE``."""
        while not self._pieces:
            if self._over:
                return b""
            self._wake = asyncio.get_running_loop().create_future()
            try:
                await self._wake
            finally:
                self._wake = None
        data = b"".join(self._pieces)
        self._pieces.clear()
        if self._exchange.gone:
            raise HeadraceError(Code.CLIENT_GONE, "The client left before all was here.")
        return data

    def taken(self, size: int) -> None:
        """So much of it is done with: more may come."""
        if not self._over:
            self._exchange.take(size)

    def close(self) -> None:
        """Nothing more is wanted of it."""
        self._exchange.on_data = None
        self._pieces.clear()
        self._over = True

    def _received(self, data: bytes) -> None:
        if data:
            self._pieces.append(data)
        else:
            self._over = True
        if self._wake is not None and not self._wake.done():
            self._wake.set_result(None)
