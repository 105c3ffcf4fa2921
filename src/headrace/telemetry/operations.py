"""The operations port: probes and ``/metrics`` from a thread of their own.

Rule: nothing here waits for the event loop. Answers come from numbers that are read where they lie, so
they arrive while a hook blocks the serving loop. Connections beyond ``MAX_CONNECTIONS`` are closed.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, socket
from typing import Any

import msgspec

from headrace.telemetry.exposition import Exposition

MAX_CONNECTIONS = 32
"""Probes and scrapers answered at once; each takes a thread for as long as it talks."""
SILENCE_S = 5.0
"""A connection that sends or reads nothing for so long is closed."""

Ready = Callable[[], tuple[bool, str]]
"""Whether some model can serve, and the reason; called from this port's threads, so it only reads."""
Foreign = Callable[[bytes | None], str | None]
"""The name in a ``Host`` if it is none that the port answers to with figures: the page of any site may have its own
name lead here (DNS rebinding)."""


class OperationsPort:
    """``/livez``, ``/readyz``, ``/metrics`` on a port of their own. Port 0 takes a free one. ``foreign``: probes are
    answered by any name."""

    def __init__(
        self, host: str, port: int, exposition: Exposition, ready: Ready, foreign: Foreign
    ) -> None:
        """Binds at once. Raises ``OSError`` when the port is taken."""
        answers = _Answers(exposition, ready, foreign)
        self._server = _Server((host, port), answers)
        self._thread = threading.Thread(
            target=self._server.serve_forever,
            kwargs={"poll_interval": 0.1},
            name="headrace-operations",
            daemon=True,
        )

    @property
    def address(self) -> tuple[str, int]:
        """Host and port that it listens on."""
        host, port = self._server.server_address[:2]
        return str(host), int(port)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        """Stop listening; answers under way are not waited for. Idempotent."""
        if self._thread.is_alive():
            self._server.shutdown()
            self._thread.join()
        self._server.server_close()


class _Answers:
    """Path → status, content type, body."""

    def __init__(self, exposition: Exposition, ready: Ready, foreign: Foreign) -> None:
        self._exposition = exposition
        self._ready = ready
        self._foreign = foreign

    def answer(self, path: str, accept: str, host: str | None) -> tuple[int, str, bytes]:
        match path:
            case "/livez":
                return _json(200, {"status": "ok"})
            case "/readyz":
                ready, reason = self._ready()
                status = "ok" if ready else "unavailable"
                return _json(200 if ready else 503, {"status": status, "reason": reason})
            case "/metrics":
                name = self._foreign(None if host is None else host.encode("latin-1", "replace"))
                if name is not None:
                    return _json(403, {"error": _FOREIGN.format(name[:80])})
                return 200, *self._exposition.render(accept)
            case _:
                return _json(404, {"error": "not found; here are /livez, /readyz and /metrics"})


_FOREIGN = (
    "This port needs no key, and so its figures are only for who calls it by a name of this machine, not by {!r}; "
    "whoever runs it can allow the name (--allowed-host)."
)


def _json(status: int, body: dict[str, Any]) -> tuple[int, str, bytes]:
    return status, "application/json", msgspec.json.encode(body)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], answers: _Answers) -> None:
        if ":" in address[0]:
            self.address_family = AF_INET6
        self.answers = answers
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: socket | tuple[bytes, socket], client_address: Any) -> None:
        """A client that left in the middle is no event worth a line."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = SILENCE_S
    server_version = "headrace"
    sys_version = ""

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        status, content_type, body = self.server.answers.answer(
            path, self.headers.get("accept", ""), self.headers.get("host")
        )
        self.send_response(status)
        self.send_header("content-type", content_type)
        self.send_header("content-length", str(len(body)))
        self.send_header("cache-control", "no-store")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, format: str, *args: Any) -> None:
        """Probes come every second; they are not logged."""
