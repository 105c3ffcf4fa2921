"""The HTTP client of one llama.cpp process for as long as that process lives, and who has its slots."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from headrace.domain.errors import HeadraceError
from headrace.engines.faults import refused
from headrace.engines.limits import Limits
from headrace.engines.origin import Origin, with_body
from headrace.engines.pool import Pool
from headrace.engines.response import Call, Response, ResponseSink
from headrace.engines.slot_table import SlotTable

CONTROL_CONNECTIONS = 2
"""For everything that computes nothing."""
EMBEDDING_CONNECTIONS = 2
"""A batch that is computed, and the next."""
_JSON = ("content-type", "application/json")


class LlamaClient:
    """``streams`` compute, or wait for one of the ``slots`` in the process, ``early`` at most; templates
    and tokens never wait for them."""

    def __init__(self, port: int, key: str, slots: int, early: int, limits: Limits) -> None:
        origin = Origin("http", "127.0.0.1", port)
        bounded = msgspec.structs.replace
        # One connection more: the answer before may not have ended on its connection yet.
        most = slots + early + 1
        self.streams = Pool(origin, bounded(limits, max_connections=most, max_waiting=65_536))
        self.control = Pool(
            origin, bounded(limits, max_connections=CONTROL_CONNECTIONS, max_waiting=65_536)
        )
        self.embeddings = Pool(origin, bounded(limits, max_connections=EMBEDDING_CONNECTIONS))
        self.slots = SlotTable(slots, early)
        self._origin = origin
        self._headers = (_JSON, ("authorization", f"Bearer {key}"))
        self._completion = origin.head("POST", "/completion", self._headers)
        self._chat = origin.head("POST", "/v1/chat/completions", self._headers)

    @property
    def url(self) -> str:
        """Of the process."""
        return str(self._origin)

    def complete(self, body: bytes, sink: ResponseSink) -> Call:
        """``POST /completion``."""
        return self.streams.send(with_body(self._completion, body), sink)

    def chat(self, body: bytes, sink: ResponseSink) -> Call:
        """``POST /v1/chat/completions``."""
        return self.streams.send(with_body(self._chat, body), sink)

    def compute(
        self, body: bytes, found: Callable[[bytes], None], failed: Callable[[HeadraceError], None]
    ) -> Call:
        """``POST /completion`` for its whole answer; a refusal is a failure."""
        whole = _accepted(found, failed)
        return self.streams.gather(with_body(self._completion, body), whole, failed)

    def ask(
        self,
        path: str,
        value: Any,
        found: Callable[[bytes], None],
        failed: Callable[[HeadraceError], None],
    ) -> Call:
        """``POST`` something that computes nothing, for its whole answer."""
        request = with_body(
            self._origin.head("POST", path, self._headers), msgspec.json.encode(value)
        )
        return self.control.gather(request, _accepted(found, failed), failed)

    async def get(self, path: str) -> bytes:
        """``GET``. Raises :class:`HeadraceError` for a refusal too."""
        return _body(await self.control.collect(self._plain("GET", path, b"")))

    async def post(self, path: str, value: Any) -> bytes:
        """:meth:`ask`, awaited."""
        body = msgspec.json.encode(value)
        return _body(await self.control.collect(self._plain("POST", path, body)))

    async def embed(self, value: Any) -> bytes:
        """``POST /v1/embeddings``. Raises :class:`HeadraceError` for a refusal too."""
        body = msgspec.json.encode(value)
        return _body(await self.embeddings.collect(self._plain("POST", "/v1/embeddings", body)))

    def stands(self, still: bool) -> None:
        """The process was stopped by us, or goes on: no time limit counts meanwhile."""
        self.streams.stands(still)
        self.control.stands(still)
        self.embeddings.stands(still)

    def fail_all(self, error: HeadraceError) -> None:
        """Fail what is under way."""
        self.streams.fail_all(error)
        self.control.fail_all(error)
        self.embeddings.fail_all(error)

    async def close(self) -> None:
        """Close all connections."""
        await self.streams.close()
        await self.control.close()
        await self.embeddings.close()

    def _plain(self, method: str, path: str, body: bytes) -> bytes:
        return with_body(self._origin.head(method, path, self._headers), body)


def _body(response: Response) -> bytes:
    if response.status != 200:
        raise refused(*response)
    return response.body


def _accepted(
    found: Callable[[bytes], None], failed: Callable[[HeadraceError], None]
) -> Callable[[Response], None]:
    def whole(response: Response) -> None:
        if response.status == 200:
            found(response.body)
        else:
            failed(refused(*response))

    return whole
