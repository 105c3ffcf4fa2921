from __future__ import annotations

import os

import pytest

from headrace.domain.errors import Code, HeadraceError
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
