"""What a job takes does not depend on how many rows it has."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

FEW, MANY = 2_000, 30_000
"""The second file is 5 MB, its results 7 MB; what is allowed is less than either."""


def peak_kib(rows: int, folder: Path) -> int:
    command = [sys.executable, "-m", "tests.jobs.large", str(rows), str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=50)
    return int(done.stdout)


def test_many_rows_need_hardly_more_memory_than_few(tmp_path: Path) -> None:
    few = peak_kib(FEW, tmp_path / "few")
    many = peak_kib(MANY, tmp_path / "many")
    assert many - few < 4 * 1024
