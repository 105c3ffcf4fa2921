"""Which tenant is this? API keys, compared by their SHA-256 so that timing tells nothing about a key."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from headrace.domain.errors import Code, HeadraceError


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode("utf-8", "surrogateescape")).digest()


class Keys:
    """Configured keys and their tenants. Without any key everybody is tenant ``default``."""

    __slots__ = ("_shown", "_tenants")

    def __init__(self, keys: Mapping[str, str]) -> None:
        """``keys``: plain key → tenant."""
        self._tenants = {_digest(key): tenant for key, tenant in keys.items()}
        # Good keys that were shown. A look-up compares a keyed hash of the whole key first (PEP 456), so
        # that its time tells nothing about a part of one. Bounded by the keys there are.
        self._shown: dict[str, str] = {}

    @property
    def open(self) -> bool:
        """Whether no key is needed."""
        return not self._tenants

    def tenant(self, key: str | None) -> str:
        """The tenant of a key. Raises ``INVALID_API_KEY``."""
        if not self._tenants:
            return "default"
        if not key:
            raise HeadraceError(
                Code.INVALID_API_KEY,
                "An API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
            )
        tenant = self._shown.get(key)
        if tenant is None:
            tenant = self._tenants.get(_digest(key))
            if tenant is None:
                raise HeadraceError(Code.INVALID_API_KEY, "This API key is not known here.")
            self._shown[key] = tenant
        return tenant
