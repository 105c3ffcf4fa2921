"""A user's mistake as one line on standard error, never as a traceback."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

import click

from headrace.cli.connection import NoServer, Unavailable
from headrace.domain.errors import HeadraceError
from headrace.front.sockets import CannotListen
from headrace.settings import SettingsError

_LISTENING = {
    errno.EADDRINUSE: "choose another port (--port), or stop what listens there",
    errno.EADDRNOTAVAIL: "choose an address of this machine (--host)",
    errno.EACCES: "choose what you have the rights for (--port above 1023, --state-dir)",
}


class Mistake(click.ClickException):
    """One line; exit status 1."""


class SettingsMistake(Mistake):
    """What the settings say wrongly."""

    exit_code = 2


@contextmanager
def told() -> Iterator[None]:
    """Turn the known errors of the body into one line and an exit status; others pass."""
    try:
        yield
    except Exception as error:
        mistake = _mistake(_only(error))
        if mistake is None:
            raise
        raise mistake from None


def _only(error: Exception) -> BaseException:
    """The error itself, also where a group of tasks wrapped it."""
    inner: BaseException = error
    while isinstance(inner, BaseExceptionGroup) and len(inner.exceptions) == 1:
        inner = inner.exceptions[0]
    return inner


def _mistake(error: BaseException) -> Mistake | None:
    if isinstance(error, SettingsError):
        return SettingsMistake(str(error))
    if isinstance(error, HeadraceError):
        return Mistake(error.message)
    if isinstance(error, NoServer):
        return Mistake(f"{error}; start one: headrace serve")
    if isinstance(error, Unavailable):
        return Mistake(str(error))
    if isinstance(error, CannotListen) and error.errno not in _LISTENING:
        return Mistake(str(error.strerror))
    if isinstance(error, OSError) and error.errno in _LISTENING:
        where = f"{error.filename}: " if error.filename else ""
        return Mistake(f"{where}{error.strerror}; {_LISTENING[error.errno]}")
    return None
