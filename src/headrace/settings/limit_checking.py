"""Limits that contradict each other, each with the path of the key that cannot be."""

from __future__ import annotations

from headrace.domain.limits import Contradiction, beyond, contradiction
from headrace.settings.errors import SettingsError
from headrace.settings.model import Model
from headrace.settings.tree import Settings, Tenant


def check_limits(settings: Settings) -> None:
    """Raise :class:`SettingsError` for the first contradiction."""
    _check_sizes(settings)
    models = {name: model for model in settings.models for name in (model.name, *model.aliases)}
    for index, model in enumerate(settings.models):
        _refuse(f"models[{index}].limits", contradiction(model.limits))
    for index, tenant in enumerate(settings.tenants):
        _check_tenant(f"tenants[{index}]", tenant, models)


def _check_sizes(settings: Settings) -> None:
    most = settings.limits.max_tokens
    for index, model in enumerate(settings.models):
        usual = model.defaults.max_tokens
        if most is not None and usual is not None and usual > most:
            why = f"must be ≤ limits.max_tokens, which is {most}"
            raise SettingsError(f"models[{index}].defaults.max_tokens: {why}")


def _check_tenant(path: str, tenant: Tenant, models: dict[str, Model]) -> None:
    _refuse(f"{path}.limits", contradiction(tenant.limits))
    seen: set[str] = set()
    for index, limits in enumerate(tenant.model_limits):
        inner = f"{path}.model_limits[{index}]"
        model = models.get(limits.model)
        if model is None:
            raise SettingsError(f"{inner}.model: there is no model {limits.model}")
        if model.name in seen:
            raise SettingsError(f"{inner}.model: {limits.model} comes twice")
        seen.add(model.name)
        _refuse(inner, contradiction(limits))
        _refuse(inner, beyond(limits, tenant.limits, "the tenant"))
        _refuse(inner, beyond(limits, model.limits, f"the model {model.name}"))


def _refuse(path: str, found: Contradiction | None) -> None:
    if found is not None:
        raise SettingsError(f"{path}.{found.field}: {found.why}")
