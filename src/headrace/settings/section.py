"""How a setting is declared: a field of a table, with what there is to say of it."""

from __future__ import annotations

from typing import Any

import msgspec


def setting(
    doc: str,
    *,
    flag: str | None = None,
    common: bool = False,
    secret: bool = False,
    live: bool = False,
    **bounds: Any,
) -> msgspec.Meta:
    """One field's doc and bounds. ``flag``: its flag where the derived name is not the usual one.
    ``common``: listed in ``headrace serve --help``. ``secret``: ``env:NAME`` is resolved, never printed.
    ``live``: a running server takes it over when it reads its settings again."""
    extra = {"flag": flag, "common": common, "secret": secret, "live": live}
    return msgspec.Meta(description=doc, extra=extra, **bounds)


class Section(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A table of the settings file."""
