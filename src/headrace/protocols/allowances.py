"""What a caller has left of its limits, as headers: OpenAI's names, and Anthropic's for its own API.

https://platform.openai.com/docs/guides/rate-limits, https://docs.anthropic.com/en/api/rate-limits
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

from headrace.domain.allowance import Allowance

Named = tuple[str, str]

NAMES = ", ".join(
    f"x-ratelimit-{field}-{what}"
    for what in ("requests", "tokens")
    for field in ("limit", "remaining", "reset")
)
ANTHROPIC_NAMES = ", ".join(
    f"anthropic-ratelimit-{what}-{field}"
    for what in ("requests", "tokens")
    for field in ("limit", "remaining", "reset")
)


def openai_allowance(allowance: Allowance) -> list[Named]:
    """Only of what is limited; a reset is a duration."""
    found = []
    for what, left in (("requests", allowance.requests), ("tokens", allowance.tokens)):
        if left is not None:
            found.append((f"x-ratelimit-limit-{what}", str(left.limit)))
            found.append((f"x-ratelimit-remaining-{what}", str(left.remaining)))
            found.append((f"x-ratelimit-reset-{what}", duration(left.reset_s)))
    return found


def anthropic_allowance(allowance: Allowance) -> list[Named]:
    """Only of what is limited; a reset is a time (RFC 3339)."""
    found = []
    for what, left in (("requests", allowance.requests), ("tokens", allowance.tokens)):
        if left is not None:
            found.append((f"anthropic-ratelimit-{what}-limit", str(left.limit)))
            found.append((f"anthropic-ratelimit-{what}-remaining", str(left.remaining)))
            found.append((f"anthropic-ratelimit-{what}-reset", _time_in(left.reset_s)))
    return found


def duration(seconds: float) -> str:
    """As OpenAI writes it: ``12ms``, ``1.5s``, ``6m0s``, ``1h2m3s``; never shorter than it is."""
    ms = max(0, math.ceil(seconds * 1000))
    if ms < 1000:
        return f"{ms}ms"
    minutes, ms = divmod(ms, 60_000)
    hours, minutes = divmod(minutes, 60)
    text = f"{ms / 1000:.3f}".rstrip("0").rstrip(".") + "s"
    if hours:
        return f"{hours}h{minutes}m{text}"
    return f"{minutes}m{text}" if minutes else text


def _time_in(seconds: float) -> str:
    at = datetime.now(UTC) + timedelta(seconds=math.ceil(seconds))
    return at.strftime("%Y-%m-%dT%H:%M:%SZ")
