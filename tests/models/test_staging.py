"""A staging folder lives as long as its process; a lock is held by one at a time."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from headrace.models.staging import locked, publish, staging
from headrace.models.wanted import Step

HOLD = """
import sys
from pathlib import Path
from headrace.models.staging import {what}
with {what}(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(what: str, path: Path) -> subprocess.Popen[bytes]:
    """Another process that holds it until its stdin closes."""
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD.format(what=what), str(path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert child.stdout
    assert child.stdout.readline() == b"held\n"
    return child


def inside(root: Path) -> list[Path]:
    return list(root.glob("*/"))


def test_the_folder_is_gone_afterwards_also_after_an_error(tmp_path: Path) -> None:
    def fail() -> None:
        with staging(tmp_path) as folder:
            (folder / "x").write_bytes(b"x")
            assert len(inside(tmp_path)) == 1
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert inside(tmp_path) == []


def test_what_a_killed_process_left_is_cleared_by_the_next(tmp_path: Path) -> None:
    with holder("staging", tmp_path) as child:
        left = inside(tmp_path)
        assert len(left) == 1
        child.send_signal(signal.SIGKILL)
        child.wait()
        assert inside(tmp_path) == left
    with staging(tmp_path):
        assert not left[0].exists()


def test_the_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    with holder("staging", tmp_path) as child:
        theirs = inside(tmp_path)
        with staging(tmp_path) as ours:
            assert theirs[0].is_dir()
            assert ours.parent not in theirs
        child.communicate()


def test_a_lock_is_waited_for_and_the_wait_is_reported(tmp_path: Path) -> None:
    file = tmp_path / "x.lock"
    steps: list[Step] = []
    with holder("locked", file) as child:

        def report(step: Step) -> None:
            steps.append(step)
            if len(steps) == 2 and child.stdin:
                child.stdin.close()

        with locked(file, report):
            assert child.wait() == 0
    assert steps[0] == Step("waiting")


def test_publishing_replaces_the_old_file_at_once(tmp_path: Path) -> None:
    (tmp_path / "new").write_bytes(b"new")
    target = tmp_path / "deep" / "file"
    publish(tmp_path / "new", target)
    assert target.read_bytes() == b"new"
    assert not (tmp_path / "new").exists()
