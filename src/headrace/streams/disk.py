"""What a store's logs take on the disk."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path


def log_bytes(database: Path) -> int:
    """Bytes of the database, its write-ahead log and the journal's files, which are allocated before they
    are filled. From any thread."""
    found = 0
    with contextlib.suppress(FileNotFoundError):
        for entry in os.scandir(database.parent):
            if entry.name.startswith(database.name) and not entry.name.endswith(_NO_LOG):
                with contextlib.suppress(FileNotFoundError):  # a journal file that was just deleted
                    found += entry.stat().st_size
    return found


_NO_LOG = (".lock", "-shm")
"""Beside a database, but nothing of a log in them."""
