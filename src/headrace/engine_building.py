"""From a model's settings to its engines: one line an engine type."""

from __future__ import annotations

from collections.abc import Sequence

from headrace.engines.engine import Engine
from headrace.engines.limits import Limits
from headrace.engines.openai import OpenAIEngine, OpenAIOptions
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
            case "llama" | "scripted":
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
