"""How is it configured? One typed tree, defined once; flags, environment names, file keys and docs follow from it."""

from __future__ import annotations

from headrace.settings.errors import SettingsError
from headrace.settings.loading import Loaded, load
from headrace.settings.model import Model, Replica, SamplingDefaults
from headrace.settings.tree import Hook, Limits, Server, Settings, Store, Tenant

__all__ = [
    "Hook",
    "Limits",
    "Loaded",
    "Model",
    "Replica",
    "SamplingDefaults",
    "Server",
    "Settings",
    "SettingsError",
    "Store",
    "Tenant",
    "load",
]
