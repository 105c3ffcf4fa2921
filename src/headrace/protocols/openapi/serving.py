"""What operates a server: probes, figures, keys, tenants, models."""

from __future__ import annotations

from headrace.domain.key import Key
from headrace.domain.limits import Limits, ModelLimits
from headrace.domain.tenant import Tenant
from headrace.protocols.admin import KeyBody, KeyList, NewKey, ReloadState, TenantList, TermsBody
from headrace.protocols.admin_models import ModelBody, ModelStates
from headrace.protocols.openapi.operation import Json, Operation
from headrace.protocols.operations import Health, Version

_ADMIN = (401, 403, 404)
_CHANGE = (400, *_ADMIN, 409, 413, 415)
_LOAD = (400, *_ADMIN, 413, 415, 503)

EXAMPLES: dict[str, Json] = {
    "KeyBody": {
        "tenant": "shop",
        "scopes": ["infer"],
        "name": "the shop's backend",
        "expires_in_s": 7_776_000,
        "limits": {"tokens_per_day": 1_000_000},
    },
    "TermsBody": {
        "weight": 2,
        "level": "interactive",
        "ttft_ms": 800,
        "limits": {"requests_per_minute": 600, "concurrent": 8},
    },
    "Limits": {"requests_per_minute": 6000, "concurrent": 32},
    "ModelBody": {"model": "minilm"},
}

OPERATIONS: tuple[Operation, ...] = (
    Operation("GET", "/livez", "Is the process up?", Health),
    Operation("GET", "/ping", "Is the process up?", Health),
    Operation("GET", "/readyz", "Can a model serve?", Health),
    Operation("GET", "/health", "Can a model serve?", Health),
    Operation("GET", "/version", "The version", Version),
    Operation(
        "GET", "/metrics", "Figures, as text or as JSON by Accept", str, errors=(401, 403, 404)
    ),
    Operation("GET", "/admin/keys", "List the keys, without what they are", KeyList, errors=_ADMIN),
    Operation("POST", "/admin/keys", "A new key, shown this once", NewKey, KeyBody, errors=_CHANGE),
    Operation(
        "DELETE",
        "/admin/keys/{key_id}",
        "Revoke a key",
        Key,
        parameters=("key_id",),
        errors=(*_ADMIN, 409),
    ),
    Operation("GET", "/admin/tenants", "List the tenants", TenantList, errors=_ADMIN),
    Operation(
        "GET",
        "/admin/tenants/{tenant}",
        "A tenant's terms",
        Tenant,
        parameters=("tenant",),
        errors=_ADMIN,
    ),
    Operation(
        "PUT",
        "/admin/tenants/{tenant}",
        "Give a tenant all its terms, whatever the settings say: one that is left out has its default, limits too",
        Tenant,
        TermsBody,
        parameters=("tenant",),
        errors=_CHANGE,
    ),
    Operation(
        "DELETE",
        "/admin/tenants/{tenant}",
        "Take them away: what the settings say counts again",
        Tenant,
        parameters=("tenant",),
        errors=_ADMIN,
    ),
    Operation(
        "POST",
        "/admin/reload",
        "Read the settings again",
        ReloadState,
        errors=(*_ADMIN, 422),
    ),
    Operation(
        "GET",
        "/admin/models/{model}/limits",
        "What all tenants together may use of a model",
        ModelLimits,
        parameters=("limited_model",),
        errors=_ADMIN,
    ),
    Operation(
        "PUT",
        "/admin/models/{model}/limits",
        "Give a model all its limits, whatever the settings say: one that is left out is none",
        ModelLimits,
        Limits,
        parameters=("limited_model",),
        errors=_CHANGE,
    ),
    Operation(
        "DELETE",
        "/admin/models/{model}/limits",
        "Take them away: what the settings say counts again",
        ModelLimits,
        parameters=("limited_model",),
        errors=_ADMIN,
    ),
    Operation("GET", "/admin/models", "Which models are loaded", ModelStates, errors=(401, 403)),
    Operation(
        "POST",
        "/admin/models/load",
        "Load a model that takes tensors",
        ModelStates,
        ModelBody,
        errors=_LOAD,
    ),
    Operation(
        "POST",
        "/admin/models/unload",
        "Unload it, until it is loaded again",
        ModelStates,
        ModelBody,
        errors=_LOAD,
    ),
    Operation("GET", "/openapi.json", "This document", dict),
)
