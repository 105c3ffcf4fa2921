"""What is in force: the settings and a real file that others change as well."""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from headrace.admission.certificates import Grant
from headrace.admission.key_store import KeyStore
from headrace.admission.key_text import digest
from headrace.admission.registry import Configured, Registry
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.limits import LimitedModel, Limits, ModelLimits
from headrace.domain.tenant import Tenant

Run = Callable[[Any], Any]
OF_SETTINGS = Configured(
    {digest("sk-a"): Key("tenants.a.keys[0]", "a")},
    {"spiffe://example.org/*": Grant("b", ("infer",))},
    (Tenant(name="a", weight=2.0), Tenant(name="b")),
)


def registry(folder: Path, configured: Configured = OF_SETTINGS, **options: Any) -> Registry:
    made = KeyStore(folder / "keys.db")
    return Registry(made, configured, **{"may_be_open": True} | options)


async def until(condition: Callable[[], bool]) -> None:
    """As often as the loop comes round; a limit stands around every test."""
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)


def refused(made: Registry, key: str | None) -> bool:
    try:
        made.keys.principal(key, "infer")
    except HeadraceError as error:
        return error.code is Code.INVALID_API_KEY
    return False


def test_a_key_may_not_do_more_than_its_tenant(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        tenants = (Tenant(name="a", limits=Limits(concurrent=3)),)
        made = registry(tmp_path, Configured(tenants=tenants))
        with pytest.raises(HeadraceError) as refused:
            await made.create_key("a", ("infer",), "", None, "", Limits(concurrent=4))
        assert refused.value.code is Code.INVALID_REQUEST
        assert refused.value.message == (
            "`limits.concurrent` must be ≤ that of the tenant a, which is 3."
        )
        assert not made.list_keys()
        await made.create_key("a", ("infer",), "", None, "", Limits(concurrent=3, pace=5))
        await made.create_key("b", ("infer",), "", None, "", Limits(concurrent=4))
        made.close()

    run(main())


def test_a_key_works_as_soon_as_it_was_created_until_it_is_revoked(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        made = registry(tmp_path)
        key, text = await made.create_key("new", ("infer", "metrics"), "app", None, "me")
        principal = made.keys.principal(text, "metrics")
        assert (principal.tenant, principal.key_id) == ("new", key.id)
        assert {tenant.name for tenant in made.tenants} == {"default", "a", "b", "new"}
        revoked = await made.revoke_key(key.id, "me")
        assert revoked.revoked_at is not None
        assert refused(made, text)
        assert [one.id for one in made.list_keys()] == ["tenants.a.keys[0]", key.id]

    run(main())


def test_the_first_key_closes_and_revoking_it_opens_nothing(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        made = registry(tmp_path, Configured())
        assert made.keys.open
        key, _ = await made.create_key("default", ("infer",), "", None, "")
        assert refused(made, None)
        await made.revoke_key(key.id, "")
        assert refused(made, None)
        assert not registry(tmp_path, Configured()).keys.open, "nor does another start"

    run(main())


def test_what_others_change_in_the_file_is_taken_over(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        mine, theirs = registry(tmp_path), registry(tmp_path)
        watching = asyncio.create_task(mine.watch())
        key, text = await theirs.create_key("new", ("infer",), "", None, "")
        await until(lambda: not refused(mine, text))
        await theirs.revoke_key(key.id, "")
        await until(lambda: refused(mine, text))
        await theirs.put_tenant(Tenant(name="c", weight=7.0), "")
        await until(lambda: mine.tenants.of("c").weight == 7.0)
        watching.cancel()

    run(main())


def test_a_caller_who_goes_away_leaves_nothing_half_done(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        made = registry(tmp_path)
        watching = asyncio.create_task(made.watch())
        putting = asyncio.create_task(made.put_tenant(Tenant(name="c", weight=7.0), ""))
        await asyncio.sleep(0)  # it has asked a thread
        putting.cancel()
        await until(lambda: made.tenants.of("c").weight == 7.0)
        watching.cancel()

    run(main())


def test_a_file_that_breaks_is_told_once_and_what_was_known_stays(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        made = registry(tmp_path)
        _, text = await made.create_key("new", ("infer",), "", None, "")
        path = tmp_path / "keys.db"
        good = path.read_bytes()
        watching = asyncio.create_task(made.watch())
        (tmp_path / "junk").write_bytes(b"x" * len(good))
        (tmp_path / "junk").replace(path)
        await until(lambda: "cannot be read" in caplog.text)
        assert not refused(made, text)
        (tmp_path / "good").write_bytes(good)
        (tmp_path / "good").replace(path)
        other = registry(tmp_path)
        _, later = await other.create_key("new", ("infer",), "", None, "")
        await until(lambda: not refused(made, later))
        assert not refused(made, text)
        assert caplog.text.count("What was known stays in force.") == 1
        watching.cancel()

    run(main())


def test_terms_by_admin_count_until_they_are_deleted(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        made = registry(tmp_path)
        await made.put_tenant(Tenant(name="a", weight=9.0), "")
        made.configure(OF_SETTINGS)
        assert made.tenant("a").weight == registry(tmp_path).tenant("a").weight == 9.0
        assert (await made.forget_tenant("a", "")).weight == 2.0
        assert made.tenant("a").weight == 2.0
        for name in ("a", "nobody"):
            with pytest.raises(HeadraceError) as missing:
                await made.forget_tenant(name, "")
            assert missing.value.code is Code.NOT_FOUND

    run(main())


def test_terms_from_before_limits_at_models_leave_those_of_the_settings(
    run: Run, tmp_path: Path
) -> None:
    limits = (ModelLimits(model="m", concurrent=2),)
    settings = Configured(tenants=(Tenant(name="a", model_limits=limits),))

    async def main() -> None:
        made = registry(tmp_path, settings)
        await made.put_tenant(Tenant(name="a", weight=3.0), "")
        assert made.tenant("a").model_limits == ()
        made.close()
        with sqlite3.connect(tmp_path / "keys.db") as older:
            older.execute("UPDATE tenants SET terms = ?", (b'{"name":"a","weight":4.0}',))
        expected = Tenant(name="a", weight=4.0, model_limits=limits)
        assert registry(tmp_path, settings).tenant("a") == expected

    run(main())


def test_limits_of_models_by_admin_count_until_they_are_deleted(run: Run, tmp_path: Path) -> None:
    def of_settings(limit: int) -> Configured:
        return Configured(models={"m": LimitedModel("m", Limits(concurrent=limit))})

    async def main() -> None:
        made = registry(tmp_path, of_settings(1))
        await made.limit_model("m", Limits(pace=2.0), "")
        made.configure(of_settings(3))
        assert made.model("m").limits == Limits(pace=2.0)
        assert registry(tmp_path, of_settings(1)).model("m").limits == Limits(pace=2.0), "kept"
        assert (await made.forget_model_limits("m", "")).limits == Limits(concurrent=3)
        with pytest.raises(HeadraceError) as missing:
            await made.forget_model_limits("m", "")
        assert missing.value.code is Code.NOT_FOUND
        await made.limit_model("m", Limits(pace=2.0), "")
        gone = registry(tmp_path, Configured())
        assert await gone.forget_model_limits("m", "") == LimitedModel("m", Limits())

    run(main())


def test_new_settings_replace_old_ones_and_keep_what_was_created(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        made = registry(tmp_path)
        _, text = await made.create_key("new", ("infer",), "", None, "")
        assert made.keys.principal(None, "infer", ("spiffe://example.org/x",)).tenant == "b"
        made.configure(Configured({digest("sk-c"): Key("tenants.c.keys[0]", "c")}))
        assert made.keys.principal("sk-c", "infer").tenant == "c"
        assert made.keys.principal(text, "infer").tenant == "new"
        assert refused(made, "sk-a")
        with pytest.raises(HeadraceError):
            made.keys.principal(None, "infer", ("spiffe://example.org/x",))

    run(main())


@pytest.mark.parametrize(
    ("id", "code"), [("tenants.a.keys[0]", Code.CONFLICT), ("nobody", Code.NOT_FOUND)]
)
def test_what_cannot_be_revoked(run: Run, tmp_path: Path, id: str, code: Code) -> None:
    with pytest.raises(HeadraceError) as error:
        run(registry(tmp_path).revoke_key(id, ""))
    assert error.value.code is code


def test_the_log_says_who_did_what_and_never_a_key(
    run: Run, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        made = registry(tmp_path)
        key, text = await made.create_key("new", ("infer",), "", None, "boss")
        await made.revoke_key(key.id, "boss")
        told = f"key {key.id} of tenant new (infer) was created by boss"
        assert told in caplog.text
        assert f"key {key.id} was revoked by boss" in caplog.text
        assert text[-43:] not in caplog.text

    with caplog.at_level(logging.INFO, logger="headrace.admission"):
        run(main())
