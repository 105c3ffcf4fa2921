"""All regions: whose they are, and that nothing is left of them when nobody can use them."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from headrace.domain.errors import Code, HeadraceError
from headrace.shared_memory.region import Region
from headrace.shared_memory.segment import Segment, allocate, open_segment

MAX_REGIONS = 256
"""Of a tenant. Each holds a descriptor and a mapping."""
MAX_NAME = 256
MAX_BYTES = 1 << 30
"""Of a region: its memory is had when it is registered, for which everybody waits."""
SWEEP_S = 1.0
"""How often it is looked for those whose clients have died."""
_FARTHEST = 1 << 48
_logger = logging.getLogger("headrace.shared_memory")


class Regions:
    """Implements :class:`headrace.protocols.memory_port.Memory`. Regions of another tenant are as if they were not
    there."""

    def __init__(self) -> None:
        self._tenants: dict[str, dict[str, Region]] = {}
        self._segments: dict[tuple[int, int], Segment] = {}
        self._timer: asyncio.TimerHandle | None = None

    def register(
        self,
        tenant: str,
        name: str,
        key: str,
        offset: int,
        byte_size: int,
        *,
        alone: bool,
        leased: bool,
    ) -> None:
        """Take a region. ``alone``: the server has no other tenants whose memory, or whose requests, could be
        harmed. Raises ``INVALID_REQUEST``, ``FORBIDDEN``, ``NOT_FOUND`` and ``CONFLICT``."""
        regions = self._tenants.get(tenant, {})
        self._check_name(name, regions)
        if not 0 <= offset < _FARTHEST or not 1 <= byte_size <= MAX_BYTES:
            said = f"must have an `offset` from 0 and a `byte_size` from 1 to {MAX_BYTES}"
            raise _bad(name, said)
        segment = self._opened(key, None if alone else tenant)
        try:
            region = _region(name, segment, offset, byte_size, alone=alone, leased=leased)
        except BaseException:
            self._close_unused(segment)
            raise
        segment.users += 1
        self._segments[segment.identity] = segment
        self._tenants.setdefault(tenant, {})[name] = region
        self._watch()

    def find(self, tenant: str, name: str) -> Region:
        """Raises ``NOT_FOUND``."""
        region = self._tenants.get(tenant, {}).get(name)
        if region is None:
            raise _bad(name, "is not registered", Code.NOT_FOUND)
        return region

    def listed(self, tenant: str, name: str = "") -> Sequence[Region]:
        """One, or all without a name. Raises ``NOT_FOUND``."""
        if name:
            return (self.find(tenant, name),)
        return tuple(self._tenants.get(tenant, {}).values())

    def unregister(self, tenant: str, name: str = "") -> None:
        """One, or all without a name; one that is not there is no mistake. What a request still uses of its memory
        stays mapped until that is over."""
        for known in tuple(self._tenants.get(tenant, {})):
            if name in ("", known):
                self._drop(tenant, known)

    def sweep(self) -> None:
        """Let go of regions whose clients have died, and remove the files of those that are leased."""
        for tenant, regions in tuple(self._tenants.items()):
            for name, region in tuple(regions.items()):
                if region.segment.abandoned(region.leased):
                    _logger.info("the region %s of %s is abandoned and forgotten", name, tenant)
                    if region.leased:
                        region.segment.unlink()
                    self._drop(tenant, name)

    def close(self) -> None:
        """Let go of all."""
        for tenant in tuple(self._tenants):
            self.unregister(tenant)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _opened(self, key: str, owner: str | None) -> Segment:
        """Regions of one file share its descriptor: only so can it be seen that no other process has it."""
        segment = open_segment(key, owner)
        known = self._segments.get(segment.identity)
        if known is None:
            return segment
        segment.close()
        return known

    def _drop(self, tenant: str, name: str) -> None:
        regions = self._tenants[tenant]
        segment = regions.pop(name).segment
        if not regions:
            del self._tenants[tenant]
        segment.users -= 1
        self._close_unused(segment)

    def _close_unused(self, segment: Segment) -> None:
        if not segment.users:
            self._segments.pop(segment.identity, None)
            segment.close()

    def _watch(self) -> None:
        if self._timer is None and self._tenants:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._look)

    def _look(self) -> None:
        self._timer = None
        self.sweep()
        self._watch()

    @staticmethod
    def _check_name(name: str, regions: dict[str, Region]) -> None:
        if not 1 <= len(name) <= MAX_NAME:
            raise _bad(name, f"must have a name of 1 to {MAX_NAME} characters")
        if name in regions:
            raise _bad(name, "is registered already; unregister it first", Code.CONFLICT)
        if len(regions) >= MAX_REGIONS:
            said = f"is one too many: {MAX_REGIONS} are registered; unregister some"
            raise _bad(name, said, Code.CONFLICT)


def _region(
    name: str, segment: Segment, offset: int, byte_size: int, *, alone: bool, leased: bool
) -> Region:
    segment.check(offset + byte_size)
    viewed = alone or segment.sealed
    if viewed:
        allocate(segment, offset, byte_size)
    try:
        return Region(name, segment, offset, byte_size, viewed=viewed, leased=leased)
    except OSError as error:
        raise _bad(name, f"cannot be mapped: {error.strerror}") from None


def _bad(name: str, said: str, code: Code = Code.INVALID_REQUEST) -> HeadraceError:
    return HeadraceError(code, f"The region {name[:200]!r} {said}.")
