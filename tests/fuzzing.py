"""What the fuzz of the protocols shares: how long it goes on, and how calm the server has to stay."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager

from hypothesis import HealthCheck, settings

from headrace.telemetry.logs import GUESTS, ROOT

FACTOR = int(os.environ.get("FUZZ", "1"))
"""`make fuzz` sets it: so many times the examples of `make test`."""


def examples(count: int, **more: int) -> settings:
    """``count`` of them in `make test`. ``more``: other settings of Hypothesis."""
    return settings(
        max_examples=count * FACTOR,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        **more,
    )


class _Alarms(logging.Handler):
    """Keeps what an operator would have to look into, though only a client was wrong."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.raised: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.raised.append(logging.Formatter().format(record))


@contextmanager
def calm() -> Iterator[None]:
    """Nothing here may be worth a warning: no mistake of a client is, whatever bytes it sends."""
    alarms = _Alarms()
    loggers = [logging.getLogger(name) for name in ("", ROOT, *GUESTS)]
    for logger in loggers:
        logger.addHandler(alarms)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeHandler(alarms)
    assert not alarms.raised, "\n".join(alarms.raised)
