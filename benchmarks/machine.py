"""What processes cost, read from /proc; and on what machine.

CPU is the run time of every thread of a process and its descendants (``schedstat``, nanoseconds): it
holds on a noisy machine where wall-clock figures do not. Memory is PSS: shared pages are split.
"""

from __future__ import annotations

import os
import platform
from datetime import date
from pathlib import Path

PROC = Path("/proc")


def descendants(pid: int) -> list[int]:
    """The process and everything it started."""
    children: dict[int, list[int]] = {}
    for entry in PROC.glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        children.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    found, queue = [], [pid]
    while queue:
        found.append(queue.pop())
        queue += children.get(found[-1], [])
    return found


def cpu_s(pid: int) -> float:
    """CPU seconds of the process tree so far."""
    return sum(_thread_ns(task) for p in descendants(pid) for task in _tasks(p)) / 1e9


def pss_mb(pid: int) -> float:
    """Memory of the process tree."""
    return sum(_pss_kb(p) for p in descendants(pid)) / 1024


def listening_ports(pid: int) -> set[int]:
    """TCP ports on which the process itself listens (not its descendants)."""
    sockets = set()
    for link in (PROC / str(pid) / "fd").iterdir():
        try:
            sockets.add(os.readlink(link))
        except OSError:
            continue
    ports = set()
    for table in ("tcp", "tcp6"):
        for line in (PROC / "net" / table).read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                ports.add(int(fields[1].rpartition(":")[2], 16))
    return ports


def description() -> str:
    """One line for the head of a table."""
    model = next(
        (line.partition(":")[2].strip() for line in _cpuinfo() if line.startswith("model name")),
        platform.machine(),
    )
    memory_gb = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return (
        f"{os.cpu_count()} cores {model}, {memory_gb:.0f} GB, Linux {platform.release().split('-')[0]}, "
        f"Python {platform.python_version()}, {date.today().isoformat()}"
    )


def _cpuinfo() -> list[str]:
    return (PROC / "cpuinfo").read_text().splitlines()


def _tasks(pid: int) -> list[Path]:
    try:
        return list((PROC / str(pid) / "task").iterdir())
    except OSError:
        return []


def _thread_ns(task: Path) -> int:
    try:
        return int((task / "schedstat").read_text().split()[0])
    except OSError:
        return 0


def _pss_kb(pid: int) -> int:
    try:
        lines = (PROC / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("Pss:")), 0)
