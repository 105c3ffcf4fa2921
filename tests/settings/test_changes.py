"""What a running server takes over of settings that were read again."""

from __future__ import annotations

from pathlib import Path

import msgspec

from headrace.settings import Settings, load
from headrace.settings.changes import changes
from headrace.settings.fields import fields

UPSTREAM = '[[models]]\nname = "m"\nengine = "openai"\n[[models.replicas]]\nurl = "http://h:1"\n'
TENANT = '[[tenants]]\nname = "{}"\nkeys = ["sk-{}"]\n'


def read(folder: Path, text: str) -> Settings:
    (folder / "h.toml").write_text(text)
    return load(folder / "h.toml", environ={}).settings


def test_the_same_settings_have_no_changes(tmp_path: Path) -> None:
    text = UPSTREAM + TENANT.format("a", "a")
    found = changes(read(tmp_path, text), read(tmp_path, text))
    assert (found.applied, found.waiting) == ((), ())


def test_live_ones_are_in_force_and_the_others_are_not(tmp_path: Path) -> None:
    old = read(tmp_path, "[server]\nport = 1\n" + UPSTREAM)
    new = read(
        tmp_path,
        '[server]\nport = 2\napi_key = "k"\n[limits]\nmax_queue = 5\n'
        + UPSTREAM.replace("h:1", "h:2")
        + TENANT.format("a", "a"),
    )
    found = changes(old, new)
    assert found.waiting == ("server.port", "models[0].replicas[0].url")
    assert {"server.api_key", "limits.max_queue", "tenants[0].name"} <= set(found.applied)
    assert found.settings.server.port == 1
    assert found.settings.server.api_key == ("k",)
    assert found.settings.limits.max_queue == 5
    assert found.settings.models == old.models
    assert found.settings.tenants == new.tenants
    assert changes(found.settings, new).applied == ()


def test_what_is_taken_away_is_a_change_too(tmp_path: Path) -> None:
    old = read(tmp_path, TENANT.format("a", "a") + TENANT.format("b", "b"))
    found = changes(old, read(tmp_path, ""))
    assert not found.settings.tenants
    assert "tenants[1].keys" in found.applied
    assert found.waiting == ()


def test_no_value_is_told(tmp_path: Path) -> None:
    old = read(tmp_path, TENANT.format("a", "s3cret"))
    found = changes(old, read(tmp_path, TENANT.format("a", "other")))
    assert found.applied == ("tenants[0].keys",)


def scripted(name: str, slots: int = 1, **limits: int) -> str:
    said = "".join(f"{key} = {value}\n" for key, value in limits.items())
    table = f"[models.limits]\n{said}" if limits else ""
    return f'[[models]]\nname = "{name}"\nengine = "scripted"\nslots = {slots}\n{table}'


def test_limits_of_a_model_are_live_and_nothing_else_of_it(tmp_path: Path) -> None:
    old = read(tmp_path, scripted("a", concurrent=50) + scripted("b"))
    new = read(tmp_path, scripted("a", slots=2, requests_per_minute=2) + scripted("b"))
    found = changes(old, new)
    assert set(found.applied) == {
        "models[0].limits.concurrent",
        "models[0].limits.requests_per_minute",
    }
    assert found.waiting == ("models[0].slots",)
    assert found.settings.models[0] == msgspec.structs.replace(
        old.models[0], limits=new.models[0].limits
    )
    assert changes(found.settings, new) == (found.settings, (), ("models[0].slots",))


def test_models_that_come_go_or_move_get_no_others_limits(tmp_path: Path) -> None:
    old = read(tmp_path, scripted("a", concurrent=1) + scripted("b", concurrent=2))
    new = read(tmp_path, scripted("c", concurrent=3) + scripted("b", concurrent=4))
    found = changes(old, new)
    assert [(one.name, one.limits.concurrent) for one in found.settings.models] == [
        ("a", 1),
        ("b", 4),
    ]
    assert found.applied == ("models[1].limits.concurrent",)
    assert found.waiting == ("models[0].name", "models[0].limits.concurrent")

    moved = read(tmp_path, scripted("b", concurrent=5) + scripted("a", concurrent=1))
    found = changes(old, moved)
    assert [one.limits.concurrent for one in found.settings.models] == [1, 5]
    assert found.applied == ("models[0].limits.concurrent",), "where it stands in the file now"
    assert found.waiting == ("models[0].name", "models[1].name")
    assert changes(found.settings, moved) == (found.settings, (), found.waiting)


def test_what_is_said_to_be_live_of_models_is_their_limits() -> None:
    """It is what a running server takes over of them."""
    live = {field.table for field in fields() if field.live and field.table.startswith("models")}
    assert live == {"models[].limits"}


def test_everything_of_a_tenant_is_live() -> None:
    live = {field.path for field in fields() if field.live}
    assert {field.path for field in fields() if field.table == "tenants[]"} <= live
    assert "server.host" not in live
