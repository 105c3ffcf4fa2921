"""What ``headrace config`` prints can be read back, says where values came from, and hides secrets."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import get_args, get_origin, get_type_hints

import msgspec

from headrace.settings import Settings, load
from headrace.settings.fields import TABLES, fields
from headrace.settings.printing import as_toml, docs

FULL = """
[server]
port = 1234
[scheduling]
policy = "priority"
options = { levels = ["a", "b"], age_s = 5 }
[jobs]
running = 2
[[models]]
name = "up"
engine = "openai"
aliases = ["a\\"b"]
[models.defaults]
top_p = 0.5
[[models.replicas]]
url = "http://127.0.0.1:1/v1"
[[models.replicas]]
url = "http://127.0.0.1:2/v1"
slots = 3
[[models.replicas]]
url = "http://127.0.0.1:3/v1"
slots = "auto"
[[hooks]]
class = "a:B"
patterns = ["x", "y"]
deep = { z = 1, "ä b" = [true] }
"""


def test_the_printed_tree_read_again_is_the_same_tree(tmp_path: Path) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text(FULL)
    loaded = load(first, environ={})
    second.write_text(as_toml(loaded))
    assert load(second, environ={}).settings == loaded.settings


def test_each_value_says_where_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text(FULL)
    environ = {"HEADRACE_LIMITS_MAX_QUEUE": "9"}
    lines = as_toml(load(file, {"server.host": "::1"}, environ)).splitlines()
    assert f"port = 1234  # {file}" in lines
    assert 'host = "::1"  # --host' in lines
    assert "max_queue = 9  # HEADRACE_LIMITS_MAX_QUEUE" in lines
    assert "total_timeout_s = 600.0  # default" in lines
    assert "# uds is not set" in lines
    assert f'class = "a:B"  # {file}' in lines


def test_no_secret_is_printed(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text(
        '[server]\napi_key = ["plain-one", "env:KEY"]\n'
        '[[tenants]]\nname = "t"\nkeys = ["plain-two"]\n'
        '[[models]]\nname = "m"\nengine = "openai"\n'
        '[[models.replicas]]\nurl = "http://h"\napi_key = "plain-three"\n'
    )
    printed = as_toml(load(file, environ={"KEY": "plain-four"}))
    assert "plain" not in printed
    assert 'api_key = ["***", "env:KEY"]' in printed
    assert 'keys = ["***"]' in printed
    assert 'api_key = "***"' in printed


def test_the_table_of_settings_has_every_field_with_a_sentence() -> None:
    table = docs()
    for field in fields():
        assert f"| `{field.name}` |" in table
        assert field.doc.endswith("."), field.path


def tables_below(struct: type[msgspec.Struct], path: str = "") -> Iterator[str]:
    """As the settings file names them."""
    hints = get_type_hints(struct)
    for declared in msgspec.structs.fields(struct):
        kind, name = hints[declared.name], f"{path}{declared.encode_name}"
        if get_origin(kind) is tuple:
            kind, name = get_args(kind)[0], f"{name}[]"
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            yield name
            yield from tables_below(kind, f"{name}.")


def test_every_table_of_the_file_has_its_docs() -> None:
    assert {table for table, _ in TABLES} == set(tables_below(Settings))


def test_what_is_in_force_is_printed_whole() -> None:
    printed = as_toml(load(environ={}))
    singles = [one for one in tables_below(Settings) if "." not in one and "[" not in one]
    assert [line for line in printed.splitlines() if line in {f"[{one}]" for one in singles}] == [
        f"[{one}]" for one in singles
    ]
