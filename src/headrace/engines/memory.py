"""Whether there is memory for another process like one that runs."""

from __future__ import annotations

import os
from pathlib import Path

from headrace.domain.errors import Code, HeadraceError

MARGIN = 1.25
"""Of what the one that runs has: what is free now may not be in a moment."""
_CGROUP = Path("/sys/fs/cgroup")


def check_memory(pid: int, free: int, part: float = 1.0) -> None:
    """Raise ``ENGINE_UNAVAILABLE`` if so many free bytes are not enough for another process, ``part`` as large as this
    one."""
    wanted = MARGIN * part * resident(pid)
    if free < wanted:
        said = f"{free / 2**20:.0f} MiB of memory are free, and {wanted / 2**20:.0f} MiB are wanted"
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, said)


def resident(pid: int) -> int:
    """Bytes of a process in memory; 0 for none."""
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except OSError:
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


def available() -> int:
    """Bytes that new processes may have, of the machine or of the container (cgroup v2), whichever has less."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    free = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    try:
        most = (_CGROUP / "memory.max").read_text().strip()
        used = int((_CGROUP / "memory.current").read_text()) - _reclaimable()
    except OSError:
        return free
    return free if most == "max" else min(free, int(most) - used)


def _reclaimable() -> int:
    """Cached files that the kernel gives up first; kubelet does not count them as used either."""
    lines = (_CGROUP / "memory.stat").read_text().splitlines()
    return next((int(line.split()[1]) for line in lines if line.startswith("inactive_file ")), 0)
