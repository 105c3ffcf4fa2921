"""A user's mistake as one line on standard error, never as a traceback."""

from __future__ import annotations

import errno
import re
from collections.abc import Iterator
from contextlib import contextmanager

import click

from headrace.domain.errors import HeadraceError
from headrace.settings import SettingsError


class Mistake(click.ClickException):
    """One line; exit status 1."""


class SettingsMistake(Mistake):
    """What the settings say wrongly."""

    exit_code = 2


@contextmanager
def told() -> Iterator[None]:
    """Turn the known errors of the body into one line and an exit status."""
    try:
        yield
    except SettingsError as error:
        raise SettingsMistake(str(error)) from None
    except HeadraceError as error:
        raise Mistake(error.message) from None
    except OSError as error:
        line = listening(error)
        if line is None:
            raise
        raise Mistake(line) from None


def listening(error: OSError) -> str | None:
    """Why a server cannot listen, in words; None for any other error."""
    why = {
        errno.EADDRINUSE: "is taken; stop what listens there or choose another port (--port)",
        errno.EADDRNOTAVAIL: "is not an address of this machine (--host)",
        errno.EACCES: "needs rights that you do not have; choose a port above 1023 (--port)",
    }.get(error.errno or 0)
    if why is None:
        return None
    address = re.search(r"\('([^']*)', (\d+)", str(error))
    return f"{address[1]}:{address[2]} {why}" if address else f"the address {why}"
