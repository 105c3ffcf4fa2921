"""``/v2`` in the OpenAPI document is true: of the routes, of the examples, of what is answered."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.examining import examine
from tests.fuzzing import FACTOR

from headrace.protocols.kserve.described import described
from headrace.protocols.kserve.endpoints import V2Endpoints
from headrace.protocols.openapi.document import describe
from headrace.shared_memory.regions import Regions


def test_it_has_the_routes_and_no_others(kit: Any, v2: Any) -> None:
    endpoints = V2Endpoints(kit.Service(kit.hello), v2.Lines(), Regions(), "1")
    routed = {(each.method, each.path.replace(":path", "")) for each in endpoints.routes()}
    paths = described().paths
    assert {(method.upper(), path) for path in paths for method in paths[path]} == routed


def test_it_is_in_the_document_beside_all_others() -> None:
    document = describe("1", described())
    text = json.dumps(document)
    names = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert names <= set(document["components"]["schemas"])
    assert {"InferBody", "V2InferBody", "V2Error"} <= names
    assert {"/v1/infer", "/v2/models/{model}/infer"} <= set(document["paths"])
    ids = [one["operationId"] for path in document["paths"].values() for one in path.values()]
    assert len(set(ids)) == len(ids)


def test_answers_have_what_is_said_of_them_and_examples_are_taken(kit: Any, v2: Any) -> None:
    def url(path: str) -> str:
        return path.format(model="identity_fp32", region="r")

    async def main() -> None:
        async with (
            v2.serving(kit.Service(kit.hello), v2.Lines()) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            for path, methods in described().paths.items():
                for method, said in methods.items():
                    body = said.get("requestBody", {}).get("content", {})
                    example = body.get("application/json", {}).get("example")
                    text = json.dumps(example).replace('"x"', '"in"').replace('"y"', '"out"')
                    sent = {"content": text} if example else {}
                    answer = await client.request(method, url(path), **sent)
                    content = said["responses"][str(answer.status_code)]["content"]
                    schema = content["application/json"]["schema"]
                    if "$ref" in schema:
                        said_ = answer.json()["error"]
                        assert "'r'" in said_ or "/my-frames" in said_  # regions that are not there
                        continue
                    found = answer.json()
                    found = found[:1] if isinstance(found, list) else [found]
                    schema = schema.get("items", schema)
                    assert all(set(schema.get("required", ())) <= one.keys() for one in found)

    kit.run(main())


@pytest.mark.timeout(120 * FACTOR)
def test_schemathesis_finds_nothing(kit: Any, v2: Any, tmp_path: Path) -> None:
    """Of two models that there are, and others."""
    document = describe("1", described())
    paths = document["paths"] = described().paths
    for path, methods in paths.items():
        for operation in methods.values():
            for parameter in operation["parameters"]:
                if parameter["name"] == "model":
                    versions = [] if "/repository/" in path else ["simple/versions/1"]
                    parameter["schema"] = {"enum": ["simple", "identity_fp32", *versions, "none"]}

    async def main() -> None:
        async with v2.serving(kit.Service(kit.hello), v2.Lines()) as server:
            said = await examine(document, server.url, tmp_path)
        assert f"Tested: {sum(map(len, paths.values()))}" in said

    asyncio.run(main())
