"""Shared memory: what is taken, what is looked at before each use, and what is left of whoever dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import gc
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.shared_memory import regions as regions_module
from headrace.shared_memory.regions import MAX_REGIONS, Regions

PAGE = os.sysconf("SC_PAGE_SIZE")
Make = Callable[..., Path]


def inside(test: Callable[[Regions], Any]) -> None:
    """Run a test with regions, in an event loop."""

    async def main() -> None:
        regions = Regions()
        try:
            found = test(regions)
            if found is not None:
                await found
        finally:
            regions.close()

    asyncio.run(asyncio.wait_for(main(), 30))


def register(regions: Regions, key: str, name: str = "r", **options: Any) -> None:
    options = {"offset": 0, "byte_size": PAGE, "alone": True, "leased": False} | options
    tenant = options.pop("tenant", "default")
    regions.register(tenant, name, key, options.pop("offset"), options.pop("byte_size"), **options)


def refused(code: Code, work: Callable[[], Any]) -> str:
    with pytest.raises(HeadraceError) as raised:
        work()
    assert raised.value.code is code
    return raised.value.message


def descriptors() -> int:
    """Of shared memory."""
    gc.collect()
    links = []
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(FileNotFoundError):
            links.append(os.readlink(f"/proc/self/fd/{name}"))
    return sum(link.startswith(("/dev/shm/", "/memfd:")) for link in links)


def test_what_a_client_writes_is_read_and_what_is_written_it_reads(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(3 * PAGE)
        register(regions, f"/{path.name}", offset=PAGE + 8, byte_size=PAGE)
        region = regions.find("default", "r")
        with path.open("r+b") as file:
            file.seek(PAGE + 12)
            file.write(b"hello")
        assert bytes(region.read(4, 5)) == b"hello"
        room = region.room(16, 4)
        assert room is not None
        room[:] = b"back"
        region.write(32, memoryview(b"too"))
        content = path.read_bytes()
        assert content[PAGE + 24 : PAGE + 28] == b"back"
        assert content[PAGE + 40 : PAGE + 43] == b"too"

    inside(test)


def test_a_view_is_of_the_clients_pages(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        register(regions, path.name)
        view = regions.find("default", "r").read(0, PAGE)
        with path.open("r+b") as file:
            file.write(b"later")
        assert bytes(view[:5]) == b"later"

    inside(test)


def test_beside_other_tenants_a_file_is_copied_by_system_calls(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE, "acme.")
        register(regions, path.name, tenant="acme", alone=False)
        region = regions.find("acme", "r")
        before = region.read(0, 5)
        with path.open("r+b") as file:
            file.write(b"later")
        assert bytes(before) == bytes(5)
        assert region.room(0, 5) is None
        region.write(8, memoryview(b"back"))
        assert path.read_bytes()[8:12] == b"back"
        os.truncate(path, 16)  # no page of it is ours: nothing can be hurt
        message = refused(Code.INVALID_REQUEST, lambda: region.read(0, 64))
        assert "has 16 bytes; 64 are needed" in message
        refused(Code.INVALID_REQUEST, lambda: region.write(0, memoryview(bytes(64))))
        assert path.stat().st_size == 16

    inside(test)


def test_a_memfd_that_cannot_shrink_is_viewed_beside_other_tenants() -> None:
    def test(regions: Regions) -> None:
        fd = os.memfd_create("acme.tensors", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, PAGE)
        key = f"memfd:{os.getpid()}:{fd}"
        unsealed = refused(
            Code.INVALID_REQUEST,
            lambda: register(regions, key, tenant="acme", alone=False),
        )
        assert "F_SEAL_SHRINK" in unsealed
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        refused(Code.FORBIDDEN, lambda: register(regions, key, tenant="other", alone=False))
        register(regions, key, tenant="acme", alone=False)
        room = regions.find("acme", "r").room(0, 4)
        assert room is not None
        room[:] = b"here"
        assert os.pread(fd, 4, 0) == b"here"
        regions.sweep()
        assert regions.listed("acme")
        os.close(fd)
        regions.sweep()
        assert not regions.listed("acme")

    inside(test)


@pytest.mark.parametrize(
    "key",
    ["", "/", "..", "/..", ".", "a/b", "/a/b", "../etc/passwd", "//a", "a b", "a\n", "a" * 251],
)
def test_a_key_is_one_name(key: str) -> None:
    inside(lambda regions: None)

    def test(regions: Regions) -> None:
        message = refused(Code.INVALID_REQUEST, lambda: register(regions, key))
        assert "one name" in message

    inside(test)


def test_what_is_no_shared_memory_is_not_opened(shared_file: Make, tmp_path: Path) -> None:
    def test(regions: Regions) -> None:
        file = shared_file(PAGE)
        link = file.with_name(file.name + "-link")
        fifo = file.with_name(file.name + "-fifo")
        secret = tmp_path / "secret"
        secret.write_bytes(bytes(PAGE))
        link.symlink_to(secret)
        os.mkfifo(fifo)
        before = descriptors()
        try:
            refused(Code.NOT_FOUND, lambda: register(regions, link.name))
            refused(Code.INVALID_REQUEST, lambda: register(regions, fifo.name))
        finally:
            link.unlink()
            fifo.unlink()
        refused(Code.NOT_FOUND, lambda: register(regions, "headrace-test-is-not-there"))
        refused(Code.NOT_FOUND, lambda: register(regions, "memfd:999999999:1"))
        with secret.open() as opened:
            key = f"memfd:{os.getpid()}:{opened.fileno()}"
            refused(Code.INVALID_REQUEST, lambda: register(regions, key))
        assert descriptors() == before

    inside(test)


def test_a_region_is_within_its_file_and_a_tensor_within_its_region(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        before = descriptors()
        for offset, size in ((0, PAGE + 1), (1, PAGE), (PAGE, 1), (1 << 61, 1 << 61)):
            refused(
                Code.INVALID_REQUEST,
                lambda offset=offset, size=size: register(  # type: ignore[misc]
                    regions, path.name, offset=offset, byte_size=size
                ),
            )
        assert descriptors() == before
        register(regions, path.name, offset=16, byte_size=32)
        region = regions.find("default", "r")
        for offset, size in ((0, 33), (32, 1), (-1, 4), (0, -1), (1 << 70, 1)):
            refused(Code.INVALID_REQUEST, lambda o=offset, s=size: region.read(o, s))  # type: ignore[misc]
            refused(Code.INVALID_REQUEST, lambda o=offset, s=size: region.room(o, s))  # type: ignore[misc]
        assert len(region.read(31, 1)) == 1

    inside(test)


def test_a_file_that_has_become_shorter_is_noticed_before_it_is_used(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(4 * PAGE)
        register(regions, path.name, byte_size=4 * PAGE)
        region = regions.find("default", "r")
        os.truncate(path, PAGE)
        message = refused(Code.INVALID_REQUEST, lambda: region.read(0, 2 * PAGE))
        assert "bytes; 8192 are needed" in message or str(2 * PAGE) in message
        refused(Code.INVALID_REQUEST, lambda: region.room(PAGE, 1))
        refused(Code.INVALID_REQUEST, lambda: region.write(PAGE, memoryview(b"x")))
        assert bytes(region.read(0, 4)) == bytes(4)

    inside(test)


def test_a_region_has_all_its_pages_before_it_is_written_to(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(0)
        os.truncate(path, 64 * PAGE)
        assert path.stat().st_blocks == 0
        register(regions, path.name, byte_size=64 * PAGE)
        assert path.stat().st_blocks * 512 >= 64 * PAGE

    inside(test)


def test_a_region_is_its_tenants_alone(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE, "acme.")
        foreign = "must have a name that begins with 'other.'"
        register(regions, path.name, tenant="acme", alone=False)
        assert foreign in refused(
            Code.FORBIDDEN, lambda: register(regions, path.name, tenant="other", alone=False)
        )
        never = refused(Code.NOT_FOUND, lambda: regions.find("other", "never"))
        assert refused(Code.NOT_FOUND, lambda: regions.find("other", "r")) == never.replace(
            "never", "r"
        )
        assert regions.listed("other") == ()
        regions.unregister("other", "r")
        regions.unregister("other")
        assert regions.listed("acme", "r")[0].key == path.name

    inside(test)


def test_a_name_is_taken_once_and_there_are_only_so_many(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        before = descriptors()
        register(regions, path.name)
        assert "registered already" in refused(Code.CONFLICT, lambda: register(regions, path.name))
        for name in ("", "n" * 257):
            refused(Code.INVALID_REQUEST, lambda name=name: register(regions, path.name, name))  # type: ignore[misc]
        for number in range(1, MAX_REGIONS):
            register(regions, path.name, f"r{number}")
        assert "one too many" in refused(
            Code.CONFLICT, lambda: register(regions, path.name, "more")
        )
        regions.unregister("default", "r1")
        register(regions, path.name, "more")
        regions.unregister("default")
        assert regions.listed("default") == ()
        assert descriptors() == before

    inside(test)


def test_what_is_still_used_of_an_unregistered_region_stays_mapped(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        before = descriptors()
        register(regions, path.name)
        room = regions.find("default", "r").room(0, 4)
        assert room is not None
        regions.unregister("default", "r")
        room[:] = b"late"
        assert path.read_bytes()[:4] == b"late"
        assert path.name in Path("/proc/self/maps").read_text()
        del room
        assert path.name not in Path("/proc/self/maps").read_text()
        assert descriptors() == before

    inside(test)


HOLDER = """
import mmap, os, sys
fd = os.open(sys.argv[1], os.O_RDWR)
map = mmap.mmap(fd, 0)
print("there", flush=True)
sys.stdin.read()
"""


def holding(path: Path) -> subprocess.Popen[bytes]:
    """A client: a process that has the file mapped."""
    client = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert client.stdout is not None
    assert client.stdout.readline() == b"there\n"
    return client


def killed(client: subprocess.Popen[bytes]) -> None:
    client.send_signal(signal.SIGKILL)
    client.wait()
    assert client.stdin is not None
    assert client.stdout is not None
    client.stdin.close()
    client.stdout.close()


class Telling(Regions):
    """Says when it has looked for clients that died."""

    def __init__(self) -> None:
        super().__init__()
        self.swept = asyncio.Event()

    def sweep(self) -> None:
        super().sweep()
        self.swept.set()


def test_of_a_killed_client_that_leased_its_memory_nothing_is_left(
    shared_file: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regions_module, "SWEEP_S", 0.01)

    async def kill(regions: Telling, path: Path) -> None:
        client = holding(path)
        register(regions, path.name, leased=True)
        register(regions, path.name, "twice", leased=True)
        await regions.swept.wait()
        assert len(regions.listed("default")) == 2
        killed(client)
        while regions.listed("default"):
            regions.swept.clear()
            await regions.swept.wait()

    path = shared_file(PAGE)
    asyncio.run(asyncio.wait_for(kill(Telling(), path), 30))
    assert not path.exists()
    assert path.name not in Path("/proc/self/maps").read_text()


def test_memory_that_has_a_name_and_no_lease_waits_for_its_client(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        client = holding(path)
        register(regions, path.name)
        killed(client)
        regions.sweep()
        assert regions.listed("default")
        assert path.exists()

    inside(test)


def test_memory_without_a_name_that_nobody_else_has_is_let_go(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        client = holding(path)
        register(regions, path.name)
        path.unlink()
        regions.sweep()
        assert regions.listed("default")  # the client has it mapped
        killed(client)
        regions.sweep()
        assert not regions.listed("default")

    inside(test)


def test_a_file_that_took_the_name_of_a_leased_one_is_not_removed(shared_file: Make) -> None:
    def test(regions: Regions) -> None:
        path = shared_file(PAGE)
        register(regions, path.name, leased=True)
        path.unlink()
        path.write_bytes(b"another's")
        regions.sweep()
        assert not regions.listed("default")
        assert path.read_bytes() == b"another's"

    inside(test)
