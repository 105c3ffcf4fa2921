"""SPIFFE IDs: ``spiffe://trust-domain/path`` (SPIFFE ID §2; https://github.com/spiffe/spiffe/tree/main/standards)."""

from __future__ import annotations

import re

MAX_BYTES = 2048
_TRUST_DOMAIN = r"spiffe://[a-z0-9._-]{1,255}"
_SEGMENT = r"/(?!\.{1,2}(?:/|$))[A-Za-z0-9._-]+"

PATTERN = rf"^{_TRUST_DOMAIN}(?:(?:{_SEGMENT})+|(?:{_SEGMENT})*/\*)$"
"""An ID with its path, or everything below a trust domain or a path: with ``/*`` at its end."""
_ID = re.compile(rf"{_TRUST_DOMAIN}(?:{_SEGMENT})+")


def is_spiffe_id(name: str) -> bool:
    """Whether it is the ID of a workload; one of a whole trust domain, without a path, is not."""
    return len(name) <= MAX_BYTES and _ID.fullmatch(name) is not None
