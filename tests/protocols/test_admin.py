"""``/admin`` over HTTP: a real registry behind it."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from headrace.admission.key_store import KeyStore
from headrace.admission.key_text import digest
from headrace.admission.registry import Configured, Registry
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.key import Key
from headrace.domain.limits import LimitedModel, Limits
from headrace.protocols.port import Admin, Reloaded

BOSS = {"authorization": "Bearer boss"}
APP = {"authorization": "Bearer app"}
CONFIGURED = Configured(
    {
        digest("boss"): Key("tenants.ops.keys[0]", "ops", ("admin",)),
        digest("app"): Key("server.api_key[0]", "default", ("infer",)),
    },
    models=dict.fromkeys(("big", "org/big"), LimitedModel("big", Limits(concurrent=8))),
)


class Place:
    """A service whose keys are those of a registry. ``mistake``: what is wrong with its settings file."""

    def __init__(self, kit: Any, folder: Path, configured: Configured = CONFIGURED) -> None:
        self.kit = kit
        self.registry = Registry(KeyStore(folder / "keys.db"), configured, may_be_open=True)
        self.service = kit.Service(kit.hello)
        self.service.authenticate = self.registry.keys.principal
        self.mistake = ""
        self.asked_by: list[str] = []

    async def reload(self, by: str) -> Reloaded:
        self.asked_by.append(by)
        if self.mistake:
            raise HeadraceError(Code.UNPROCESSABLE, self.mistake)
        return Reloaded(("tenants[0].weight",), ("server.port",))

    def run(self, main: Any, **headers: str) -> None:
        async def talk() -> None:
            admin = Admin(self.registry, self.reload)
            metrics = lambda accept: ("text/plain", b"up 1\n")  # noqa: E731
            talking = self.kit.talking(self.service, admin=admin, metrics=metrics)
            async with talking as client:
                client.headers.update(headers)
                await main(client)

        self.kit.run(talk())


@pytest.fixture
def place(kit: Any, tmp_path: Path) -> Place:
    return Place(kit, tmp_path)


def test_the_life_of_a_key(place: Place) -> None:
    async def main(client: Any) -> None:
        twice = ["infer", "infer"]
        body = {"tenant": "alpha", "name": "their app", "expires_in_s": 60, "scopes": twice}
        answer = await client.post("/admin/keys", json=body)
        assert answer.status_code == 200
        assert answer.headers["cache-control"] == "no-store"
        made = answer.json()
        key = made.pop("key")
        assert re.fullmatch(rf"hr_{made['id']}_[0-9A-Za-z]{{43}}", key)
        assert made["expires_at"] - made["created_at"] == pytest.approx(60, abs=1)
        assert (made["tenant"], made["scopes"], made["name"]) == ("alpha", ["infer"], "their app")

        mine = {"authorization": f"Bearer {key}"}
        assert (await client.get("/v1/models", headers=mine)).status_code == 200
        assert (await client.get("/admin/keys", headers=mine)).status_code == 403
        chat = {"model": "scripted", "messages": [{"role": "user", "content": "Hi."}]}
        await client.post("/v1/chat/completions", json=chat, headers=mine)
        caller = place.service.generations[-1].caller
        assert (caller.tenant, caller.key_id) == ("alpha", made["id"])

        listed = await client.get("/admin/keys")
        assert listed.json()["data"][-1] == made
        assert key[-43:] not in listed.text

        revoked = await client.delete(f"/admin/keys/{made['id']}")
        assert revoked.json() == made | {"revoked_at": revoked.json()["revoked_at"]}
        again = await client.delete(f"/admin/keys/{made['id']}")
        assert again.json() == revoked.json()
        refused = await client.get("/v1/models", headers=mine)
        assert refused.status_code == 401
        assert "was revoked" in refused.json()["error"]["message"]

    place.run(main, **BOSS)


def test_limits_of_a_key_and_of_a_tenant(place: Place) -> None:
    told: list[int] = []

    async def main(client: Any) -> None:
        place.registry.on_change = lambda: told.append(1)
        limits = {"requests_per_minute": 60, "pace": 12.5}
        made = (await client.post("/admin/keys", json={"limits": limits})).json()
        assert made["limits"] == limits
        assert (await client.get("/admin/keys")).json()["data"][-1]["limits"] == limits
        assert told == [1]
        for path, body in (("/admin/keys", {}), ("/admin/tenants/a", {})):
            wrong = {**body, "limits": {"tokens_per_minute": 9, "tokens_per_day": 1}}
            send = client.put if "tenants" in path else client.post
            refused = await send(path, json=wrong)
            assert refused.status_code == 400
            assert refused.json()["error"]["param"] == "limits.tokens_per_day"
            refused = await send(path, json={**body, "limits": {"tokens": 9}})
            assert refused.status_code == 400
        assert told == [1]

    place.run(main, **BOSS)


def test_the_terms_of_a_tenant(place: Place) -> None:
    async def main(client: Any) -> None:
        assert (await client.get("/admin/tenants/alpha")).status_code == 404
        limits = {"tokens_per_day": 1000}
        terms = {"weight": 2, "level": "batch", "ttft_ms": 500.5, "overflow": "shed"}
        terms["limits"] = limits
        terms["model_limits"] = [{"model": "org/big", "concurrent": 2}]
        put = await client.put("/admin/tenants/alpha", json=terms)
        whole = {"name": "alpha", "tpot_ms": None, "sheddable": False} | terms
        assert put.json() == whole
        assert (await client.get("/admin/tenants/alpha")).json() == whole
        listed = (await client.get("/admin/tenants")).json()["data"]
        assert {tenant["name"] for tenant in listed} == {"default", "ops", "alpha"}
        replaced = await client.put("/admin/tenants/alpha", json={})
        assert (replaced.json()["weight"], replaced.json()["level"]) == (1.0, "standard")
        assert replaced.json()["limits"] == {}, "all terms are replaced, limits too"
        assert replaced.json()["model_limits"] == []
        again = {name: value for name, value in whole.items() if name != "name"}
        assert (await client.put("/admin/tenants/alpha", json=again)).json() == whole
        gone = await client.delete("/admin/tenants/alpha")
        assert gone.json()["name"] == "alpha"
        assert (await client.get("/admin/tenants/alpha")).status_code == 404
        assert (await client.delete("/admin/tenants/alpha")).status_code == 404

    place.run(main, **BOSS)


def test_the_limits_of_a_model(place: Place) -> None:
    async def main(client: Any) -> None:
        told: list[int] = []
        place.registry.on_change = lambda: told.append(1)
        big = "/admin/models/big/limits"
        of_settings = {"model": "big", "concurrent": 8}
        shown = await client.get(big)
        assert shown.json() == of_settings
        assert shown.headers["cache-control"] == "no-store"
        new = {"requests_per_minute": 60, "pace": 2.5}
        by_alias = await client.put("/admin/models/org/big/limits", json=new)
        assert by_alias.json() == (await client.get(big)).json() == {"model": "big"} | new
        assert told == [1]
        place.registry.configure(CONFIGURED)
        assert (await client.get(big)).json() == {"model": "big"} | new, "a reload keeps them"
        assert (await client.put(big, json={})).json() == {"model": "big"}
        assert (await client.delete(big)).json() == of_settings
        assert (await client.delete(big)).status_code == 404

    place.run(main, **BOSS)


def test_a_reload_says_what_changed_and_what_waits(place: Place) -> None:
    async def main(client: Any) -> None:
        answer = await client.post("/admin/reload")
        assert answer.json() == {
            "applied": ["tenants[0].weight"],
            "need_restart": ["server.port"],
        }
        assert place.asked_by == ["tenants.ops.keys[0]"]
        place.mistake = "Nothing has changed, since …"
        refused = await client.post("/admin/reload")
        assert refused.status_code == 422
        assert refused.json()["error"]["message"] == place.mistake

    place.run(main, **BOSS)


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "param"),
    [
        ("POST", "/admin/keys", {"scopes": []}, 400, "scopes"),
        ("POST", "/admin/keys", {"scopes": ["root"]}, 400, "scopes[0]"),
        ("POST", "/admin/keys", {"tenant": "a b"}, 400, "tenant"),
        ("POST", "/admin/keys", {"tenant": "x" * 65}, 400, "tenant"),
        ("POST", "/admin/keys", {"tenant": "ä"}, 400, "tenant"),
        ("POST", "/admin/keys", {"name": "x" * 101}, 400, "name"),
        ("POST", "/admin/keys", {"expires_in_s": 0}, 400, "expires_in_s"),
        ("POST", "/admin/keys", {"expires_in_s": 1e12}, 400, "expires_in_s"),
        ("POST", "/admin/keys", {"key": "hr_mine"}, 400, "key"),
        ("PUT", "/admin/tenants/a", {"weight": -1}, 400, "weight"),
        ("PUT", "/admin/tenants/a", {"level": "vip"}, 400, "level"),
        ("PUT", "/admin/tenants/a", {"ttft_ms": 0}, 400, "ttft_ms"),
        ("PUT", "/admin/tenants/a", {"overflow": "drop"}, 400, "overflow"),
        ("PUT", "/admin/tenants/a", {"name": "b"}, 400, "name"),
        ("PUT", "/admin/tenants/a%20b", {}, 400, "name"),
        ("PUT", "/admin/tenants/a", {"model_limits": [{}]}, 400, "model_limits[0].model"),
        (
            "PUT",
            "/admin/tenants/a",
            {"model_limits": [{"model": "big"}, {"model": "nope"}]},
            400,
            "model_limits[1].model",
        ),
        (
            "PUT",
            "/admin/tenants/a",
            {"model_limits": [{"model": "big"}, {"model": "org/big"}]},
            400,
            "model_limits[1].model",
        ),
        (
            "PUT",
            "/admin/tenants/a",
            {"model_limits": [{"model": "big", "burst_s": 1}]},
            400,
            "model_limits[0].burst_s",
        ),
        (
            "PUT",
            "/admin/tenants/a",
            {"limits": {"pace": 2}, "model_limits": [{"model": "big", "pace": 3}]},
            400,
            "model_limits[0].pace",
        ),
        (
            "PUT",
            "/admin/tenants/a",
            {"model_limits": [{"model": "big", "concurrent": 9}]},
            400,
            "model_limits[0].concurrent",
        ),
        ("PUT", "/admin/models/big/limits", {"concurrent": 0}, 400, "concurrent"),
        ("PUT", "/admin/models/big/limits", {"tokens": 1}, 400, "tokens"),
        ("PUT", "/admin/models/big/limits", {"burst_s": 1}, 400, "burst_s"),
        ("PUT", "/admin/models/nope/limits", {}, 404, None),
        ("DELETE", "/admin/models/nope/limits", None, 404, None),
        ("DELETE", "/admin/models/big/limits", None, 404, None),
        ("DELETE", "/admin/keys/nobody", None, 404, None),
        ("DELETE", "/admin/keys/server.api_key[0]", None, 409, None),
        ("PATCH", "/admin/tenants/a", None, 405, None),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(
    place: Place, method: str, path: str, body: Any, status: int, param: str | None
) -> None:
    async def main(client: Any) -> None:
        before = (
            (await client.get("/admin/keys")).json(),
            (await client.get("/admin/tenants")).json(),
            (await client.get("/admin/models/big/limits")).json(),
        )
        answer = await client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["error"]["param"]) == (status, param)
        after = (
            (await client.get("/admin/keys")).json(),
            (await client.get("/admin/tenants")).json(),
            (await client.get("/admin/models/big/limits")).json(),
        )
        assert after == before

    place.run(main, **BOSS)


ADMIN_PATHS = [
    ("GET", "/admin/keys"),
    ("POST", "/admin/keys"),
    ("DELETE", "/admin/keys/x"),
    ("GET", "/admin/tenants"),
    ("GET", "/admin/tenants/x"),
    ("PUT", "/admin/tenants/x"),
    ("DELETE", "/admin/tenants/x"),
    ("GET", "/admin/models/x/limits"),
    ("PUT", "/admin/models/x/limits"),
    ("DELETE", "/admin/models/x/limits"),
    ("POST", "/admin/reload"),
    ("GET", "/admin/models"),
    ("POST", "/admin/models/load"),
    ("POST", "/admin/models/unload"),
]


def test_admin_is_for_keys_with_that_scope_alone(place: Place) -> None:
    async def main(client: Any) -> None:
        for method, path in ADMIN_PATHS:
            for headers, status in ((APP, 403), ({}, 401), ({"x-api-key": "nobody"}, 401)):
                answer = await client.request(method, path, headers=headers)
                assert answer.status_code == status, (method, path)

    place.run(main)
    assert not place.asked_by


def test_the_routes_of_admin_are_all_in_that_list(kit: Any) -> None:
    from headrace.protocols.api import Api, ApiOptions

    routes = Api(kit.Service(kit.hello), ApiOptions()).routes
    admin = {
        (route.method, re.sub(r"\{[\w:]+\}", "x", route.path))
        for route in routes
        if route.scope == "admin"
    }
    assert admin == set(ADMIN_PATHS)
    assert all((route.scope == "admin") == route.path.startswith("/admin/") for route in routes)
    assert [route.path for route in routes if route.scope == "metrics"] == ["/metrics"]
    keyless = {"/livez", "/ping", "/readyz", "/health", "/version", "/openapi.json"}
    assert {route.path for route in routes if route.open} == keyless


def test_metrics_need_a_key_where_there_are_keys(place: Place) -> None:
    async def main(client: Any) -> None:
        for headers, status in (({}, 401), (APP, 403), (BOSS, 200)):
            assert (await client.get("/metrics", headers=headers)).status_code == status
        body = {"scopes": ["metrics"]}
        made = await client.post("/admin/keys", json=body, headers=BOSS)
        scraper = {"authorization": f"Bearer {made.json()['key']}"}
        assert (await client.get("/metrics", headers=scraper)).text == "up 1\n"
        assert (await client.get("/v1/models", headers=scraper)).status_code == 403
        assert (await client.get("/livez")).status_code == 200

    place.run(main)


def test_without_keys_admin_is_open_as_everything_else(kit: Any, tmp_path: Path) -> None:
    place = Place(kit, tmp_path, Configured())

    async def main(client: Any) -> None:
        assert (await client.get("/admin/keys")).json() == {"object": "list", "data": []}
        made = await client.post("/admin/keys", json={"scopes": ["infer", "admin"]})
        assert (await client.get("/admin/keys")).status_code == 401, "that was the first key"
        mine = {"authorization": f"Bearer {made.json()['key']}"}
        assert (await client.get("/admin/keys", headers=mine)).status_code == 200

    place.run(main)


@pytest.mark.parametrize("headers", [{}, {"content-type": "text/plain"}])
def test_a_body_that_a_browser_sends_without_asking_is_not_taken(
    kit: Any, tmp_path: Path, headers: dict[str, str]
) -> None:
    place = Place(kit, tmp_path, Configured(models=CONFIGURED.models))

    async def main(client: Any) -> None:
        for method, path in (
            ("POST", "/admin/keys"),
            ("PUT", "/admin/tenants/a"),
            ("PUT", "/admin/models/big/limits"),
        ):
            answer = await client.request(method, path, content=b"{}", headers=headers)
            assert answer.status_code == 415
        assert place.registry.keys.open

    place.run(main)


def test_a_server_without_admin_has_none(kit: Any) -> None:
    async def main() -> None:
        async with kit.talking(kit.Service(kit.hello)) as client:
            for path in ("/admin/keys", "/admin/tenants"):
                assert (await client.get(path)).status_code == 404

    kit.run(main())
