"""What `headrace models convert` says before it begins; the conversion itself is `make genai-test`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path


def convert(*arguments: str, without: str = "") -> subprocess.CompletedProcess[str]:
    code = f"""
import sys
if {without!r}:
    sys.modules[{without!r}] = None
from headrace.cli.main import main
main(["models", "convert", *{arguments!r}])
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=50)


def test_a_folder_that_is_there_is_not_written_over(tmp_path: Path) -> None:
    told = convert("-o", str(tmp_path))
    assert told.returncode == 1
    assert f"{tmp_path} is there already; name another folder with -o" in told.stderr
    told = convert("-o", str(tmp_path / "a" / "b"))
    assert f"there is no folder {tmp_path}/a" in told.stderr


def test_missing_packages_are_one_line(tmp_path: Path) -> None:
    told = convert("-o", str(tmp_path / "out"), without="accelerate")
    assert told.returncode == 1
    assert "(accelerate): pip install 'headrace[genai-tools]'" in told.stderr
    assert "Traceback" not in told.stderr
