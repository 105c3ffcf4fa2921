"""From a model's settings to its engines: one line an engine type."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.engine import Engine
from headrace.engines.limits import Limits
from headrace.engines.openai import OpenAIEngine, OpenAIOptions
from headrace.engines.scripted import ScriptedEngine, ScriptedOptions
from headrace.settings import Settings
from headrace.settings.tree import Model

PATIENCE_S = 10.0 * 365 * 86_400
"""How long an upstream that does not answer is asked again: as long as the server runs."""


class EngineBuilder:
    """Builds the replicas of a model, each with its name."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def replicas(self, model: Model) -> Sequence[tuple[str, Engine]]:
        match model.engine:
            case "openai":
                return self._openai(model)
            case "scripted":
                return [(model.name, ScriptedEngine(script_options(model)))]
            case "llama":
                raise SystemExit(model.engine)

    def _openai(self, model: Model) -> Sequence[tuple[str, Engine]]:
        limits = Limits(
            connect_s=model.connect_timeout_s,
            first_byte_s=model.first_byte_timeout_s,
            between_bytes_s=model.between_bytes_timeout_s,
        )
        return [
            (
                f"{model.name}@{replica.url}",
                OpenAIEngine(
                    OpenAIOptions(
                        name=model.name,
                        url=replica.url,
                        model=replica.name or "",
                        api_key=replica.api_key,
                        slots=replica.slots or model.slot_count,
                        context=model.context or 0,
                        load_timeout_s=PATIENCE_S,
                        limits=limits,
                    )
                ),
            )
            for replica in model.replicas
        ]


def script_options(model: Model) -> ScriptedOptions:
    """The options of a scripted engine from its file (TOML, or JSON by its name). Raises
    ``INVALID_REQUEST`` naming the file and what is wrong in it."""
    if model.script is None:
        return ScriptedOptions(name=model.name, slots=model.slot_count)
    path = Path(model.script).expanduser()
    decode = msgspec.json.decode if path.suffix == ".json" else msgspec.toml.decode
    try:
        options = decode(path.read_bytes(), type=ScriptedOptions)
    except (OSError, msgspec.DecodeError) as error:
        message = f"models.script {path}: {error}"
        raise HeadraceError(Code.INVALID_REQUEST, message, param="models.script") from error
    return msgspec.structs.replace(options, name=model.name)
