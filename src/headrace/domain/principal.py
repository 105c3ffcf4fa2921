"""Who asks: what a key or a certificate says of the one who showed it."""

from __future__ import annotations

from typing import Literal

import msgspec

Scope = Literal["infer", "admin", "metrics"]
"""What somebody may do: ask models and read answers; ``/admin`` and ``/debug``; ``/metrics``."""
SCOPES: tuple[Scope, ...] = ("infer", "admin", "metrics")


class Principal(msgspec.Struct, frozen=True, gc=False):
    """``key_id``: the public part of the key, or the SPIFFE ID of the certificate; empty where neither is needed.
    Whoever may ``admin`` has ``metrics``, too."""

    tenant: str
    key_id: str
    scopes: frozenset[Scope]


ANYBODY = Principal("default", "", frozenset(SCOPES))
"""Everybody, where no key is needed."""


def granted(scopes: tuple[Scope, ...]) -> frozenset[Scope]:
    """All that these scopes allow."""
    return frozenset((*scopes, "metrics")) if "admin" in scopes else frozenset(scopes)
