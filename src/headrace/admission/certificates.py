"""Which tenant does a client's certificate name? By its SPIFFE ID, as an X509-SVID has it.

TLS has verified the certificate. What is left are the rules of SPIFFE (X509-SVID §2, §5): exactly one URI is in its
subjectAltName, and that is a SPIFFE ID with a path. A tenant lists whole IDs, or prefixes that end
with ``/*``: these match everything below. The longest that matches decides; a whole ID beats all prefixes. Case counts.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.principal import Principal, Scope, granted
from headrace.domain.spiffe import is_spiffe_id

Names = tuple[str, ...]
"""The URIs in the subjectAltName of a certificate."""

REMEMBERED = 4096
"""IDs whose tenant is remembered; when full, all are forgotten."""


class Grant(NamedTuple):
    """What the certificates of one pattern may do, and as whom."""

    tenant: str
    scopes: tuple[Scope, ...]


class Certificates:
    """``grants``: by SPIFFE ID, or by prefix with ``/*``."""

    __slots__ = ("_ids", "_prefixes", "_seen")

    def __init__(self, grants: Mapping[str, Grant]) -> None:
        self._ids = {name: grant for name, grant in grants.items() if not name.endswith("/*")}
        prefixes = {name[:-1]: grant for name, grant in grants.items() if name.endswith("/*")}
        self._prefixes = sorted(prefixes.items(), key=lambda one: len(one[0]), reverse=True)
        self._seen: dict[Names, Principal] = {}

    def __bool__(self) -> bool:
        """Whether any certificate names a tenant."""
        return bool(self._ids or self._prefixes)

    def principal(self, names: Names) -> Principal:
        """Who has shown a certificate with these names. Raises ``INVALID_API_KEY``."""
        principal = self._seen.get(names)
        if principal is None:
            principal = self._find(names)
            if len(self._seen) >= REMEMBERED:
                self._seen.clear()
            self._seen[names] = principal
        return principal

    def _find(self, names: Names) -> Principal:
        if len(names) != 1 or not is_spiffe_id(names[0]):
            raise _refused("has no SPIFFE ID: it must have exactly one URI, and that must be one")
        (id,) = names
        grant = self._ids.get(id) or self._by_prefix(id)
        if grant is None:
            raise _refused(f"names no tenant here: {id}")
        return Principal(grant.tenant, id, granted(grant.scopes))

    def _by_prefix(self, id: str) -> Grant | None:
        for prefix, grant in self._prefixes:
            if id.startswith(prefix):
                return grant
        return None


def _refused(why: str) -> HeadraceError:
    return HeadraceError(Code.INVALID_API_KEY, f"The client's certificate {why}.")
