"""Shared memory of tests: files that are gone after them."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

FOLDER = Path("/dev/shm")


@pytest.fixture
def shared_file() -> Iterator[Callable[..., Path]]:
    """Makes a file in shared memory of so many bytes; its name may begin with something."""
    made: list[Path] = []

    def make(size: int, prefix: str = "headrace-test-") -> Path:
        path = FOLDER / f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
        path.write_bytes(bytes(size))
        made.append(path)
        return path

    yield make
    for path in made:
        path.unlink(missing_ok=True)
