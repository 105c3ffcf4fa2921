"""Limits that contradict each other stop the start with the path of the key that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.domain.limits import Limits, ModelLimits
from headrace.domain.tenant import Tenant
from headrace.reloading import configured
from headrace.server_building import usage_rules
from headrace.settings import load
from headrace.settings.errors import SettingsError
from headrace.settings.limit_checking import limited_models
from headrace.settings.printing import as_toml

MODEL = '[[models]]\nname = "up"\nengine = "openai"\naliases = ["other"]\n{more}\n'
REPLICA = '[[models.replicas]]\nurl = "http://127.0.0.1:1/v1"\n'
TENANT = '[[tenants]]\nname = "a"\nkeys = ["k"]\n'


def refusal(tmp_path: Path, text: str) -> str:
    file = tmp_path / "headrace.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as refused:
        load(file, environ={})
    return str(refused.value).replace(str(file), "FILE")


@pytest.mark.parametrize(
    ("limits", "line"),
    [
        (
            "requests_per_minute = 2\nburst_s = 10",
            "burst_s: lets less than one request through at once, so none ever; it must be at least 30 here",
        ),
        (
            "tokens_per_minute = 30\nburst_s = 1",
            "burst_s: lets less than one token through at once, so none ever; it must be at least 2 here",
        ),
        ("burst_s = 10", "burst_s: is of no use without a limit per minute"),
        (
            "tokens_per_minute = 500\ntokens_per_day = 400",
            "tokens_per_day: must be ≥ tokens_per_minute, which is 500",
        ),
        (
            "tokens_per_minute = 500\nburst_s = 120\ntokens_per_day = 800",
            "tokens_per_day: must be ≥ what tokens_per_minute lets through at once, which is 1000",
        ),
        ("requests_per_minute = 0", "requests_per_minute: must be an integer ≥ 1 (FILE)"),
        ('tokens_per_day = "x"', "tokens_per_day: must be an integer, not a text (FILE)"),
        ("pace = 0", "pace: must be a number > 0 (FILE)"),
        ("tokens_per_hour = 5", "tokens_per_hour: no such setting (did you mean tokens_per_day?)"),
    ],
)
def test_limits_that_cannot_be(tmp_path: Path, limits: str, line: str) -> None:
    tenant = f"{TENANT}[tenants.limits]\n{limits}\n"
    assert refusal(tmp_path, tenant) == f"tenants[0].limits.{line}"
    model = MODEL.format(more=f"[models.limits]\n{limits}") + REPLICA
    assert refusal(tmp_path, model) == f"models[0].limits.{line}"
    of_model = f'{TENANT}[[tenants.model_limits]]\nmodel = "smollm2-135m"\n{limits}\n'
    assert refusal(tmp_path, of_model) == f"tenants[0].model_limits[0].{line}"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            f'{TENANT}[[tenants.model_limits]]\nmodel = "nope"\n',
            "tenants[0].model_limits[0].model: names nope, which is no model",
        ),
        (
            MODEL.format(more="")
            + REPLICA
            + TENANT
            + '[[tenants.model_limits]]\nmodel = "up"\n[[tenants.model_limits]]\nmodel = "other"\n',
            "tenants[0].model_limits[1].model: names up, which has limits already",
        ),
        (
            (
                f"{TENANT}[tenants.limits]\nconcurrent = 3\n"
                '[[tenants.model_limits]]\nmodel = "smollm2-135m"\nconcurrent = 4\n'
            ),
            "tenants[0].model_limits[0].concurrent: must be ≤ that of the tenant, which is 3",
        ),
        (
            MODEL.format(more="[models.limits]\ntokens_per_minute = 1000")
            + REPLICA
            + TENANT
            + '[[tenants.model_limits]]\nmodel = "other"\ntokens_per_minute = 2000\n',
            "tenants[0].model_limits[0].tokens_per_minute: must be ≤ that of the model up, which is 1000",
        ),
        (
            (
                f"{TENANT}[tenants.limits]\ntokens_per_day = 900\n"
                '[[tenants.model_limits]]\nmodel = "smollm2-135m"\ntokens_per_minute = 1000\n'
            ),
            (
                "tenants[0].model_limits[0].tokens_per_minute: lets more through in a minute than"
                " tokens_per_day of the tenant, which is 900"
            ),
        ),
        (
            "[limits]\nmax_tokens = 100\n"
            + MODEL.format(more="[models.defaults]\nmax_tokens = 200")
            + REPLICA,
            "models[0].defaults.max_tokens: must be ≤ limits.max_tokens, which is 100",
        ),
    ],
)
def test_limits_that_contradict_others(tmp_path: Path, text: str, line: str) -> None:
    assert refusal(tmp_path, text) == line


WITH = "[limits]\n{}\n"


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            WITH.format("max_tokens = 100\nreserve_tokens = 200"),
            "limits.reserve_tokens: must be ≤ limits.max_tokens, which is 100",
        ),
        (
            WITH.format("queue_timeout_s = 600\ntotal_timeout_s = 60.5"),
            "limits.queue_timeout_s: must be ≤ limits.total_timeout_s, which is 60.5",
        ),
        (
            WITH.format("max_queue = 0") + TENANT + 'overflow = "wait"',
            "tenants[0].overflow: nobody can wait, since limits.max_queue is 0",
        ),
        (
            TENANT + 'overflow = "spill"',
            "tenants[0].overflow: nothing can spill, since no model has a fallback",
        ),
    ],
)
def test_what_can_never_take_effect(tmp_path: Path, text: str, line: str) -> None:
    assert refusal(tmp_path, text) == line


@pytest.mark.parametrize(
    "name", ["concurrent", "requests_per_minute", "tokens_per_minute", "tokens_per_day", "pace"]
)
def test_a_tenant_has_no_more_than_the_only_model(tmp_path: Path, name: str) -> None:
    one = MODEL.format(more=f"[models.limits]\n{name} = 50") + REPLICA
    tenant = f"{TENANT}[tenants.limits]\n{name} = "
    assert refusal(tmp_path, f"{one}{tenant}51") == (
        f"tenants[0].limits.{name}: must be ≤ that of the only model, up, which is 50"
    )
    starts(tmp_path, f"{one}{tenant}50")
    starts(tmp_path, f"{one}{OTHER}{tenant}51")


OTHER = '[[models]]\nname = "scripted"\nengine = "scripted"\n'


@pytest.mark.parametrize(
    "text",
    [
        WITH.format("total_timeout_s = 60"),
        WITH.format("queue_timeout_s = 900"),
        WITH.format("max_tokens = 100"),
        WITH.format("reserve_tokens = 9000"),
        WITH.format("queue_timeout_s = 60\ntotal_timeout_s = 60"),
        WITH.format("max_tokens = 100\nreserve_tokens = 100"),
        WITH.format("max_tokens = 100\nreserve_tokens = 4096"),  # the default, as it is printed
        WITH.format("max_queue = 0") + TENANT + 'overflow = "reject"',
        OTHER + f'fallback = "up"\n{MODEL.format(more="")}{REPLICA}{TENANT}overflow = "spill"',
        # What waits for vectors has the queue's limit of time alone.
        WITH.format("queue_timeout_s = 600\ntotal_timeout_s = 60")
        + OTHER
        + "[models.embedding]\nenabled = true",
    ],
)
def test_what_is_only_unusual_starts(tmp_path: Path, text: str) -> None:
    starts(tmp_path, text)


def starts(tmp_path: Path, text: str) -> None:
    """Also as it is printed."""
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text(text.replace('["k"]', '["env:KEY"]'))
    loaded = load(first, environ={"KEY": "x"})
    second.write_text(as_toml(loaded))
    assert load(second, environ={"KEY": "x"}).settings == loaded.settings


FULL = (
    MODEL.format(more="[models.limits]\ntokens_per_minute = 9000\nburst_s = 30.0")
    + REPLICA
    + TENANT
    + "[tenants.limits]\nrequests_per_minute = 60\nconcurrent = 4\npace = 20.5\n"
    + '[[tenants.model_limits]]\nmodel = "other"\ntokens_per_day = 5000\n'
)


def test_what_is_configured_is_what_holds(tmp_path: Path) -> None:
    file = tmp_path / "headrace.toml"
    file.write_text(FULL)
    settings = load(file, environ={}).settings
    rules = usage_rules((), configured(settings).tenants, limited_models(settings))
    assert rules.tenants == {"a": Limits(requests_per_minute=60, concurrent=4, pace=20.5)}
    assert rules.models == {"up": Limits(tokens_per_minute=9000, burst_s=30.0)}
    assert list(rules.tenant_models) == [("a", "up")]  # by its name, not its alias
    assert rules.tenant_models["a", "up"].tokens_per_day == 5000


def test_what_a_tenant_was_given_at_a_model_that_is_gone_limits_nothing() -> None:
    kept = Tenant(name="a", model_limits=(ModelLimits(model="gone", concurrent=1),))
    assert usage_rules((), [kept], {}).limit_nobody


def test_the_printed_limits_read_again_are_the_same(tmp_path: Path) -> None:
    starts(tmp_path, FULL)
