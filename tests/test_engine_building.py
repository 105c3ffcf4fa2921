from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.request import Message, Request
from headrace.engine_building import EngineBuilder, prompt_tokens, script_options, upstream_options
from headrace.engines.connection import at_once
from headrace.engines.measured import MeasuredEngine
from headrace.engines.still import POSSIBLE
from headrace.settings import Settings
from headrace.settings.model import Model
from headrace.settings.model import Replica as Upstream


@pytest.mark.parametrize(
    ("said", "settings", "slots"), [({}, None, 16), ({"slots": 3}, None, 3), ({"slots": 3}, 2, 2)]
)
def test_slots_of_the_settings_win_over_those_of_a_script(
    tmp_path: Path, said: dict[str, int], settings: int | None, slots: int
) -> None:
    script = tmp_path / "script.json"
    script.write_text(json.dumps(said))
    model = Model(name="m", engine="scripted", script=str(script), slots=settings)
    assert script_options(model).slots == slots


@pytest.mark.parametrize(
    ("of_model", "own", "slots", "asks", "measured"),
    [
        (None, None, 4096, True, False),
        (5, None, 5, False, False),
        (5, 3, 3, False, False),
        ("auto", 3, 3, False, False),
        ("auto", None, 4096, True, True),
        (5, "auto", 4096, True, True),
    ],
)
def test_slots_of_an_upstream_are_named_asked_for_or_found(
    of_model: Any, own: Any, slots: int, asks: bool, measured: bool
) -> None:
    upstream = Upstream(url="http://127.0.0.1:9/v1", slots=own)
    model = Model(name="m", engine="openai", slots=of_model, replicas=(upstream,))
    options = upstream_options(model, upstream)
    assert options.asks_slots is asks
    assert measured or options.slots == slots
    (replica,) = EngineBuilder(Settings(), at_once).replicas(model)
    assert replica.name == "m@http://127.0.0.1:9/v1"
    assert isinstance(replica.engine, MeasuredEngine) is measured
    if isinstance(replica.engine, MeasuredEngine):
        assert replica.engine.room is replica


@pytest.mark.parametrize(
    ("settings", "apart", "express"),
    [
        ({}, POSSIBLE, False),
        ({"express": True}, POSSIBLE, POSSIBLE),
        ({"device": "gpu", "express": True}, False, False),
        ({"jobs_apart": False, "express": True}, False, POSSIBLE),
        ({"engine": "scripted"}, False, False),
    ],
)
def test_a_llama_has_others_beside_it_where_processes_can_stand_still(
    settings: dict[str, Any], apart: bool, express: bool
) -> None:
    built = EngineBuilder(Settings(), at_once).build(
        Model(**{"name": "m", "source": "file:m", **settings})
    )
    assert len(built.replicas) == 1
    assert (built.for_rows is not None) is apart
    assert (built.express is not None) is express


def test_a_prompt_is_about_as_long_as_its_text() -> None:
    short, long = (
        Request("m", "chat", (Message("user", "x" * length),)) for length in (100, 10_000)
    )
    assert prompt_tokens(long) - prompt_tokens(short) == 9_900 / 4
