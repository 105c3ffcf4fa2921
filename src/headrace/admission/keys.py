"""Who is this, and may it do that? API keys, or certificates where there is no key.

Of keys that were not seen yet only HMACs of their SHA-256 are compared, under a secret of this process: nobody can
steer how far such a comparison gets, so its time tells nothing about a key. A key that was good is then found by its
text, whose keyed hash (PEP 456) is compared first and as a whole.
"""

from __future__ import annotations

import hmac
import secrets
import time
from collections.abc import Callable, Mapping

from headrace.admission.certificates import Certificates, Names
from headrace.admission.key_text import digest
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.principal import ANYBODY, Principal, Scope, granted

NO_CERTIFICATES = Certificates({})


class Keys:
    """The keys and certificates in force. Without any everybody is tenant ``default`` and may do everything, unless
    ``may_be_open`` says no. ``clock``: Unix seconds."""

    __slots__ = ("_certificates", "_clock", "_index", "_may_be_open", "_salt", "_seen", "open")

    def __init__(self, *, may_be_open: bool = True, clock: Callable[[], float] = time.time) -> None:
        self._may_be_open = may_be_open
        self._clock = clock
        self._salt = secrets.token_bytes(32)
        self.replace({}, NO_CERTIFICATES)

    def replace(self, keys: Mapping[bytes, Key], certificates: Certificates) -> None:
        """From now on these are in force. ``keys``: by their SHA-256, also those that are spent: while there are
        any, a key is needed."""
        self._index = {self._blinded(sha): key for sha, key in keys.items()}
        self._certificates = certificates
        # Good keys that were shown, and when they expire. Bounded by the keys there are.
        self._seen: dict[str, tuple[Principal, float | None]] = {}
        self.open = self._may_be_open and not keys and not certificates
        """Whether no key is needed."""

    def principal(self, key: str | None, scope: Scope, names: Names | None = None) -> Principal:
        """Who shows this key, or a certificate with these ``names``; a key decides where there are both.
        Raises ``INVALID_API_KEY``, and ``FORBIDDEN`` if that one may not do what ``scope`` says."""
        if self.open:
            return ANYBODY
        principal = None
        if key and (seen := self._seen.get(key)) is not None:
            expires_at = seen[1]
            if expires_at is None or self._clock() < expires_at:
                principal = seen[0]
        if principal is None:
            principal = self._look_up(key, names)
        if scope not in principal.scopes:
            raise _lacks(principal, scope)
        return principal

    def _look_up(self, key: str | None, names: Names | None) -> Principal:
        if not key:
            if names is not None and self._certificates:
                return self._certificates.principal(names)
            raise HeadraceError(
                Code.INVALID_API_KEY,
                "An API key is needed: send it as 'Authorization: Bearer KEY' or 'x-api-key: KEY'.",
            )
        known = self._index.get(self._blinded(digest(key)))
        if known is None:
            raise HeadraceError(Code.INVALID_API_KEY, "This API key is not known here.")
        if why := known.spent(self._clock()):
            raise HeadraceError(Code.INVALID_API_KEY, f"This API key ({known.id}) {why}.")
        principal = Principal(known.tenant, known.id, granted(known.scopes))
        self._seen[key] = principal, known.expires_at
        return principal

    def _blinded(self, sha: bytes) -> bytes:
        return hmac.digest(self._salt, sha, "sha256")


def _lacks(principal: Principal, scope: Scope) -> HeadraceError:
    has = ", ".join(sorted(principal.scopes))
    said = f"This needs the scope {scope}; {principal.key_id} has {has}."
    return HeadraceError(Code.FORBIDDEN, said)
