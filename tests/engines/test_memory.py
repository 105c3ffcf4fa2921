from __future__ import annotations

import os
from pathlib import Path

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.engines import memory
from headrace.engines.memory import MARGIN, available, check_memory, resident


def test_a_process_like_one_that_runs_needs_somewhat_more_than_that_has() -> None:
    ours = resident(os.getpid())
    assert 2**20 < ours < available()
    check_memory(os.getpid(), int(2 * MARGIN * ours))
    with pytest.raises(HeadraceError, match=r"MiB of memory are free, and \d+ MiB") as caught:
        check_memory(os.getpid(), ours // 2)
    assert caught.value.code is Code.ENGINE_UNAVAILABLE


def test_a_process_that_is_gone_has_none() -> None:
    assert resident(2**22 + 1) == 0


def test_what_a_container_caches_of_files_is_free(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "_CGROUP", tmp_path)
    (tmp_path / "memory.max").write_text("1000\n")
    (tmp_path / "memory.current").write_text("900\n")
    (tmp_path / "memory.stat").write_text("file 700\ninactive_file 600\n")
    assert available() == 700
    (tmp_path / "memory.max").write_text("max\n")
    assert available() > 2**20
