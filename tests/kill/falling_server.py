"""The server as users start it, but for one thing: at a given append it is killed with ``kill -9``
between the moment the events have reached the operating system and the moment readers see them.

usage: falling_server.py APPENDS headrace-arguments…   (0: never falls)
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence

from headrace.cli.main import main
from headrace.domain.event import Event
from headrace.streams.log import Log


def fall_after(appends: int) -> None:
    """Kill this process when that many batches were stored, before the last is visible."""
    stored = Log.stored
    left = appends

    def falling(self: Log, events: Sequence[Event]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        stored(self, events)

    Log.stored = falling  # type: ignore[method-assign]


if __name__ == "__main__":
    appends = int(sys.argv.pop(1))
    if appends:
        fall_after(appends)
    main()
