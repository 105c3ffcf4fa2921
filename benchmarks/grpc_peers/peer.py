"""What a peer is, for the command that runs it."""

from __future__ import annotations

from typing import Protocol

import grpc

from benchmarks.grpc_peers.upstream import Upstream


class Peer(Protocol):
    """One of the servers, as a module."""

    def handler(self, upstream: Upstream) -> grpc.GenericRpcHandler:
        """Its one method that matters."""

    def message(self, prompt: str, tokens: int) -> bytes:
        """What a client sends to it."""
