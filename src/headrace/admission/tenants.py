"""Which tenants are there, and what was each promised?"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Urgency
from headrace.domain.tenant import Tenant

DEFAULT = "default"


class Tenants:
    """The directory by name. ``default`` is always in it. ``targets``: of those that have any."""

    __slots__ = ("_by_name", "targets")

    def __init__(self) -> None:
        self.replace(())

    def replace(self, tenants: Iterable[Tenant]) -> None:
        """From now on there are these; of two with one name the later counts."""
        self._by_name = {DEFAULT: Tenant(name=DEFAULT)} | {one.name: one for one in tenants}
        self.targets: Mapping[str, Urgency] = {
            one.name: Urgency(one.ttft_s, one.tpot_s)
            for one in self
            if one.ttft_s is not None or one.tpot_s is not None
        }

    def __iter__(self) -> Iterator[Tenant]:
        return iter(self._by_name.values())

    def find(self, name: str) -> Tenant:
        """The tenant. Raises ``NOT_FOUND``."""
        tenant = self._by_name.get(name)
        if tenant is None:
            raise HeadraceError(Code.NOT_FOUND, f"There is no tenant {name[:80]!r}.")
        return tenant

    def of(self, name: str) -> Tenant:
        """The same for a generation: where its tenant is gone meanwhile it goes on, on the default terms."""
        return self._by_name.get(name) or Tenant(name=name)
