"""The cache lists what is whole and removes what is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.models.cache import ModelCache
from headrace.models.pull import pull
from headrace.models.wanted import Wanted

Run = Callable[[Any], Any]


def test_entries_are_listed_oldest_first_without_what_is_half_made(
    run: Run, tmp_path: Path, tiny_gguf: Path
) -> None:
    cache = ModelCache(tmp_path / "cache")
    other = tiny_gguf.with_name("other.gguf")
    other.write_bytes(tiny_gguf.read_bytes())
    for file in (tiny_gguf, other):
        run(pull(cache.root, Wanted(f"file:{file}"), lambda step: None))
    cache.folder("file:/half.gguf").mkdir()
    (cache.folder("file:/torn.gguf")).mkdir()
    (cache.folder("file:/torn.gguf") / "manifest.json").write_bytes(b'{"source": "file:/to')
    assert [entry.source for entry in cache.entries()] == [f"file:{tiny_gguf}", f"file:{other}"]


def test_removing_frees_what_was_made_but_never_a_file_of_the_users(
    run: Run, tmp_path: Path, tiny_gguf: Path
) -> None:
    cache = ModelCache(tmp_path / "cache")
    source = f"file:{tiny_gguf}"
    made = run(pull(cache.root, Wanted(source, None, "q8_0"), lambda step: None))
    assert cache.remove(source) > made.size_bytes
    assert tiny_gguf.is_file()
    assert not Path(made.path).exists()
    assert cache.entries() == []
    with pytest.raises(HeadraceError) as caught:
        cache.remove(source)
    assert caught.value.code == Code.NOT_FOUND


def test_sources_of_one_file_name_have_folders_of_their_own(tmp_path: Path) -> None:
    cache = ModelCache(tmp_path)
    folders = {cache.folder("hf:a/b/x.gguf"), cache.folder("hf:a/c/x.gguf")}
    locks = {cache.lock_file("hf:a/b/x.gguf"), cache.lock_file("hf:a/c/x.gguf")}
    assert len(folders | locks) == 4
