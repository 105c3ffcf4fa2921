"""The environment as child processes and libraries find it: touched here, like everything of the environment."""

from __future__ import annotations

import os


def inherited() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)
