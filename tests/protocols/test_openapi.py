"""The OpenAPI document is true: of the routes, and by schemathesis of every answer."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.examining import examine
from tests.fuzzing import FACTOR

from headrace.admission.key_store import KeyStore
from headrace.admission.registry import Configured, Registry
from headrace.domain.errors import MEANINGS
from headrace.domain.job import StoredFile
from headrace.jobs.jobs import Jobs
from headrace.jobs.limits import Limits
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.openapi.document import EXAMPLES, describe
from headrace.protocols.port import Admin, Reloaded
from headrace.protocols.rows import Rows

FILE = EXAMPLES["BatchBody"]["input_file_id"]
LACKING = {
    *("modalities", "audio", "functions", "function_call", "prediction", "web_search_options"),
    *(
        "moderation",
        "reasoning_effort",
        "verbosity",
        "suffix",
        "best_of",
        "truncation",
        "reasoning",
    ),
    *(
        "conversation",
        "prompt",
        "context_management",
        "background_options",
        "thinking",
        "container",
    ),
    *("speed", "mcp_servers", "inference_geo", "output_config"),
}
"""Options that are refused by name, but for the value that asks for nothing."""
WITH_MODEL = ("ChatBody", "CompletionBody", "ResponsesBody", "MessagesBody", "CountBody")


def test_the_document_has_the_routes_and_no_others(kit: Any) -> None:
    api = Api(kit.Service(kit.hello), ApiOptions())
    routed = {(route.method, route.path.replace(":path", "")) for route in api.routes}
    paths = describe("1")["paths"]
    described = {(method.upper(), path) for path, methods in paths.items() for method in methods}

    assert described == routed


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = describe("1")
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}

    assert names <= set(document["components"]["schemas"])
    assert {"ChatBody", "ChatCompletion", "ErrorAnswer", "Message"} <= names


def test_no_described_status_is_without_an_error_that_has_it() -> None:
    statuses = {str(meaning.http) for meaning in MEANINGS.values()} | {"200", "204", "503", "529"}
    for methods in describe("1")["paths"].values():
        for operation in methods.values():
            assert set(operation["responses"]) <= statuses


async def reloaded(by: str) -> Reloaded:
    del by
    return Reloaded((), ("server.port",))


def test_every_example_is_taken(kit: Any, tmp_path: Path) -> None:
    """By the endpoint whose body it is."""

    async def main() -> None:
        registry = Registry(KeyStore(tmp_path / "keys.db"), Configured(), may_be_open=True)
        service = first_runs(kit)
        admin = Admin(registry, reloaded)
        async with (
            having_jobs(service, tmp_path) as jobs,
            kit.talking(service, admin=admin, embedder=kit.Embedder(), jobs=jobs) as client,
        ):
            ids = await made(client)
            for path, body in bodies(describe("1")):
                if path.startswith("/admin/models/"):
                    continue  # nothing takes tensors here: tests/test_tensors_app.py
                url = path.format(id=ids["running"][0])
                answer = await client.post(url, json=on_scripted(body)["example"])
                assert answer.status_code == 200, (path, answer.text)

    kit.run(main())


def first_runs(kit: Any) -> Any:
    """A service whose first generation never ends."""

    def script(generation: Any) -> None:
        if len(service.generations) > 1:
            kit.hello(generation)
        else:
            generation.write(kit.token(1, "still running"))

    service = kit.Service(script)
    return service


def bodies(document: Any) -> list[tuple[str, Any]]:
    """The paths that take a body, and what is said of it."""
    return [
        (path, methods["post"]["requestBody"]["content"]["application/json"])
        for path, methods in document["paths"].items()
        if "application/json" in methods.get("post", {}).get("requestBody", {}).get("content", {})
    ]


def on_scripted(body: Any) -> Any:
    """A body's example, of the model that there is."""
    text = json.dumps(body).replace('"smollm2-135m"', '"scripted"')
    return json.loads(text)


def narrowed(document: Any, ids: dict[str, list[str]], token: str) -> Any:
    """The document with the models and generations that there are, so that more of it is reached than 404; and
    without what every engine lacks, so that more is than 400."""
    for name in WITH_MODEL:
        schema = document["components"]["schemas"][name]
        schema["properties"]["model"] = {"enum": ["scripted", "nick"]}
        for lacking in LACKING & schema["properties"].keys() - set(schema["required"]):
            del schema["properties"][lacking]
    for _, body in bodies(document):
        body["example"] = on_scripted(body)["example"]
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            known = ids[_kind(method, path)] if "{id}" in path else []
            for parameter in operation["parameters"]:
                if parameter["name"] == "id":
                    parameter["schema"] = {"enum": [*known, "none"]}
                if parameter["name"] in ("file", "batch"):
                    parameter["schema"] = {"enum": [ids[parameter["name"]][0], "none"]}
                if parameter["name"] == "token":
                    parameter["schema"] = {"enum": [token]}
    return document


def _kind(method: str, path: str) -> str:
    if path.endswith("/prompts"):
        return "running"
    return "deleted" if method == "delete" else path.split("/")[2]


@pytest.mark.timeout(180 * FACTOR)
def test_schemathesis_finds_nothing(kit: Any, tmp_path: Path) -> None:
    service = first_runs(kit)

    async def main() -> None:
        registry = Registry(KeyStore(tmp_path / "keys.db"), Configured(), may_be_open=True)
        admin = Admin(registry, reloaded)
        metrics = lambda accept: ("text/plain", b"up 1\n")  # noqa: E731
        embedder = kit.Embedder()
        async with (
            having_jobs(service, tmp_path) as jobs,
            kit.serving(service, metrics=metrics, admin=admin, embedder=embedder, jobs=jobs) as url,
        ):
            async with httpx.AsyncClient(base_url=url) as client:
                document = (await client.get("/openapi.json")).json()
                ids = await made(client)
            token = service.read_token(service.generations[1])[0]
            said = await examine(narrowed(document, ids, token), url, tmp_path)
        assert "Tested: 56" in said

    asyncio.run(main())  # pytest's own limit is longer than the kit's


async def made(client: httpx.AsyncClient) -> dict[str, list[str]]:
    """Generations by where they are asked for: the first one runs, the others are over."""
    asked = {"model": "scripted", "input": "x", "background": True}
    found = [(await client.post("/v1/responses", json=asked)).json()["id"] for _ in range(9)]
    generations = ["gen_" + id.removeprefix("resp_") for id in found]
    return {
        "running": generations[:1],
        "generations": generations[1:3],
        "responses": found[1:3],
        "deleted": found[3:],
        "models": ["scripted", "org/nick"],
        "file": [FILE],
        "batch": [await batch(client)],
    }


async def batch(client: httpx.AsyncClient) -> str:
    """One of the only file, where there are jobs."""
    asked = {"input_file_id": FILE, "endpoint": "/v1/completions", "completion_window": "24h"}
    id: str = (await client.post("/v1/batches", json=asked)).json()["id"]
    return id


@asynccontextmanager
async def having_jobs(service: Any, folder: Path) -> AsyncIterator[Jobs]:
    """With the file of the example."""
    jobs = Jobs(folder, Rows(service), Limits(files=10_000, jobs=10_000))
    await jobs.open()
    file = {
        "tenant": "default",
        "bytes": 0,
        "created_at": 1.0,
        "filename": "in",
        "purpose": "batch",
    }
    jobs._database.put_file(StoredFile(id=FILE, **file))
    jobs._contents.path(FILE).write_bytes(b"")
    yield jobs
    await jobs.close()
