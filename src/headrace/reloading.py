"""From settings to what is in force, at the start and whenever they are read again."""

from __future__ import annotations

import asyncio
import logging
import os
import signal
from collections.abc import Callable, Sequence

from headrace.admission.certificates import Grant
from headrace.admission.key_store import KeyStore
from headrace.admission.key_text import digest
from headrace.admission.registry import Configured, Registry
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.tenant import Tenant, TenantTerms
from headrace.front.sockets import CannotListen
from headrace.front.tls import Renewal, ServerTls
from headrace.protocols.port import Reloaded
from headrace.settings import Settings, SettingsError
from headrace.settings.changes import changes
from headrace.settings.checking import check_open, may_be_open
from headrace.settings.limit_checking import limited_models

Reread = Callable[[], Settings]
"""Reads the settings again, as they were read at the start. Raises :class:`SettingsError`."""

TLS_FILES = {
    "certificate": "server.ssl_certfile",
    "key": "server.ssl_keyfile",
    "client_ca": "server.ssl_client_ca",
}
"""The settings that name the files of TLS."""

_logger = logging.getLogger("headrace.settings")


def build_registry(settings: Settings) -> Registry:
    """Keys and tenants of the settings, and those kept in the state folder. Raises ``STORE_FAILED``."""
    store = KeyStore(settings.keys_path)
    return Registry(store, configured(settings), may_be_open=may_be_open(settings))


def configured(settings: Settings) -> Configured:
    """The keys, certificates, tenants and models of the settings. A key's id says where it stands."""
    keys = {
        digest(key): Key(f"server.api_key[{index}]", "default", ("infer", "metrics"))
        for index, key in enumerate(settings.server.api_key)
    }
    grants: dict[str, Grant] = {}
    tenants = []
    for tenant in settings.tenants:
        for index, key in enumerate(tenant.keys):
            id = f"tenants.{tenant.name}.keys[{index}]"
            keys[digest(key)] = Key(id, tenant.name, tenant.scopes)
        for pattern in tenant.certificates:
            grants[pattern] = Grant(tenant.name, tenant.scopes)
        terms = {name: getattr(tenant, name) for name in TenantTerms.__struct_fields__}
        tenants.append(Tenant(name=tenant.name, **terms))
    return Configured(keys, grants, tenants, limited_models(settings))


class Reloading:
    """``settings``: those in force. ``reread`` gives them anew, None where there is nothing to read. ``apply`` takes
    over what is live in them, at once and completely. ``tls``: whose files are read again, too."""

    def __init__(
        self,
        settings: Settings,
        reread: Reread | None,
        registry: Registry,
        apply: Callable[[Settings], None],
        tls: ServerTls | None = None,
    ) -> None:
        self.settings = settings
        self._reread = reread
        self._registry = registry
        self._apply = apply
        self._tls = tls
        self._one = asyncio.Lock()

    async def reload(self, by: str) -> Reloaded:
        """Read the settings and the files of TLS again. Raises ``UNPROCESSABLE`` if they have a mistake; nothing has
        changed then."""
        if self._reread is None:
            raise HeadraceError(Code.UNPROCESSABLE, "This server has no settings to read again.")
        async with self._one:
            try:
                new, renewal = await asyncio.to_thread(self._read, self._reread)
                settings, applied, waiting = changes(self.settings, new)
                check_open(settings, created_keys=self._registry.has_created_keys)
            except SettingsError as error:
                raise _nothing_changed(f"the settings have a mistake: {error}") from None
            except CannotListen as error:
                raise _nothing_changed(f"the server {error.strerror}") from None
            self._registry.configure(configured(settings))
            self._apply(settings)
            self.settings = settings
            if self._tls is not None and renewal is not None and renewal.changed:
                self._tls.use(renewal)
                files = [TLS_FILES[name] for name in renewal.changed]
                applied = (*applied, *[path for path in files if path not in waiting])
        told = (by or "nobody in particular", _listed(applied), _listed(waiting))
        _logger.info("settings were read again for %s; changed: %s; need a restart: %s", *told)
        return Reloaded(applied, waiting)

    def _read(self, reread: Reread) -> tuple[Settings, Renewal | None]:
        return reread(), None if self._tls is None else self._tls.read_again()

    async def on_signal(self) -> None:
        """The same for a signal: its mistakes are logged."""
        try:
            await self.reload("SIGHUP")
        except HeadraceError as error:
            _logger.error("%s", error.message)


def _nothing_changed(why: str) -> HeadraceError:
    return HeadraceError(Code.UNPROCESSABLE, f"Nothing has changed, since {why}.")


def on_hangup(stop: Callable[[], None], reload: Callable[[], object]) -> None:
    """What SIGHUP does on the running loop: ``reload``; but ``stop`` if it says that the terminal from which the
    server was started has been closed, as it does to every other program there (``nohup`` excepted)."""
    from_terminal = signal.getsignal(signal.SIGHUP) is signal.SIG_DFL and _has_terminal()

    def hung_up() -> None:
        if from_terminal and not _has_terminal():
            stop()
        else:
            reload()

    asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, hung_up)


def _has_terminal() -> bool:
    try:
        os.close(os.open("/dev/tty", os.O_RDONLY))
    except OSError:
        return False
    return True


def _listed(paths: Sequence[str]) -> str:
    return ", ".join(paths) or "nothing"
