"""What is in force: keys, certificates, tenants and limits of models of the settings, and those kept in ``keys.db``.

Everything changes while requests run: whoever is in stays in, who comes next is judged by what is in force then.
Where ``/admin`` has given a tenant terms, or a model limits, these count; the settings' do again when they are deleted.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple, TypeVar

import msgspec

from headrace.admission.certificates import Certificates, Grant
from headrace.admission.key_store import KeyStore
from headrace.admission.key_text import digest, new_key
from headrace.admission.keys import Keys
from headrace.admission.tenants import Tenants
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.limits import LimitedModel, Limits, beyond
from headrace.domain.principal import Scope
from headrace.domain.tenant import Tenant

WATCH_S = 0.5
"""How often ``keys.db`` is looked at for what others have changed."""

_logger = logging.getLogger("headrace.admission")
NO_LIMITS = Limits()
T = TypeVar("T")


class Configured(NamedTuple):
    """What the settings say. ``keys``: by their SHA-256. ``certificates``: by SPIFFE ID or prefix. ``models``: by
    their names and aliases."""

    keys: Mapping[bytes, Key] = {}
    certificates: Mapping[str, Grant] = {}
    tenants: Sequence[Tenant] = ()
    models: Mapping[str, LimitedModel] = {}


class Registry:
    """``may_be_open``: whether a server without keys may serve everybody. ``on_change``: called when something else
    is in force."""

    def __init__(self, store: KeyStore, configured: Configured, *, may_be_open: bool) -> None:
        """Raises ``STORE_FAILED``."""
        self.keys = Keys(may_be_open=may_be_open)
        self.tenants = Tenants()
        self.models: Mapping[str, LimitedModel] = {}
        """What all tenants together may use of each, by its names and aliases."""
        self._store = store
        self._stored = store.load()
        self._configured = configured
        self._changing = asyncio.Lock()
        self.on_change: Callable[[], None] | None = None
        self._apply()

    @property
    def has_created_keys(self) -> bool:
        """Whether ``keys.db`` has any, be it spent ones."""
        return bool(self._stored.keys)

    def configure(self, configured: Configured) -> None:
        """The settings were read again."""
        self._configured = configured
        self._apply()

    async def watch(self) -> None:
        """Take over what others change in the file; until cancelled."""
        failed = False
        while True:
            await asyncio.sleep(WATCH_S)
            try:
                async with self._changing:
                    if await asyncio.to_thread(self._store.changed):
                        await self._load()
                failed = False
            except HeadraceError as error:
                if not failed:
                    _logger.error("%s What was known stays in force.", error.message)
                failed = True

    def list_keys(self) -> Sequence[Key]:
        """Those of the settings, then those that were created, the newest first; spent ones too."""
        return [*self._configured.keys.values(), *self._stored.keys.values()]

    async def create_key(
        self,
        tenant: str,
        scopes: Sequence[Scope],
        name: str,
        expires_at: float | None,
        by: str,
        limits: Limits = NO_LIMITS,
    ) -> tuple[Key, str]:
        """A new key, and its text: nobody can ever read it again. Raises ``CONFLICT``, ``STORE_FAILED``, and
        ``INVALID_REQUEST`` for limits beyond its tenant's."""
        found = beyond(limits, self.tenants.of(tenant).limits, f"the tenant {tenant}")
        if found is not None:
            field = f"limits.{found.field}"
            raise HeadraceError(Code.INVALID_REQUEST, f"`{field}` {found.why}.", param=field)
        id, text = new_key()
        key = Key(id, tenant, tuple(scopes), name, time.time(), expires_at, None, limits)
        await self._change(lambda: self._store.add(digest(text), key))
        told = (id, tenant, ", ".join(scopes), by or "nobody in particular")
        _logger.info("key %s of tenant %s (%s) was created by %s", *told)
        return key, text

    async def revoke_key(self, id: str, by: str) -> Key:
        """Good for nothing from now on. Raises ``NOT_FOUND``, ``STORE_FAILED``, and ``CONFLICT`` for a key of the
        settings."""
        if any(key.id == id for key in self._configured.keys.values()):
            raise HeadraceError(
                Code.CONFLICT, f"{id} is in the settings: take it out there and reload."
            )
        key = await self._change(lambda: self._store.revoke(id, time.time()))
        if key is None:
            raise HeadraceError(Code.NOT_FOUND, f"There is no key {id[:80]!r}.")
        _logger.info("key %s was revoked by %s", id, by or "nobody in particular")
        return key

    async def put_tenant(self, tenant: Tenant, by: str) -> None:
        """These terms count from now on. Raises ``CONFLICT``, ``STORE_FAILED``."""
        await self._change(lambda: self._store.put(tenant))
        _logger.info("tenant %s got new terms from %s", tenant.name, by or "nobody in particular")

    async def forget_tenant(self, name: str, by: str) -> Tenant:
        """The terms of the settings, which count again, else the default ones. Raises ``NOT_FOUND``,
        ``STORE_FAILED``."""
        if not await self._change(lambda: self._store.forget(name)):
            raise HeadraceError(Code.NOT_FOUND, f"Tenant {name[:80]!r} has no terms of its own.")
        _logger.info("tenant %s lost its terms by %s", name, by or "nobody in particular")
        return self.tenants.of(name)

    def list_tenants(self) -> Sequence[Tenant]:
        return tuple(self.tenants)

    def tenant(self, name: str) -> Tenant:
        """Raises ``NOT_FOUND``."""
        return self.tenants.find(name)

    async def limit_model(self, model: str, limits: Limits, by: str) -> None:
        """These are its limits from now on. Raises ``STORE_FAILED``. ``model``: its own name."""
        await self._change(lambda: self._store.limit(model, limits))
        _logger.info("model %s got new limits from %s", model, by or "nobody in particular")

    async def forget_model_limits(self, model: str, by: str) -> LimitedModel:
        """With the limits of the settings, which count again; also one that the settings do not have any more. Raises
        ``NOT_FOUND``, ``STORE_FAILED``."""
        if not await self._change(lambda: self._store.forget_limits(model)):
            raise HeadraceError(Code.NOT_FOUND, f"Nobody has given {model[:80]!r} other limits.")
        _logger.info("model %s lost its new limits by %s", model, by or "nobody in particular")
        return self.models.get(model) or LimitedModel(model, NO_LIMITS)

    def model(self, name: str) -> LimitedModel:
        """By its name or an alias. Raises ``MODEL_NOT_FOUND``."""
        model = self.models.get(name)
        if model is None:
            raise HeadraceError(Code.MODEL_NOT_FOUND, f"There is no model {name[:80]!r}.")
        return model

    def close(self) -> None:
        self._store.close()

    async def _change(self, change: Callable[[], T]) -> T:
        """Change the file, and at once what is in force. Should its caller go away in between, ``watch`` does the
        rest."""
        async with self._changing:
            result = await asyncio.to_thread(change)
            await self._load()
        return result

    async def _load(self) -> None:
        self._stored = await asyncio.to_thread(self._store.load)
        self._apply()

    def _apply(self) -> None:
        configured, stored = self._configured, self._stored
        keys = {**stored.keys, **configured.keys}
        self.keys.replace(keys, Certificates(configured.certificates))
        named = dict.fromkeys([key.tenant for key in keys.values()])
        limits = {one.name: one.model_limits for one in configured.tenants}
        terms = [
            msgspec.structs.replace(one, model_limits=limits.get(one.name, ()))
            if one.name in stored.untold
            else one
            for one in stored.tenants
        ]
        self.tenants.replace([*[Tenant(name=name) for name in named], *configured.tenants, *terms])
        self.models = {
            name: LimitedModel(model.name, stored.models.get(model.name, model.limits))
            for name, model in configured.models.items()
        }
        if self.on_change is not None:
            self.on_change()
