from __future__ import annotations

import json
from pathlib import Path

import pytest

from headrace.engine_building import script_options
from headrace.settings.tree import Model


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
