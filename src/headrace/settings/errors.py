"""One line for each mistake: the key's path, what it must be, and where the value came from."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping

from headrace.settings.fields import TABLES, Field, fields
from headrace.settings.paths import joined, kind_of

_TYPES = {
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "array": "a list",
    "object": "a table",
    "null": "not set",
}


class SettingsError(Exception):
    """The user's mistake, in one line."""


def explain(message: str, origins: Mapping[str, str]) -> str:
    """A conversion's complaint about the whole tree (``… - at `$.path```), in our words."""
    text, _, at = message.partition(" - at `$")
    path = at.rstrip("`").lstrip(".")
    unknown = re.match(r"Object contains unknown field `(.*)`", text)
    if unknown:
        return f"{joined(path, unknown[1])}: no such setting" + nearest(unknown[1], _keys(path))
    missing = re.match(r"Object missing required field `(.*)`", text)
    if missing:
        return f"{joined(path, missing[1])}: must be set"
    field = next((field for field in fields() if field.path == _kind(path)), None)
    return f"{path}: {in_words(text, field)}" + _from(origins.get(path))


def in_words(text: str, field: Field | None) -> str:
    """A conversion's complaint about one value, in our words."""
    text = text.partition(" - at `$")[0]
    if field and field.choices and "of length" not in text:
        return f"must be one of {', '.join(field.choices)}"
    if field and "matching regex" in text:
        return f"is not possible. {field.doc}"
    if field and field.words and text.startswith("Invalid enum value"):
        return f"must be {_TYPES[field.bare.__name__]} or {', '.join(field.words)}"
    wrong = re.match(r"Expected `([^`]*)`(?:, got `(\w+)`)?(.*)$", text)
    if not wrong:
        return text
    wanted = " or ".join(_TYPES.get(name, name) for name in wrong[1].split(" | ") if name != "null")
    bound = wrong[3].replace(">=", "≥").replace("<=", "≤").replace(".0", "")
    given = f", not {_TYPES.get(wrong[2], wrong[2])}" if wrong[2] else ""
    return f"must be {wanted}{bound}{given}"


def nearest(name: str, known: Iterable[str]) -> str:
    """A guess at what was meant."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]}?)" if close else ""


def _kind(path: str) -> str:
    """``models[0].slots`` → ``models[].slots``; the index of a value in its list goes."""
    return kind_of(re.sub(r"\[[\d.]+\]$", "", path))


def _keys(path: str) -> list[str]:
    kind = kind_of(path)
    inside = [
        table.removeprefix(f"{kind}." if kind else "")
        for table, _ in TABLES
        if table.startswith(kind)
    ]
    names = [re.sub(r"\W.*", "", table) for table in inside]
    return names + [field.name for field in fields() if field.table == kind]


def _from(origin: str | None) -> str:
    return f" ({origin})" if origin else ""
