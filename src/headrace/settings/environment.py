"""The environment as child processes and libraries find it: touched here, like everything of the environment."""

from __future__ import annotations

import os


def inherited() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)


def without_fork_handlers() -> None:
    """Before gRPC is imported: it need not prepare for forks. Ours execute another program at once, and it
    would only say each time that it did not."""
    os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")
