"""TLS for the front: TLS 1.2 or newer, forward secrecy, HTTP/2 and HTTP/1.1 by ALPN."""

from __future__ import annotations

import ssl

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


def server_context(tls: Tls) -> ssl.SSLContext:
    """Raises :class:`CannotListen` for files that cannot be used."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_COMPRESSION | ssl.OP_NO_RENEGOTIATION
    context.set_ciphers(_CIPHERS)
    context.set_alpn_protocols(["h2", "http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_OPTIONAL if tls.client_may else ssl.CERT_REQUIRED
            # Each connection shows its certificate anew: one that has expired is not resumed.
            context.options |= ssl.OP_NO_TICKET
            context.num_tickets = 0
    except OSError as error:
        files = ", ".join(name for name in (tls.certificate, tls.key, tls.client_ca) if name)
        raise CannotListen(error.errno, f"cannot use {files} for TLS: {error.strerror}") from error
    return context
