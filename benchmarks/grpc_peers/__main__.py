"""Run a peer, or make the message that asks it."""

from __future__ import annotations

import asyncio
import importlib
import sys

import grpc
import uvloop

from benchmarks.grpc_peers.peer import Peer
from benchmarks.grpc_peers.upstream import Upstream


async def serve(peer: Peer, port: int, engine_port: int) -> None:
    server = grpc.aio.server()
    server.add_generic_rpc_handlers((peer.handler(Upstream(engine_port)),))
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    await server.wait_for_termination()


def main() -> None:
    name, command, *rest = sys.argv[1:]
    peer: Peer = importlib.import_module(f"benchmarks.grpc_peers.{name}")
    if command == "serve":
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(serve(peer, int(rest[0]), int(rest[1])))
    else:
        sys.stdout.buffer.write(peer.message(sys.stdin.read(), int(rest[0])))


if __name__ == "__main__":
    main()
