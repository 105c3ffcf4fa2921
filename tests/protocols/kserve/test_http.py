"""KServe V2 over HTTP, as any client could speak it."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator
from typing import Any

import httpx
import numpy as np
import pytest

from headrace.domain.errors import Code, HeadraceError

LENGTH = "inference-header-content-length"


@contextlib.asynccontextmanager
async def talking(
    kit: Any, v2: Any, tensors: Any = None, keys: Any = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    """A client of a server, and its models."""
    tensors = tensors or v2.Lines()
    service = kit.Service(kit.hello, keys=keys)
    async with (
        v2.serving(service, tensors) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        yield client, tensors


def with_bytes(said: dict[str, Any], *parts: bytes) -> dict[str, Any]:
    """The parts of a request whose inputs are behind its JSON."""
    head = json.dumps(said).encode()
    headers = {LENGTH: str(len(head)), "content-type": "application/octet-stream"}
    return {"content": b"".join([head, *parts]), "headers": headers}


def outputs_of(answer: httpx.Response) -> tuple[dict[str, Any], bytes]:
    """The JSON of an answer, and what is behind it."""
    size = int(answer.headers.get(LENGTH, len(answer.content)))
    return json.loads(answer.content[:size]), answer.content[size:]


def fp32(shape: list[int], **fields: Any) -> dict[str, Any]:
    return {"name": "in", "datatype": "FP32", "shape": shape} | fields


PATH = "/v2/models/identity_fp32/infer"


def test_an_inference_in_json(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, tensors):
            body = {"id": "mine", "inputs": [fp32([2, 2], data=[1, 2.5, -3, 1e9])]}
            answer = await client.post(PATH, json=body, headers={"x-request-id": "theirs"})
            nested = {"inputs": [fp32([2, 2], data=[[1, 2.5], [-3, 1e9]])]}
            again = (await client.post(PATH, json=nested)).json()
        assert answer.status_code == 200, answer.text
        assert answer.headers["x-request-id"] == "theirs"
        assert answer.headers["content-type"] == "application/json"
        assert answer.json() == {
            "model_name": "identity_fp32",
            "model_version": "2",
            "id": "mine",
            "outputs": [
                {"name": "out", "datatype": "FP32", "shape": [2, 2], "data": [1, 2.5, -3, 1e9]}
            ],
        }
        assert again["outputs"] == answer.json()["outputs"]
        request = tensors.taken[0]
        assert (request.id, request.version, request.priority, request.timeout_s) == (
            "mine",
            "",
            0,
            None,
        )
        assert tensors.callers[0].request_id == "theirs"

    kit.run(main())


def test_an_inference_in_bytes(kit: Any, v2: Any) -> None:
    async def main() -> None:
        array = np.arange(32, dtype="<i4").reshape(2, 16)
        names = ("INPUT0", "INPUT1")
        inputs = [
            {
                "name": name,
                "datatype": "INT32",
                "shape": [2, 16],
                "parameters": {"binary_data_size": 128},
            }
            for name in names
        ]
        parameters = {"binary_data_output": True, "priority": 3, "timeout": 2_500_000}
        said = {"inputs": inputs, "parameters": parameters}
        async with talking(kit, v2) as (client, tensors):
            asked = with_bytes(said, array.tobytes(), (array * 2).tobytes())
            answer = await client.post("/v2/models/simple/versions/1/infer", **asked)
            said["outputs"] = [
                {"name": "OUTPUT1", "parameters": {"binary_data": False}},
                {"name": "OUTPUT0", "parameters": {"binary_data": True}},
            ]
            asked = with_bytes(said, array.tobytes(), (array * 2).tobytes())
            mixed = await client.post("/v2/models/simple/infer", **asked)
        head, rest = outputs_of(answer)
        assert answer.headers["content-type"] == "application/octet-stream"
        assert head["model_version"] == "1"
        assert [output["name"] for output in head["outputs"]] == ["OUTPUT0", "OUTPUT1"]
        assert [output["parameters"] for output in head["outputs"]] == [
            {"binary_data_size": 128}
        ] * 2
        assert rest == (array * 3).tobytes() + (-array).tobytes()
        head, rest = outputs_of(mixed)
        assert head["outputs"][0]["data"] == (-array).reshape(-1).tolist()
        assert "data" not in head["outputs"][1]
        assert rest == (array * 3).tobytes()
        request = tensors.taken[0]
        assert (request.priority, request.timeout_s) == (3, 2.5)

    kit.run(main())


def test_the_bytes_of_a_body_are_viewed_and_not_copied(kit: Any, v2: Any) -> None:
    async def main() -> None:
        size = 1 << 20
        said = {"inputs": [fp32([1, size // 4], parameters={"binary_data_size": size})]}
        asked = with_bytes(said, bytes(size))
        async with talking(kit, v2) as (client, tensors):
            answer = await client.post(PATH, **asked)
        assert answer.status_code == 200
        (request,) = tensors.taken
        array = request.inputs[0].array
        whole = array
        while isinstance(whole, np.ndarray):
            whole = whole.base
        body = whole.obj if isinstance(whole, memoryview) else whole
        assert body == asked["content"]  # the front's own
        start = np.frombuffer(body, np.uint8).__array_interface__["data"][0]
        assert tensors.addresses[0] == start + len(asked["content"]) - size

    kit.run(main())


ELEMENTS: dict[str, tuple[list[Any], str]] = {
    "BOOL": ([True, False], "?"),
    "UINT8": ([0, 255], "u1"),
    "UINT16": ([0, 65535], "<u2"),
    "UINT32": ([0, 2**32 - 1], "<u4"),
    "UINT64": ([0, 2**64 - 1], "<u8"),
    "INT8": ([-128, 127], "i1"),
    "INT16": ([-(2**15), 2**15 - 1], "<i2"),
    "INT32": ([-(2**31), 2**31 - 1], "<i4"),
    "INT64": ([-(2**63), 2**63 - 1], "<i8"),
    "FP32": ([-0.5, 3.0], "<f4"),
    "FP64": ([0.1, 1e300], "<f8"),
}


@pytest.mark.parametrize("datatype", ELEMENTS)
def test_each_type_in_json_is_what_it_is_in_bytes(kit: Any, v2: Any, datatype: str) -> None:
    async def main() -> None:
        values, dtype = ELEMENTS[datatype]
        path = f"/v2/models/identity_{datatype.lower()}/infer"
        tensor: dict[str, Any] = {"name": "in", "datatype": datatype, "shape": [1, 2]}
        said = {
            "inputs": [tensor | {"data": values}],
            "parameters": {"binary_data_output": True},
        }
        async with talking(kit, v2) as (client, _):
            first = await client.post(path, json=said)
            data = np.array(values, dtype).tobytes()
            tensor["parameters"] = {"binary_data_size": len(data)}
            second = await client.post(path, **with_bytes({"inputs": [tensor]}, data))
        assert outputs_of(first)[1] == data, first.text
        assert outputs_of(second)[0]["outputs"][0]["data"] == values, second.text

    kit.run(main())


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_halves_come_as_bytes_and_have_no_form_in_json(kit: Any, v2: Any, datatype: str) -> None:
    async def main() -> None:
        path = f"/v2/models/identity_{datatype.lower()}/infer"
        tensor: dict[str, Any] = {"name": "in", "datatype": datatype, "shape": [1, 2]}
        data = b"\x00\x3c\x80\xbf"
        in_bytes = tensor | {"parameters": {"binary_data_size": 4}}
        said = {"inputs": [in_bytes], "parameters": {"binary_data_output": True}}
        async with talking(kit, v2) as (client, _):
            whole = await client.post(path, **with_bytes(said, data))
            asked = await client.post(path, json={"inputs": [tensor | {"data": [1, 2]}]})
            wanted = await client.post(path, **with_bytes({"inputs": [in_bytes]}, data))
        assert outputs_of(whole)[1] == data
        assert asked.status_code == 400
        assert "has no form in JSON: send it as bytes" in asked.json()["error"]
        assert wanted.status_code == 400
        assert "ask for `binary_data`" in wanted.json()["error"]

    kit.run(main())


def test_strings_in_json_and_in_bytes(kit: Any, v2: Any) -> None:
    async def main() -> None:
        path = "/v2/models/identity_bytes/infer"
        tensor: dict[str, Any] = {"name": "in", "datatype": "BYTES", "shape": [3, 1]}
        texts = ["", "wörld", "a,b"]
        packed = b"".join(
            len(text.encode()).to_bytes(4, "little") + text.encode() for text in texts
        )
        in_bytes = tensor | {"parameters": {"binary_data_size": len(packed)}}
        binary = {"parameters": {"binary_data_output": True}}
        async with talking(kit, v2) as (client, tensors):
            first = await client.post(path, json={"inputs": [tensor | {"data": texts}]} | binary)
            nested = [[text] for text in texts]
            again = await client.post(path, json={"inputs": [tensor | {"data": nested}]} | binary)
            second = await client.post(path, **with_bytes({"inputs": [in_bytes]}, packed))
            raw = tensor | {"shape": [1, 1], "parameters": {"binary_data_size": 5}}
            no_text = await client.post(
                path, **with_bytes({"inputs": [raw]}, b"\x01\x00\x00\x00\xff")
            )
        assert outputs_of(first)[1] == outputs_of(again)[1] == packed
        assert outputs_of(second)[0]["outputs"][0]["data"] == texts
        assert tensors.taken[0].inputs[0].array.tolist() == [[text.encode()] for text in texts]
        assert no_text.status_code == 400
        assert "is not all UTF-8" in no_text.json()["error"]

    kit.run(main())


def test_what_is_no_number_is_null(kit: Any, v2: Any) -> None:
    async def main() -> None:
        data = np.array([np.nan, np.inf, 1], "<f4").tobytes()
        said = {"inputs": [fp32([1, 3], parameters={"binary_data_size": 12})]}
        async with talking(kit, v2) as (client, _):
            answer = await client.post(PATH, **with_bytes(said, data))
        assert answer.json()["outputs"][0]["data"] == [None, None, 1]

    kit.run(main())


def test_what_is_said_of_server_and_models(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, _):
            server = (await client.get("/v2")).json()
            metadata = (await client.get("/v2/models/simple")).json()
            older = (await client.get("/v2/models/simple/versions/1")).json()
            config = (await client.get("/v2/models/simple/config")).json()
            strings = (await client.get("/v2/models/identity_bytes/versions/2/config")).json()
            stats = (await client.get("/v2/models/simple/versions/1/stats")).json()
            both = (await client.get("/v2/models/simple/stats")).json()
            every = (await client.get("/v2/models/stats")).json()
            missing = await client.get("/v2/models/simple/versions/3")
        assert server["name"] == "headrace"
        assert server["version"] == "9"
        assert {"binary_tensor_data", "system_shared_memory"} <= set(server["extensions"])
        assert metadata == older
        assert (metadata["versions"], metadata["platform"]) == (["1", "2"], "onnxruntime_onnx")
        assert metadata["inputs"][0] == {"name": "INPUT0", "datatype": "INT32", "shape": [-1, 16]}
        assert (config["backend"], config["max_batch_size"]) == ("onnxruntime", 8)
        assert config["output"][1] == {
            "name": "OUTPUT1",
            "data_type": "TYPE_INT32",
            "dims": [16],
        }
        assert strings["input"][0]["data_type"] == "TYPE_STRING"
        assert strings["input"][0]["dims"] == [-1, -1]
        (one,) = stats["model_stats"]
        assert (one["version"], one["inference_count"], one["execution_count"]) == ("1", 12, 2)
        assert one["last_inference"] == 1_000_500
        assert one["inference_stats"]["success"] == {"count": 3, "ns": 750_000_000}
        assert one["inference_stats"]["fail"] == {"count": 1, "ns": 125_000_000}
        assert one["batch_stats"][0]["batch_size"] == 4
        assert one["batch_stats"][0]["compute_infer"] == {"count": 2, "ns": 500_000_000}
        assert [each["version"] for each in both["model_stats"]] == ["1", "2"]
        assert len(every["model_stats"]) == 30
        assert (missing.status_code, missing.json()) == (
            404,
            {"error": "There is no model simple:3."},
        )

    kit.run(main())


def test_health_of_server_and_models(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2, keys={"k": "acme"}) as (client, tensors):
            key = {"authorization": "Bearer k"}
            for path in ("/v2/health/live", "/v2/health/ready"):  # probes have no keys
                assert (await client.get(path)).status_code == 200
            assert (await client.get("/v2/models/simple/ready")).status_code == 401
            assert (await client.get("/v2/models/simple/ready", headers=key)).status_code == 200
            tensors.states["simple"] = "loading"
            assert (await client.get("/v2/models/simple/ready", headers=key)).status_code == 400
            tensors.states |= dict.fromkeys(tensors.lines, "failed")
            ready = await client.get("/v2/health/ready")
            assert (ready.status_code, ready.json()) == (400, {"ready": False})

    kit.run(main())


def test_the_repository_is_for_who_may_administer(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, tensors):
            load, unload = (f"/v2/repository/models/simple/{what}" for what in ("load", "unload"))
            assert (await client.post(unload)).status_code == 200
            assert tensors.states == {"simple": "unloaded"}
            index = (await client.post("/v2/repository/index")).json()
            ready = (await client.post("/v2/repository/index", json={"ready": True})).json()
            assert (await client.post(load, json={})).status_code == 200
            assert tensors.states == {"simple": "ready"}
            missing = await client.post("/v2/repository/models/none/load")
        simple = [each for each in index if each["name"] == "simple"]
        assert [(each["version"], each["state"]) for each in simple] == [
            ("1", "UNAVAILABLE"),
            ("2", "UNAVAILABLE"),
        ]
        assert len(ready) == len(index) - 2
        assert missing.status_code == 404
        async with talking(kit, v2, keys={"k": "acme"}) as (client, tensors):
            key = {"authorization": "Bearer k"}
            refused = await client.post(load, headers=key)
            assert refused.status_code == 403
            assert refused.json() == {"error": "The key lacks the scope admin."}
            assert not tensors.states

    kit.run(main())


def test_errors_are_said_in_one_text(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2, keys={"k": "acme"}) as (client, tensors):
            body = {"inputs": [fp32([1, 1], data=[1])]}
            nobody = await client.post(PATH, json=body)
            assert nobody.status_code == 401
            assert nobody.json() == {"error": "The API key is not known; check it."}
            key = {"authorization": "Bearer k"}
            tensors.refuse = HeadraceError(Code.QUEUE_FULL, "Full.", retry_after_s=2)
            full = await client.post(PATH, json=body, headers=key)
            assert (full.status_code, full.json()) == (503, {"error": "Full."})
            assert full.headers["retry-after"] == "2"
            wrong = await client.get(PATH, headers=key)
            assert wrong.status_code == 405
            assert wrong.json() == {"error": "GET is not allowed here; use OPTIONS, POST."}
            assert tensors.callers[0].tenant == "acme"

    kit.run(main())


def test_a_client_that_leaves_cancels_its_inference(kit: Any, v2: Any) -> None:
    async def main() -> None:
        tensors = v2.Lines()
        tensors.hold = asyncio.Event()
        async with talking(kit, v2, tensors) as (client, _):
            body = {"inputs": [fp32([1, 1], data=[1])]}
            asking = asyncio.create_task(client.post(PATH, json=body))
            await tensors.began.wait()
            asking.cancel()
            await tensors.cancelled.wait()

    kit.run(main())


def test_a_page_cannot_do_by_a_form_what_its_visitor_can(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, tensors):
            origin = {"origin": "https://evil.example", "content-type": "text/plain"}
            for path in (PATH, "/v2/repository/models/simple/unload"):
                answer = await client.post(path, content=b"{}", headers=origin)
                assert answer.status_code == 415
            assert not tensors.states
            assert not tensors.taken

    kit.run(main())
