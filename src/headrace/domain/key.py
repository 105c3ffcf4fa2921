"""An API key as lists show it: everything but the key."""

from __future__ import annotations

import msgspec

from headrace.domain.limits import Limits
from headrace.domain.principal import Scope

MAX_NAME = 100
"""Characters of a key's name."""
MAX_LIFE_S = 10 * 366 * 86_400
"""Of a key that has an end."""


class Key(msgspec.Struct, frozen=True, gc=False):
    """``id``: the public part of a key that was created here; of one of the settings, where it stands there.
    Times are Unix seconds; ``created_at`` is None for those of the settings. ``limits``: what it may use, within
    what its tenant may."""

    id: str
    tenant: str
    scopes: tuple[Scope, ...] = ("infer",)
    name: str = ""
    created_at: float | None = None
    expires_at: float | None = None
    revoked_at: float | None = None
    limits: Limits = Limits()

    def spent(self, now: float) -> str:
        """Why it is good for nothing any more; empty while it is good."""
        if self.revoked_at is not None:
            return "was revoked"
        if self.expires_at is not None and self.expires_at <= now:
            return "has expired"
        return ""
