"""TLS for the front: TLS 1.2 or newer, forward secrecy, HTTP/2 and HTTP/1.1 by ALPN."""

from __future__ import annotations

import errno
import hashlib
import ssl
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.front.sockets import CannotListen

_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"
"""Of TLS 1.2: those that HTTP/2 allows (RFC 9113 §9.2.2). TLS 1.3 has good ones only."""


class Tls(msgspec.Struct, frozen=True, kw_only=True):
    """``certificate`` and ``key``: PEM files. ``client_ca``: a PEM file of authorities; with it a client
    must show a certificate of theirs, or may if ``client_may`` is all that is said."""

    certificate: str
    key: str | None = None
    client_ca: str | None = None
    client_may: bool = False


class Renewal(NamedTuple):
    """What the files of a :class:`Tls` say now. ``changed``: which of its fields name a file that is another one."""

    context: ssl.SSLContext
    digests: dict[str, bytes]
    changed: tuple[str, ...]


class ServerTls:
    """The TLS of fronts, whose files may be read again while they are open. ``context``: what they listen with."""

    def __init__(self, tls: Tls) -> None:
        """Raises :class:`CannotListen` for files that cannot be used."""
        self._tls = tls
        self._digests: dict[str, bytes] = {}
        self.context, self._digests, _ = self.read_again()
        self._newest = self.context

    def read_again(self) -> Renewal:
        """What to :meth:`use`, complete and checked. Raises :class:`CannotListen`. Reads files."""
        digests = _digests(self._tls)
        changed = [name for name, digest in digests.items() if digest != self._digests.get(name)]
        return Renewal(server_context(self._tls), digests, tuple(changed))

    def use(self, renewal: Renewal) -> None:
        """Connections that begin from now on have it; those that are open keep what they have."""
        self._digests = renewal.digests
        self._newest = renewal.context
        # A context is not changed in place: half of a certificate and its key would be left if that fails.
        self.context.sni_callback = self._choose

    def _choose(self, connection: ssl.SSLObject, name: str | None, context: ssl.SSLContext) -> None:
        """Called by every handshake, whether its client names a server or not."""
        connection.context = self._newest


def server_context(tls: Tls) -> ssl.SSLContext:
    """Raises :class:`CannotListen` for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, _no_password)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL if tls.client_may else ssl.CERT_REQUIRED
            # Each connection shows its certificate anew: one that has expired is not resumed.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
    except OSError as error:
        raise _cannot_use(tls, error) from error
    return context


def _digests(tls: Tls) -> dict[str, bytes]:
    files = {"certificate": tls.certificate, "key": tls.key, "client_ca": tls.client_ca}
    try:
        return {
            name: hashlib.sha256(Path(file).read_bytes()).digest()
            for name, file in files.items()
            if file is not None
        }
    except OSError as error:
        raise _cannot_use(tls, error) from error


def _no_password() -> Any:
    """Asked for that of a key. OpenSSL would ask a person, and whoever reads the files again has none."""
    raise OSError(errno.EACCES, "its key is encrypted, and a password is not asked for")


def _cannot_use(tls: Tls, error: OSError) -> CannotListen:
    files = ", ".join(name for name in (tls.certificate, tls.key, tls.client_ca) if name)
    why = error.strerror
    if isinstance(error, ssl.SSLError):
        said = {"KEY_VALUES_MISMATCH": "the key is not that of the certificate"}
        why = said.get(error.reason, f"a certificate or its key is missing or broken: {why}")
    return CannotListen(error.errno, f"cannot use {files} for TLS: {why}")
