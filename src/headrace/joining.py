"""The same request twice: who sends it again gets the generation that there is, not a second one.

What says that two requests are the same: an ``Idempotency-Key`` of the client's, for a day
(draft-ietf-httpapi-idempotency-key-header); where the operator wants it, the same body within a short time, since
SDKs send again without a key; and, for a model that shares runs, the same body while it is computed, if its
answer can only be the same. Only what runs or has finished is joined: a generation that failed or was
cancelled is no answer, and is computed again.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Caller, Leaving, Once, Request
from headrace.streams.generation import Generation
from headrace.streams.kept import Kept
from headrace.streams.store import Store

_encode = msgspec.msgpack.Encoder(order="deterministic").encode
_DIGEST_BYTES = 16
_DERIVED, _SHARED = "\0", "\1"
"""What keys that no client can send begin with: one made of a body for its retries, one of a shared run."""

Find = Callable[[str, str], Awaitable[Generation | Kept]]
"""A generation by id and tenant. Raises ``GENERATION_NOT_FOUND``, ``CURSOR_GONE``."""


class Joining:
    """Which generations are known by a key. ``window_s``: how long the same body is the same request, 0: never.
    ``find`` opens a generation that has ended."""

    def __init__(self, store: Store, find: Find, window_s: float = 0.0) -> None:
        self._store = store
        self._find = find
        self._window_s = window_s
        self._running: dict[tuple[str, str], Generation] = {}  # bounded by what runs
        # Who looks for a key or begins with it. Bounded by the connections.
        self._asking: dict[tuple[str, str], asyncio.Future[None]] = {}

    def concerns(self, request: Request, caller: Caller, *, shares: bool) -> bool:
        """Whether there may be a generation for this request already. ``shares``: its model shares runs."""
        return caller.once is not None or self._window_s > 0 or (shares and _determined(request))

    async def join(
        self,
        request: Request,
        caller: Caller,
        said: tuple[str, dict[str, Any]],
        *,
        shares: bool,
        begin: Callable[[Caller, str], Generation],
    ) -> Generation | Kept:
        """The generation that has the key, or what ``begin`` begins with this caller and key. ``said``: the format
        of the answer and its options. Raises ``KEY_REUSED`` if a client's key was another request's."""
        digest = _digest(request, said)
        shares = shares and _determined(request)
        caller, key = self._keyed(caller, digest)
        if key.startswith(_DERIVED) and caller.retry == 0 and not shares:
            return begin(caller, key)  # its client counts its tries, and this is the first
        place = caller.tenant, key
        while (asking := self._asking.get(place)) is not None:
            await asking
        if (found := self._running.get(place)) is not None:
            return _same(found, digest, key)
        asking = self._asking[place] = asyncio.get_running_loop().create_future()
        try:
            kept = await self._kept(caller, key, digest)
            return kept if kept is not None else begin(caller, key)
        finally:
            del self._asking[place]
            asking.set_result(None)

    def began(self, generation: Generation, key: str) -> None:
        """It runs with this key."""
        generation.join_key = key
        self._running[generation.caller.tenant, key] = generation

    def ended(self, generation: Generation) -> None:
        """The store knows it now, if it has to be known."""
        key = generation.join_key
        if key is not None:
            place = generation.caller.tenant, key
            if self._running.get(place) is generation:
                del self._running[place]

    def _keyed(self, caller: Caller, digest: bytes) -> tuple[Caller, str]:
        replace = msgspec.structs.replace
        if caller.once is not None:
            return replace(caller, once=Once(caller.once.key, digest)), caller.once.key
        if self._window_s > 0:
            key = _DERIVED + digest.hex()
            leaving = caller.leaving
            if leaving.grace_s is not None and leaving.grace_s < self._window_s:
                leaving = Leaving(self._window_s)
            return replace(caller, once=Once(key, digest), leaving=leaving), key
        return caller, _SHARED + digest.hex()

    async def _kept(self, caller: Caller, key: str, digest: bytes) -> Generation | Kept | None:
        """One that the store knows, if it is an answer."""
        if caller.once is None:
            return None
        repeat = await self._store.repeat(caller.tenant, key)
        if repeat is None:
            return None
        if key.startswith(_DERIVED) and repeat.at < time.time() - self._window_s:
            return None
        try:
            found = await self._find(repeat.id, caller.tenant)
        except HeadraceError as error:
            if error.code in (Code.GENERATION_NOT_FOUND, Code.CURSOR_GONE):
                return None  # deleted, or no longer kept
            raise
        return None if found.state == "failed" else _same(found, digest, key)


def _same(found: Generation | Kept, digest: bytes, key: str) -> Generation | Kept:
    once = found.caller.once
    if once is not None and once.digest != digest:
        raise HeadraceError(
            Code.KEY_REUSED,
            f"The idempotency key {key[:80]!r} is that of another request ({found.id}); a new request needs a new key.",
            param="Idempotency-Key",
        )
    return found


def _digest(request: Request, said: tuple[str, dict[str, Any]]) -> bytes:
    return hashlib.blake2b(_encode((request, said)), digest_size=_DIGEST_BYTES).digest()


def _determined(request: Request) -> bool:
    """Whether its answer can only be one."""
    sampling = request.sampling
    return sampling.temperature == 0 or sampling.seed is not None
