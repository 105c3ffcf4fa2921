"""The OpenAPI document is true: of the routes, and by schemathesis of every answer."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.admission.key_store import KeyStore
from headrace.admission.registry import Configured, Registry
from headrace.domain.errors import MEANINGS
from headrace.protocols.api import Api, ApiOptions
from headrace.protocols.openapi import describe
from headrace.protocols.port import Admin, Reloaded

CONFIG = """
[phases.coverage]
unexpected-methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
"""
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


@pytest.mark.timeout(180)
def test_schemathesis_finds_nothing(kit: Any, tmp_path: Path) -> None:
    """All its checks but one: *positive data acceptance* knows no rule that a schema cannot say, such as
    "`top_logprobs` needs `logprobs`" or "this cursor is beyond the log's end"."""

    async def main() -> None:
        service = kit.Service(kit.hello)
        registry = Registry(KeyStore(tmp_path / "keys.db"), Configured(), may_be_open=True)
        admin = Admin(registry, reloaded)
        metrics = lambda accept: ("text/plain", b"up 1\n")  # noqa: E731
        async with kit.serving(service, metrics=metrics, admin=admin) as url:
            async with httpx.AsyncClient() as client:
                document = (await client.get(f"{url}/openapi.json")).json()
            for name in WITH_MODEL:  # so that it gets beyond 404
                document["components"]["schemas"][name]["properties"]["model"] = {
                    "enum": ["scripted", "nick"]
                }
            (tmp_path / "openapi.json").write_text(json.dumps(document))
            (tmp_path / "schemathesis.toml").write_text(CONFIG)
            command = f"run openapi.json --url {url} --max-examples 10 --seed 1 --no-color"
            options = "--exclude-checks positive_data_acceptance --suppress-health-check all"
            process = await asyncio.create_subprocess_exec(
                str(Path(sys.executable).with_name("schemathesis")),
                *command.split(),
                *options.split(),
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
            )
            output, _ = await process.communicate()
        assert process.returncode == 0, output.decode()
        assert b"Tested: 40" in output.replace(b"  ", b" ")

    kit.run(main(), 170)
