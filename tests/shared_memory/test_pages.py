"""A client's memory among ours: where it lies, and of which pages it is."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from headrace.shared_memory.pages import HUGE_PAGE_BYTES, LONG_USED, Pages

PAGE = os.sysconf("SC_PAGE_SIZE")
SIZE = 2 * HUGE_PAGE_BYTES
Make = Callable[..., Path]


def mapped(path: Path, offset: int, size: int) -> Pages:
    fd = os.open(path, os.O_RDWR)
    try:
        return Pages(fd, offset, size)
    finally:
        os.close(fd)


def huge_bytes(path: Path) -> int:
    """How much of the mappings of a file is of huge pages."""
    found, ours = 0, False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if "-" in line.split()[0]:
            ours = line.endswith(str(path))
        elif ours and line.startswith("ShmemPmdMapped:"):
            found += int(line.split()[1]) * 1024
    return found


@pytest.mark.parametrize("offset", [0, PAGE])
@pytest.mark.parametrize("size", [PAGE, SIZE])
def test_they_are_the_file_s_and_go_with_the_last_view(
    shared_file: Make, offset: int, size: int
) -> None:
    path = shared_file(offset + size)
    view = mapped(path, offset, size).view(size - 4, 4)
    view[:] = b"back"
    content = path.read_bytes()
    assert content[-4:] == b"back"
    assert not any(content[:-4])
    del view
    assert path.name not in Path("/proc/self/maps").read_text()


def test_large_ones_lie_where_huge_pages_can_be(shared_file: Make) -> None:
    path = shared_file(SIZE + PAGE)
    view = mapped(path, PAGE, SIZE).view(0, SIZE)
    assert ctypes.addressof(ctypes.c_char.from_buffer(view)) % HUGE_PAGE_BYTES == PAGE


def test_a_file_that_cannot_be_mapped_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "read-only"
    path.write_bytes(bytes(SIZE))
    fd = os.open(path, os.O_RDONLY)
    try:
        with pytest.raises(PermissionError):
            Pages(fd, 0, SIZE)
    finally:
        os.close(fd)
    assert str(path) not in Path("/proc/self/maps").read_text()


def test_what_is_used_for_long_has_huge_pages(shared_file: Make) -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(1))
        path = shared_file(SIZE)
        path.write_bytes(os.urandom(SIZE))
        before = path.read_bytes()
        trial = mapped(path, 0, SIZE)
        if not trial.take_huge():
            pytest.skip("this kernel makes no huge pages of shared memory on request")
        del trial
        path.write_bytes(b"")  # its huge pages go with its content
        path.write_bytes(before)
        pages = mapped(path, 0, SIZE)
        for _ in range(LONG_USED - 1):
            pages.view(0, 1)
        await loop.run_in_executor(None, int)  # after whatever was handed over before
        assert not huge_bytes(path)
        pages.view(0, 1)
        await loop.run_in_executor(None, int)  # after whatever was handed over before
        assert bytes(pages.view(0, SIZE)) == before
        assert huge_bytes(path) == SIZE

    asyncio.run(main())


def test_small_ones_never(shared_file: Make) -> None:
    path = shared_file(PAGE)
    pages = mapped(path, 0, PAGE)
    for _ in range(LONG_USED):
        pages.view(0, 1)
    assert not pages.take_huge()
