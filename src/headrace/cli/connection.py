"""One HTTP exchange with a Headrace server, blocking, from the standard library."""

from __future__ import annotations

import http.client
import json
from typing import Any
from urllib.parse import urlsplit

from headrace.domain.errors import Code, HeadraceError

SILENCE_S = 45.0
"""A server sends a comment every 15 s; after three missed ones the connection is dead."""


class Server:
    """Where the server is, and the key it wants."""

    def __init__(self, url: str, key: str | None) -> None:
        parts = urlsplit(url if "//" in url else f"http://{url}")
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise HeadraceError(Code.INVALID_REQUEST, f"{url}: is not the URL of a server")
        self.url = f"{parts.scheme}://{parts.netloc}"
        self._secure = parts.scheme == "https"
        self._host, self._port = parts.hostname, parts.port
        self._headers = {"connection": "close"}
        if key:
            self._headers["authorization"] = f"Bearer {key}"

    def request(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> http.client.HTTPResponse:
        """The response, its body unread. Raises ``OSError`` or ``HTTPException`` for a broken
        connection; :class:`HeadraceError` if the server says that the request is wrong."""
        kind = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = kind(self._host, self._port, timeout=SILENCE_S)
        data = None if body is None else json.dumps(body).encode()
        more = {"content-type": "application/json"} if data else {}
        connection.request(method, path, data, {**self._headers, **more, **(headers or {})})
        response = connection.getresponse()
        if response.status >= 500 or response.status == 408:
            text = _message(response)
            raise Unavailable(text)
        if response.status >= 400:
            code = Code.CONFLICT if response.status == 409 else Code.INVALID_REQUEST
            raise HeadraceError(code, _message(response))
        return response


class Unavailable(OSError):
    """The server is there but cannot serve now; trying again later helps."""


def _message(response: http.client.HTTPResponse) -> str:
    try:
        return str(json.loads(response.read())["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return f"{response.status} {response.reason}"
