"""What a person wants to read once the server listens: where it is, where its state is, what to try."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

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
    """A command for what is served first of these: a streamed answer, which goes on when its reader leaves; the
    vector of a text; what a model that takes tensors wants to have."""
    generating = [model for model in settings.models if model.engine != "onnx"]
    embedding = [model for model in settings.models if model.embedding.enabled]
    if generating:
        return _chat(settings, address, generating[0].name, keyed)
    if embedding:
        asked = {"model": embedding[0].name, "input": QUESTION}
        return _command(settings, address, "/v1/embeddings", keyed, body=asked)
    name = settings.models[0].name
    asking = _command(settings, address, f"/v2/models/{quote(name, safe='')}", keyed)
    return f"{asking}  # its inputs: POST them to …/infer"


def _chat(settings: Settings, address: str, model: str, keyed: bool) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": QUESTION}],
        "stream": True,
    }
    leaving = ("-N", "-H", "X-On-Disconnect: continue")
    return _command(settings, address, "/v1/chat/completions", keyed, leaving, body)


def _command(
    settings: Settings,
    address: str,
    path: str,
    keyed: bool,
    options: Sequence[str] = (),
    body: dict[str, Any] | None = None,
) -> str:
    socket = ["--unix-socket", address] if settings.server.uds else []
    base = "http://localhost" if settings.server.uds else _place(settings, address)
    key = ["-H", "Authorization: Bearer YOUR_KEY"] if keyed else []
    words = ["curl", "-i", *socket, f"{base}{path}", *key]
    if body is not None:
        words += ["-H", "Content-Type: application/json", *options, "-d", json.dumps(body)]
    return shlex.join(words)


def _place(settings: Settings, address: str) -> str:
    if settings.server.uds:
        return address
    return f"http{'s' if settings.server.ssl_certfile else ''}://{address}"
