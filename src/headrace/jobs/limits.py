"""What tenants may keep here."""

from __future__ import annotations

import msgspec


class Limits(msgspec.Struct, frozen=True):
    """``files``, ``tenant_bytes``: of one tenant together. ``file_bytes``: of one file. ``rows``: of one input.
    ``jobs``: of a tenant that are not over; ``running``: of these, how many run at once. ``kept_jobs``: of a tenant
    that are over."""

    files: int = 1000
    file_bytes: int = 8 << 30
    tenant_bytes: int = 64 << 30
    rows: int = 10_000_000
    jobs: int = 100
    running: int = 4
    kept_jobs: int = 1000
