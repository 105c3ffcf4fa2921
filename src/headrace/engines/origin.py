"""Where an upstream is, and the request heads that go there."""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import urlsplit

import msgspec

_DEFAULT_PORTS = {"http": 80, "https": 443}


class Origin(msgspec.Struct, frozen=True):
    """Scheme, host and port of an upstream, and the path that its URL started with (no slash at
    its end)."""

    scheme: str
    host: str
    port: int
    path: str = ""

    @classmethod
    def parse(cls, url: str) -> Origin:
        """From ``http(s)://host[:port][/path]``. Raises :class:`ValueError` with what is wrong."""
        parts = urlsplit(url)
        if parts.scheme not in _DEFAULT_PORTS or not parts.hostname:
            raise ValueError(f"{url!r} is not an http:// or https:// URL")
        if parts.username or parts.query or parts.fragment:
            raise ValueError(f"{url!r} has a user, a query or a fragment; a base URL has none")
        port = parts.port or _DEFAULT_PORTS[parts.scheme]
        return cls(parts.scheme, parts.hostname, port, parts.path.rstrip("/"))

    def __str__(self) -> str:
        return f"{self.scheme}://{self._authority()}"

    def head(self, method: str, path: str, headers: Sequence[tuple[str, str]] = ()) -> bytes:
        """A request head, complete but for the value of its last header, ``content-length``.

        ``path`` is put after the URL's own path. Raises :class:`ValueError` for a header that could
        smuggle another one in.
        """
        lines = [f"{method} {self.path}{path} HTTP/1.1", f"host: {self._authority()}"]
        lines += [f"{name}: {value}" for name, value in headers]
        if any("\r" in line or "\n" in line or "\0" in line for line in lines):
            raise ValueError("a header for an upstream contains a line break")
        return "\r\n".join([*lines, "content-length: "]).encode("latin-1")

    def _authority(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def with_body(head: bytes, body: bytes, lines: bytes = b"") -> bytes:
    """The whole request: a head of :meth:`Origin.head`, its length, its body. ``lines``: headers of this
    request alone, each with its line break."""
    return b"%b%d\r\n%b\r\n%b" % (head, len(body), lines, body)
