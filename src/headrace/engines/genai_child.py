"""The engine process of ONNX Runtime GenAI: ``python -m headrace.engines.genai_child``.

Reads one JSON line of :class:`ChildOptions` from standard input, listens on a free loopback port, and says so
with one JSON line on standard output. The first who connects and knows the key gives orders, as
:mod:`headrace.engines.genai_wire` has them. One thread computes, a step of every run in turn, and looks for orders
between two of them; another one only reads.
"""

from __future__ import annotations

import hmac
import os
import queue
import socket
import sys
import threading
from typing import Any, Literal

import msgspec

from headrace.engines.own_process import end_with, say, take_over_stdout


class ChildOptions(msgspec.Struct, frozen=True):
    """``folder``: of the model. ``context``: tokens of prompt and answer together, 0: the model's own. ``slots``:
    runs that are computed at once. ``threads``: 0: GenAI chooses. ``parent``: process id of the server. ``key``: what
    whoever connects must know."""

    folder: str
    parent: int
    key: str
    context: int = 0
    slots: int = 8
    threads: int = 0
    device: Literal["auto", "cpu", "gpu"] = "auto"


def main() -> None:
    """Serve until the parent is gone or the process is told to end."""
    control = take_over_stdout()
    options = msgspec.json.decode(sys.stdin.buffer.readline(), type=ChildOptions)
    end_with(options.parent)
    try:
        work = _loaded(options)
        listening = socket.create_server(("127.0.0.1", 0))
    except Exception as error:  # noqa: BLE001  the one boundary of this process: say why, then end
        say(control, {"error": f"{type(error).__name__}: {error}"})
        os._exit(1)
    say(control, {"port": listening.getsockname()[1]})
    server = accepted(listening, options.key)
    orders: queue.SimpleQueue[bytes] = queue.SimpleQueue()
    threading.Thread(target=_read, args=(server, orders), name="orders", daemon=True).start()
    work(orders, server.sendall)


def _loaded(options: ChildOptions) -> Any:
    """What computes, with its model in memory."""
    from headrace.engines.genai_model import GenaiModel
    from headrace.engines.genai_work import Work

    model = GenaiModel(options.folder, options.context, options.threads, options.device)
    return Work(model, options.slots)


def accepted(listening: socket.socket, key: str) -> socket.socket:
    """The connection of who knows the key; anybody else's is closed."""
    while True:
        connection, _ = listening.accept()
        connection.settimeout(5.0)
        try:
            said = connection.recv(len(key) + 1, socket.MSG_WAITALL)
        except OSError:
            said = b""
        if hmac.compare_digest(said, key.encode() + b"\n"):
            listening.close()
            connection.settimeout(None)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            return connection
        connection.close()


def _read(server: socket.socket, orders: queue.SimpleQueue[bytes]) -> None:
    with server.makefile("rb") as lines:
        for line in lines:
            orders.put(line)
    os._exit(0)  # the server let go of this process


if __name__ == "__main__":
    main()
