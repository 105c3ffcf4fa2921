"""Limits that contradict each other, each with the path of the key that cannot be."""

from __future__ import annotations

from collections.abc import Mapping

from headrace.domain.limits import (
    Contradiction,
    LimitedModel,
    contradiction,
    contradiction_at_models,
)
from headrace.settings.errors import SettingsError
from headrace.settings.tree import Settings, Tenant


def check_limits(settings: Settings) -> None:
    """Raise :class:`SettingsError` for the first contradiction."""
    _check_sizes(settings)
    models = limited_models(settings)
    for index, model in enumerate(settings.models):
        _refuse(f"models[{index}].limits", contradiction(model.limits))
    for index, tenant in enumerate(settings.tenants):
        _check_tenant(f"tenants[{index}]", tenant, models)


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


def _check_tenant(path: str, tenant: Tenant, models: Mapping[str, LimitedModel]) -> None:
    _refuse(f"{path}.limits", contradiction(tenant.limits))
    wrong = contradiction_at_models(tenant.model_limits, tenant.limits, models)
    if wrong is not None:
        index, found = wrong
        _refuse(f"{path}.model_limits[{index}]", found)


def _refuse(path: str, found: Contradiction | None) -> None:
    if found is not None:
        raise SettingsError(f"{path}.{found.field}: {found.why}")
