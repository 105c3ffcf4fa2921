"""Settings of models that take tensors, and of others that have such settings."""

from __future__ import annotations

from headrace.settings.errors import SettingsError
from headrace.settings.model import Batching, Model, Onnx


def check_tensors(path: str, model: Model) -> None:
    """Raise :class:`SettingsError` for the first contradiction."""
    if model.engine == "onnx":
        _check_versions(path, model)
        _check_batching(f"{path}.batching", model.batching)
        _check_providers(f"{path}.onnx", model.onnx)
        return
    for name, unset in (("versions", ()), ("onnx", Onnx()), ("batching", Batching())):
        if getattr(model, name) != unset:
            raise SettingsError(f"{path}.{name}: only the engine onnx has it")


def _check_versions(path: str, model: Model) -> None:
    if model.source and model.versions:
        raise SettingsError(f"{path}.source: the versions have theirs; leave it out")
    names = [one.version for one in model.versions]
    for index, name in enumerate(names):
        if name in names[:index]:
            raise SettingsError(f"{path}.versions[{index}].version: {name} comes twice")


def _check_batching(path: str, batching: Batching) -> None:
    most = batching.max_batch_size
    for index, size in enumerate(batching.preferred_batch_sizes):
        if most is None or size > most:
            least = "set" if most is None else f"≥ {size}, which is preferred_batch_sizes[{index}]"
            raise SettingsError(f"{path}.max_batch_size: must be {least}")


def _check_providers(path: str, onnx: Onnx) -> None:
    for name in onnx.provider_options:
        if name not in onnx.providers:
            raise SettingsError(f"{path}.provider_options.{name}: is none of the providers")
    if onnx.cuda_graph and not {"cuda", "tensorrt"} & set(onnx.providers):
        raise SettingsError(f"{path}.cuda_graph: needs the provider cuda or tensorrt")
