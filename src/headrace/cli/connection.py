"""One HTTP exchange with a Headrace server, blocking, from the standard library."""

from __future__ import annotations

import http.client
import json
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from typing import Any
from urllib.parse import urlsplit

from headrace.domain.errors import Code, HeadraceError

SILENCE_S = 45.0
"""A server sends a comment every 15 s; after three missed ones the connection is dead."""


class Server:
    """Where the server is, and the key it wants. ``uds``: the path of its Unix socket, if it is there."""

    def __init__(self, url: str, key: str | None, uds: str | None = None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HeadraceError(Code.INVALID_REQUEST, f"{url}: is not the URL of a server")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._uds = uds
        self._headers = {"connection": "close"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The response, its body unread. Raises :class:`Unavailable`, or :class:`HeadraceError` if the server says
        that the request is wrong; who reads the body ``OSError`` or ``HTTPException``."""
        data = None if body is None else json.dumps(body).encode()
        more = {"content-type": "application/json"} if data else {}
        return self._answer(method, path, data, {**more, **(headers or {})})

    def fetch(self, path: str) -> bytes:
        """What it has there. Raises as :meth:`request`."""
        with self.request("GET", path) as response, self._whole():
            return response.read()

    def send(
        self, path: str, pieces: Iterable[bytes], headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        """The same with a body that is sent as it is made; its length is among the headers."""
        return self._answer("POST", path, pieces, headers)

    def _answer(
        self, method: str, path: str, data: Any, headers: dict[str, str]
    ) -> http.client.HTTPResponse:
        connection = self._connection()
        try:
            connection.connect()
        except OSError as error:
            raise NoServer(f"no server answers at {self.url} ({_why(error)})") from error
        with self._whole():
            with suppress(ConnectionError):  # it may have refused before it had all
                connection.request(method, path, data, {**self._headers, **headers})
            response = connection.getresponse()
        if response.status >= 500 or response.status == 408:
            text = _message(response)
            raise Unavailable(text)
        if response.status >= 400:
            code = _CODES.get(response.status, Code.INVALID_REQUEST)
            raise HeadraceError(code, _message(response))
        return response

    @contextmanager
    def _whole(self) -> Iterator[None]:
        """Raises :class:`Unavailable` where the connection breaks."""
        try:
            yield
        except (ConnectionError, TimeoutError, http.client.HTTPException) as error:
            text = f"the connection to {self.url} broke ({_why(error)})"
            raise Unavailable(text) from error

    def _connection(self) -> http.client.HTTPConnection:
        if self._uds is not None:
            return _UnixConnection(self._uds)
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        return kind(self._host, self._port, timeout=SILENCE_S)


_CODES = {404: Code.NOT_FOUND, 409: Code.CONFLICT}


class _UnixConnection(http.client.HTTPConnection):
    """To a Unix socket."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=SILENCE_S)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.settimeout(SILENCE_S)
        self.sock.connect(self._path)


class Unavailable(OSError):
    """The server is not there, or cannot serve now; trying again later helps."""


class NoServer(Unavailable):
    """Nobody answers there."""


def first_model(server: Server) -> str:
    """The name of the first that it has. Raises as :meth:`Server.request`, and :class:`HeadraceError` where there is
    none, or no model server."""
    try:
        models: list[dict[str, Any]] = json.loads(server.fetch("/v1/models"))["data"]
    except (ValueError, KeyError, TypeError):
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, f"{server.url} is no model server") from None
    if not models:
        raise HeadraceError(Code.MODEL_NOT_FOUND, f"{server.url} has no models")
    return str(models[0]["id"])


def _why(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _message(response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status} {response.reason}"
