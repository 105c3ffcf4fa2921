"""What a person wants to read once the server listens: where it is, where its state is, what to try."""

from __future__ import annotations

import json
import shlex

from headrace import __version__
from headrace.settings import Settings

QUESTION = "Why is the sky blue?"


def announcement(
    settings: Settings, address: str, grpc: str | None = None, *, keyed: bool = False
) -> str:
    """``address`` as bound: ``host:port``, or the path of a Unix socket. ``grpc``: of its port, likewise.
    ``keyed``: a key is needed."""
    store = settings.database_path or "memory only: gone with the process"
    return "\n".join(
        [
            f"headrace {__version__} listens on {_place(settings, address)}",
            *([f"gRPC: {grpc}"] if grpc else []),
            f"state: {store}",
            f"models: {settings.cache_path}",
            "try:",
            f"  {curl(settings, address, keyed=keyed)}",
        ]
    )


def curl(settings: Settings, address: str, *, keyed: bool = False) -> str:
    """A command that streams an answer which goes on when its reader leaves."""
    body = {
        "model": settings.models[0].name,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
    }
    socket = ["--unix-socket", address] if settings.server.uds else []
    base = "http://localhost" if settings.server.uds else _place(settings, address)
    key = ["-H", "Authorization: Bearer YOUR_KEY"] if keyed else []
    words = ["curl", "-iN", *socket, f"{base}/v1/chat/completions", *key]
    words += ["-H", "Content-Type: application/json", "-H", "X-On-Disconnect: continue"]
    return shlex.join([*words, "-d", json.dumps(body)])


def _place(settings: Settings, address: str) -> str:
    if settings.server.uds:
        return address
    return f"http{'s' if settings.server.ssl_certfile else ''}://{address}"
