"""Limits that contradict each other, each with the path of the key that cannot be."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.domain.limits import (
    Contradiction,
    LimitedModel,
    beyond,
    contradiction,
    contradiction_at_models,
)
from headrace.settings.errors import SettingsError
from headrace.settings.tree import Limits, Settings, Tenant


def check_limits(settings: Settings) -> None:
    """Raise :class:`SettingsError` for the first contradiction."""
    _check_sizes(settings)
    _check_void(settings)
    models = limited_models(settings)
    for index, model in enumerate(settings.models):
        _refuse(f"models[{index}].limits", contradiction(model.limits))
    for index, tenant in enumerate(settings.tenants):
        path = f"tenants[{index}]"
        _check_overflow(path, tenant, settings)
        _check_tenant(path, tenant, models)
        if len(settings.models) == 1:
            only = settings.models[0]
            found = beyond(tenant.limits, only.limits, f"the only model, {only.name}")
            _refuse(f"{path}.limits", found)


def limited_models(settings: Settings) -> dict[str, LimitedModel]:
    """What all tenants together may use of each model, by its names and aliases."""
    return {
        name: LimitedModel(model.name, model.limits)
        for model in settings.models
        for name in (model.name, *model.aliases)
    }


def _check_sizes(settings: Settings) -> None:
    most = settings.limits.max_tokens
    for index, model in enumerate(settings.models):
        usual = model.defaults.max_tokens
        if most is not None and usual is not None and usual > most:
            why = f"must be ≤ limits.max_tokens, which is {most}"
            raise SettingsError(f"models[{index}].defaults.max_tokens: {why}")


def _check_void(settings: Settings) -> None:
    """What never counts, since another one is lower; neither of them a default, which nobody may have meant."""
    pairs = [("reserve_tokens", "max_tokens")]
    # What waits for a batch has no other limit of its time than the queue's.
    if not any(model.engine == "onnx" or model.embedding.enabled for model in settings.models):
        pairs.append(("queue_timeout_s", "total_timeout_s"))
    limits, defaults = settings.limits, Limits()
    for name, other in pairs:
        value, most = getattr(limits, name), getattr(limits, other)
        if value == getattr(defaults, name) or most == getattr(defaults, other):
            continue
        if value > most:
            raise SettingsError(f"limits.{name}: must be ≤ limits.{other}, which is {most:g}")


def _check_overflow(path: str, tenant: Tenant, settings: Settings) -> None:
    if tenant.overflow == "wait" and not settings.limits.max_queue:
        raise SettingsError(f"{path}.overflow: nobody can wait, since limits.max_queue is 0")
    if tenant.overflow == "spill" and not any(model.fallback for model in settings.models):
        raise SettingsError(f"{path}.overflow: nothing can spill, since no model has a fallback")


def _check_tenant(path: str, tenant: Tenant, models: Mapping[str, LimitedModel]) -> None:
    _refuse(f"{path}.limits", contradiction(tenant.limits))
    wrong = contradiction_at_models(tenant.model_limits, tenant.limits, models)
    if wrong is not None:
        index, found = wrong
        _refuse(f"{path}.model_limits[{index}]", found)


def _refuse(path: str, found: Contradiction | None) -> None:
    if found is not None:
        raise SettingsError(f"{path}.{found.field}: {found.why}")
