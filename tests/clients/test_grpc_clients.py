"""Clients of gRPC, gRPC-Web and Connect that others wrote, in node, and in a real browser of another origin."""

from __future__ import annotations

import base64
import json
import os
import socket
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from google.protobuf import any_pb2, struct_pb2
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from headrace.protocols.grpc import headrace_pb2 as pb

HERE = Path(__file__).parent
COUNT = [f"{number} " for number in range(1, 41)]
DEADLINE_EXCEEDED, NOT_FOUND, INTERNAL = 4, 5, 13
WAIT_S = 60
IN_NODE = (
    *("grpc", "grpc-web h1", "grpc-web h2", "connect h1", "connect h2"),
    *("grpc gzip", "grpc-web gzip", "connect gzip", "connect gzip binary"),
)
IN_BROWSER = (
    *("connect-web grpc-web", "connect-web connect", "connect-web connect binary"),
    *("grpc-web text", "grpc-web binary"),
)

Bundle = Callable[[str, str], Path]


@pytest.fixture(scope="session")
def bundle(node: str, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """``bundle(script, platform)``: the script with all it imports, in one file."""
    folder = HERE.parents[1] / "build" / "clients" / "node_modules"
    if not (folder / "@connectrpc" / "connect").is_dir():
        pytest.skip("the clients of gRPC are not installed: make browser-test does it")

    def bundle(script: str, platform: str) -> Path:
        made = tmp_path_factory.mktemp("bundle") / f"{script}.mjs"
        command = [str(folder / ".bin" / "esbuild"), str(HERE / script), "--bundle"]
        options = [
            f"--platform={platform}",
            "--format=esm",
            f"--outfile={made}",
            "--log-level=error",
        ]
        if platform == "node":  # what was written for require
            needed = (
                "import{createRequire}from'module';const require=createRequire(import.meta.url);"
            )
            needed += "const __dirname=import.meta.dirname,__filename=import.meta.filename;"
            options.append(f"--banner:js={needed}")
        environment = os.environ | {"NODE_PATH": str(folder)}
        subprocess.run([*command, *options], check=True, timeout=50, env=environment)
        return made

    return bundle


@pytest.fixture(scope="session")
def descriptors() -> str:
    """``headrace.v1`` as a descriptor set, in base64: nothing has to be generated for JavaScript."""
    files = FileDescriptorSet()
    for file in (any_pb2.DESCRIPTOR, struct_pb2.DESCRIPTOR, pb.DESCRIPTOR):
        copy = files.file.add()
        file.CopyToProto(copy)
        for message in copy.message_type:
            for field in message.field:  # what Python's generator leaves out
                found = file.message_types_by_name[message.name].fields_by_name[field.name]
                field.json_name = found.json_name
    return base64.b64encode(files.SerializeToString()).decode()


def check(told: dict[str, Any], *, streams: bool = True) -> str | None:
    """Whether a client saw what it should; the generation that it left."""
    assert "crash" not in told, told["crash"]
    assert told["text"] == "It is sunny."
    unknown = told["unknown"]
    assert (unknown["code"], unknown["detail"]) == (NOT_FOUND, "model_not_found")
    assert "none" in unknown["message"]
    assert told["deadline"]["code"] == DEADLINE_EXCEEDED
    assert told.get("model", "m") == "m"
    if not streams:
        return None
    assert told["seqs"] == list(range(1, len(told["seqs"]) + 1))
    assert (told["words"], told["last"]) == (COUNT, "finish")
    assert told["resumed"]
    assert (told["broken"]["code"], told["broken"]["detail"]) == (
        INTERNAL,
        "internal",
    )
    assert told["brokenEnds"] == "error"
    left: str = told["left"]
    return left


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_clients_in_node(
    server: Callable[..., Any],
    node: str,
    bundle: Bundle,
    descriptors: str,
    ended: Callable[..., dict[str, Any]],
) -> None:
    script = bundle("grpc_node.mjs", "node")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    made = server(f"grpc_port = {port}")
    protos = HERE.parents[1] / "proto"
    command = [node, "--no-warnings", str(script), made.url, f"127.0.0.1:{port}", descriptors]
    done = subprocess.run([*command, str(protos)], capture_output=True, text=True, timeout=WAIT_S)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    for name in IN_NODE:
        left = check(told[f"connect-node {name}"])
        assert ended(made.url, left)["error"]["code"] == "cancelled"
    assert told["grpc-js"]["kinds"][-1] == "error"
    assert (told["grpc-js"]["code"], told["grpc-js"]["codes"]) == (1, ["cancelled"])


@pytest.mark.slow
@pytest.mark.timeout(150)
def test_clients_in_a_browser(
    server: Callable[..., Any],
    web: Any,
    browse: Callable[[str], None],
    bundle: Bundle,
    descriptors: str,
    ended: Callable[..., dict[str, Any]],
) -> None:
    script = bundle("grpc_page.mjs", "browser").read_text()
    assert "</script" not in script
    known = f"<script>window.DESCRIPTORS = {json.dumps(descriptors)}</script>"
    page = f'<!doctype html><meta charset="utf-8">{known}<script type="module">{script}</script>'
    web.page = page.encode()
    made = server(f'grpc_web = true\ncors_origin = ["{web.origin}"]')

    browse(f"{web.origin}/?base={quote(made.url)}")
    seen = {}
    while (what := web.told.get(timeout=WAIT_S))["name"] != "done":
        seen[what["name"]] = what["told"]

    assert tuple(seen) == IN_BROWSER
    for name, told in seen.items():
        left = check(told, streams=name != "grpc-web binary")
        if left is not None:
            assert ended(made.url, left)["error"]["code"] == "cancelled"
