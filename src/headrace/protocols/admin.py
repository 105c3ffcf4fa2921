"""``/admin``: keys, tenants, limits of models and settings of the running server, for keys with the scope ``admin``.

No web page may change something here through the browser of somebody on the same machine, where no key may be
needed: so a body must be said to be ``application/json``, for which browsers ask first, as for ``PUT`` and ``DELETE``.
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from typing import Annotated, Literal

import msgspec
from msgspec import Meta

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import MAX_LIFE_S, MAX_NAME, Key
from headrace.domain.limits import (
    LimitedModel,
    Limits,
    ModelLimits,
    contradiction,
    contradiction_at_models,
)
from headrace.domain.principal import Scope
from headrace.domain.tenant import NAME, Tenant, TenantName, TenantTerms
from headrace.protocols.body import Body, refuse, require_json_body
from headrace.protocols.call import Call
from headrace.protocols.errors import Header
from headrace.protocols.port import Admin
from headrace.protocols.router import Handler, Route

NO_STORE: Header = (b"cache-control", b"no-store")
"""What ``/admin`` says is kept nowhere."""


class KeyBody(msgspec.Struct, frozen=True, forbid_unknown_fields=True, gc=False):
    """What a new key is for. ``expires_in_s``: not set, it is good until it is revoked."""

    tenant: TenantName = "default"
    scopes: Annotated[tuple[Scope, ...], Meta(min_length=1)] = ("infer",)
    name: Annotated[str, Meta(max_length=MAX_NAME)] = ""
    expires_in_s: Annotated[float, Meta(gt=0, le=MAX_LIFE_S)] | None = None
    limits: Limits = Limits()


class NewKey(Key, frozen=True, kw_only=True, gc=False):
    """``key`` is shown this once; the server keeps its SHA-256."""

    key: str


class KeyList(msgspec.Struct, frozen=True, gc=False):
    object: Literal["list"]
    data: Sequence[Key]


class TermsBody(TenantTerms, frozen=True, kw_only=True, forbid_unknown_fields=True, gc=False):
    """All terms of a tenant: one that is left out has its default, so it has no limits where ``limits`` and
    ``model_limits`` are."""


class TenantList(msgspec.Struct, frozen=True, gc=False):
    object: Literal["list"]
    data: Sequence[Tenant]


class ReloadState(msgspec.Struct, frozen=True, gc=False):
    """The paths of the settings that are in force now, and of those that ``need_restart``."""

    applied: Sequence[str]
    need_restart: Sequence[str]


_key_body = Body(KeyBody)
_terms_body = Body(TermsBody)
_limits_body = Body(Limits)


class AdminEndpoints:
    def __init__(self, admin: Admin | None) -> None:
        self._known = admin

    def routes(self) -> Sequence[Route]:
        def route(method: str, path: str, handler: Handler) -> Route:
            return Route(method, path, handler, scope="admin")

        return (
            route("GET", "/admin/keys", self.keys),
            route("POST", "/admin/keys", self.create_key),
            route("DELETE", "/admin/keys/{key_id}", self.revoke_key),
            route("GET", "/admin/tenants", self.tenants),
            route("GET", "/admin/tenants/{tenant}", self.tenant),
            route("PUT", "/admin/tenants/{tenant}", self.put_tenant),
            route("DELETE", "/admin/tenants/{tenant}", self.forget_tenant),
            route("GET", "/admin/models/{model:path}/limits", self.model_limits),
            route("PUT", "/admin/models/{model:path}/limits", self.put_model_limits),
            route("DELETE", "/admin/models/{model:path}/limits", self.forget_model_limits),
            route("POST", "/admin/reload", self.reload),
        )

    @property
    def _admin(self) -> Admin:
        if self._known is None:
            raise HeadraceError(Code.NOT_FOUND, "This server has no /admin.")
        return self._known

    def keys(self, call: Call, _: str) -> None:
        call.json(KeyList("list", self._admin.registry.list_keys()), headers=[NO_STORE])

    async def create_key(self, call: Call, _: str) -> None:
        body = _key_body.decode_closed(said_json(call))
        expires_at = None if body.expires_in_s is None else time.time() + body.expires_in_s
        key, text = await self._admin.registry.create_key(
            body.tenant,
            tuple(dict.fromkeys(body.scopes)),
            body.name,
            expires_at,
            call.key_id,
            _possible(body.limits),
        )
        call.json(NewKey(**msgspec.structs.asdict(key), key=text), headers=[NO_STORE])

    async def revoke_key(self, call: Call, id: str) -> None:
        call.json(await self._admin.registry.revoke_key(id, call.key_id), headers=[NO_STORE])

    def tenants(self, call: Call, _: str) -> None:
        call.json(TenantList("list", self._admin.registry.list_tenants()), headers=[NO_STORE])

    def tenant(self, call: Call, name: str) -> None:
        call.json(self._admin.registry.tenant(name), headers=[NO_STORE])

    async def put_tenant(self, call: Call, name: str) -> None:
        terms = _terms_body.decode_closed(said_json(call))
        _possible(terms.limits)
        wrong = contradiction_at_models(
            terms.model_limits, terms.limits, self._admin.registry.models
        )
        if wrong is not None:
            index, found = wrong
            raise refuse(f"model_limits[{index}].{found.field}", found.why)
        tenant = Tenant(name=_named(name), **msgspec.structs.asdict(terms))
        await self._admin.registry.put_tenant(tenant, call.key_id)
        call.json(tenant, headers=[NO_STORE])

    async def forget_tenant(self, call: Call, name: str) -> None:
        call.json(await self._admin.registry.forget_tenant(name, call.key_id), headers=[NO_STORE])

    def model_limits(self, call: Call, name: str) -> None:
        call.json(_limits_of(self._admin.registry.model(name)), headers=[NO_STORE])

    async def put_model_limits(self, call: Call, name: str) -> None:
        registry = self._admin.registry
        model = registry.model(name)
        limits = _limits_body.decode_closed(said_json(call))
        wrong = contradiction(limits)
        if wrong is not None:
            raise refuse(wrong.field, wrong.why)
        await registry.limit_model(model.name, limits, call.key_id)
        call.json(_limits_of(model._replace(limits=limits)), headers=[NO_STORE])

    async def forget_model_limits(self, call: Call, name: str) -> None:
        registry = self._admin.registry
        known = registry.models.get(name)
        own_name = name if known is None else known.name
        call.json(
            _limits_of(await registry.forget_model_limits(own_name, call.key_id)),
            headers=[NO_STORE],
        )

    async def reload(self, call: Call, _: str) -> None:
        call.json(ReloadState(*await self._admin.reload(call.key_id)), headers=[NO_STORE])


def _limits_of(model: LimitedModel) -> ModelLimits:
    return ModelLimits(model=model.name, **msgspec.structs.asdict(model.limits))


def _possible(limits: Limits) -> Limits:
    """Limits that do not contradict each other. Raises ``INVALID_REQUEST``."""
    wrong = contradiction(limits)
    if wrong is not None:
        raise refuse(f"limits.{wrong.field}", wrong.why)
    return limits


def said_json(call: Call) -> bytes:
    """The body of a call whose head says that it is JSON. Raises as :func:`require_json_body`."""
    if call.header(b"content-type") is None:
        raise HeadraceError(
            Code.UNSUPPORTED_MEDIA_TYPE, "The header Content-Type must be application/json."
        )
    return require_json_body(call)


def _named(name: str) -> str:
    if re.search(NAME, name) is None:
        raise refuse("name", "must be 1 to 64 letters, digits, `_`, `.` or `-`")
    return name
