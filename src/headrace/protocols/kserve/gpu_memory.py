"""Memory of GPUs, which is not shared: none is listed, to forget some is no mistake, to register some is refused, as at
a Triton that was built without GPUs. Its own examples begin by forgetting all of it."""

from __future__ import annotations

from typing import NoReturn

from headrace.domain.errors import Code, HeadraceError


def listed(name: str = "") -> list[dict[str, object]]:
    """Raises ``NOT_FOUND`` for a name."""
    if name:
        raise HeadraceError(Code.NOT_FOUND, f"The region {name[:200]!r} is not registered.")
    return []


def register(name: str) -> NoReturn:
    """Raises ``UNSUPPORTED``."""
    said = f"The region {name[:200]!r} is of a GPU, whose memory is not shared here; system shared memory is."
    raise HeadraceError(Code.UNSUPPORTED, said)
