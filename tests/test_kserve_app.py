"""The whole server, asked by tritonclient for real ONNX models: over HTTP, gRPC and shared memory."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import resource
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.http
import uvloop
from tritonclient.utils import InferenceServerException, shared_memory

from headrace.app import App
from headrace.cli.options import loaded
from headrace.domain.tensors import NUMPY_TYPES
from tests import onnx_models
from tests.whole import settings_file

MODEL = """
[[models]]
name = "{name}"
engine = "onnx"
source = "file:{folder}/{name}.onnx"
"""
WIRES = {"http": tritonclient.http, "grpc": tritonclient.grpc}
ROWS = 3
VALUES: dict[str, Any] = {
    "BOOL": np.array([[True, False]] * ROWS),
    "BF16": np.array([[0.5, -2]] * ROWS, ml_dtypes.bfloat16),
    "BYTES": np.array([["wörld".encode(), b""]] * ROWS, object),
}


def values(datatype: str) -> Any:
    found = VALUES.get(datatype)
    return np.array([[1, 7]] * ROWS, NUMPY_TYPES[datatype]) if found is None else found  # type: ignore[index]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With a model of each type, and one that adds."""
    folder = tmp_path_factory.mktemp("models")
    onnx_models.add(folder / "sum.onnx")
    for datatype in NUMPY_TYPES:
        path = folder / f"same_{datatype.lower()}.onnx"
        onnx_models.identity(path, datatype, ("rows", "columns"))
    return folder


def serve(folder: Path, work: Callable[[App], Any], server: str = "", onnx: str = "") -> None:
    """Do this in a thread of its own, beside a server whose models are ready."""
    models = [MODEL.replace("{name}", "sum"), onnx, "\n"]
    models += [MODEL.replace("{name}", f"same_{datatype.lower()}") for datatype in NUMPY_TYPES]
    ports = f'grpc_port = 0\ncache_dir = "{folder}/cache"\n{server}'
    config = settings_file(folder, "".join(models), server=ports)

    async def main() -> None:
        app = App(loaded(str(config), {}).settings)
        ready = asyncio.Event()
        running = asyncio.create_task(app.run(lambda _: ready.set()))
        try:
            async with asyncio.timeout(30):
                await ready.wait()
                assert app.tensors is not None
                for model in app.tensors.models():
                    await app.tensors.load(model.name)
                await asyncio.to_thread(work, app)
        finally:
            app.stopping.set()
            await running

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main())


def address(app: App, wire: str) -> str:
    assert app.front is not None
    assert app.grpc is not None
    found = app.grpc.address if wire == "grpc" else app.front.address
    assert found is not None
    return found


@contextlib.contextmanager
def shared(size: int) -> Iterator[tuple[str, Any]]:
    """A key, and tritonclient's handle of its memory."""
    key = f"/headrace-test-{os.getpid()}-{secrets.token_hex(4)}"
    handle = shared_memory.create_shared_memory_region("r", key, size)
    try:
        yield key, handle
    finally:
        shared_memory.destroy_shared_memory_region(handle)


def test_all_types_over_both_wires_and_through_shared_memory(folder: Path) -> None:
    def work(app: App) -> None:
        for wire, module in WIRES.items():
            with module.InferenceServerClient(address(app, wire)) as client:
                for datatype in NUMPY_TYPES:
                    array = values(datatype)
                    tensor = module.InferInput("x", list(array.shape), datatype)
                    tensor.set_data_from_numpy(array)
                    name = f"same_{datatype.lower()}"
                    found = client.infer(name, [tensor]).as_numpy("y")
                    assert found.tolist() == array.tolist(), (wire, datatype)
                    if datatype != "BYTES":
                        in_shared_memory(module, client, name, array, datatype)

    serve(folder, work)


def in_shared_memory(module: Any, client: Any, name: str, array: Any, datatype: str) -> None:
    size = array.nbytes
    with shared(2 * size) as (key, handle):
        shared_memory.set_shared_memory_region(handle, [array])
        client.register_system_shared_memory(key, key, 2 * size)
        tensor = module.InferInput("x", list(array.shape), datatype)
        tensor.set_shared_memory(key, size)
        output = module.InferRequestedOutput("y")
        output.set_shared_memory(key, size, offset=size)
        client.infer(name, [tensor], outputs=[output])
        found = shared_memory.get_contents_as_numpy(handle, array.dtype, array.shape, size)
        assert found.tolist() == array.tolist(), (name, "shared")
        del found
        client.unregister_system_shared_memory(key)


def test_the_highest_classes_have_the_names_of_a_file(folder: Path) -> None:
    (folder / "labels.txt").write_text("left\nright\n")
    more = '[models.onnx]\nlabels = { sum = "{folder}/labels.txt" }\n'

    def work(app: App) -> None:
        for wire, module in WIRES.items():
            with module.InferenceServerClient(address(app, wire)) as client:
                given = []
                for name in ("a", "b"):
                    given.append(module.InferInput(name, [2, 2], "INT32"))
                    given[-1].set_data_from_numpy(np.array([[1, 2], [4, 3]], np.int32))
                wanted = [
                    module.InferRequestedOutput("sum", class_count=1),
                    module.InferRequestedOutput("difference"),
                ]
                answer = client.infer("sum", given, outputs=wanted)
                assert answer.as_numpy("sum").tolist() == [[b"4:1:right"], [b"8:0:left"]]
                assert answer.as_numpy("difference").tolist() == [[0, 0], [0, 0]]

    serve(folder, work, onnx=more)


def test_outputs_come_in_place_and_regions_are_gone_with_the_server(folder: Path) -> None:
    """What the engine was given, and what it gave, are one memory: the client's."""

    def work(app: App) -> None:
        array = np.arange(1 << 18, dtype=np.float32).reshape(1, -1)
        size = array.nbytes
        taken: list[Any] = []
        assert app.tensors is not None
        infer = app.tensors.infer

        async def watched(request: Any, caller: Any) -> Any:
            response = await infer(request, caller)
            arrays = (request.inputs[0].array, request.into["y"], response.outputs[0].array)
            taken.append([each.__array_interface__["data"][0] for each in arrays])
            return response

        app.tensors.infer = watched  # type: ignore[method-assign]
        module = tritonclient.http
        with (
            shared(2 * size) as (key, handle),
            module.InferenceServerClient(address(app, "http")) as client,
        ):
            shared_memory.set_shared_memory_region(handle, [array])
            client.register_system_shared_memory("r", key, 2 * size)
            tensor = module.InferInput("x", [1, 1 << 18], "FP32")
            tensor.set_shared_memory("r", size)
            output = module.InferRequestedOutput("y")
            output.set_shared_memory("r", size, offset=size)
            client.infer("same_fp32", [tensor], outputs=[output])
            found = shared_memory.get_contents_as_numpy(handle, np.float32, [1 << 18], size)
            assert np.array_equal(found, array[0])
            mappings = [
                int(line.split("-")[0], 16)
                for line in Path("/proc/self/maps").read_text().splitlines()
                if line.endswith(key)
            ]
            mine = found.__array_interface__["data"][0] - size
            (theirs,) = [begin for begin in mappings if begin != mine]
            assert taken == [[theirs, theirs + size, theirs + size]]
            del found

    serve(folder, work)
    assert "/dev/shm/headrace-test" not in Path("/proc/self/maps").read_text()


CLIENT = """
import sys, time
import numpy as np, tritonclient.{wire} as triton
from tritonclient.utils import shared_memory

address, key = sys.argv[1:]
handle = shared_memory.create_shared_memory_region("mine", key, 4096)
client = triton.InferenceServerClient(address)
lease = {{"x-shared-memory-lease": "true"}}
client.register_system_shared_memory("mine", key, 4096, headers=lease)
print("registered", flush=True)
time.sleep(60)
"""


@pytest.mark.parametrize("wire", WIRES)
def test_of_a_killed_tritonclient_nothing_is_left(folder: Path, wire: str) -> None:
    def work(app: App) -> None:
        key = f"headrace-test-{os.getpid()}-{secrets.token_hex(4)}"
        command = [sys.executable, "-c", CLIENT.format(wire=wire), address(app, wire), key]
        with (
            subprocess.Popen(command, stdout=subprocess.PIPE) as process,
            httpx.Client(base_url=f"http://{address(app, 'http')}", timeout=30) as client,
        ):
            assert process.stdout is not None
            assert process.stdout.readline() == b"registered\n"
            path = Path("/dev/shm") / key
            assert path.exists()
            process.kill()
            process.wait()
            until = time.monotonic() + 5  # what is promised
            while client.get("/v2/systemsharedmemory/status").json():
                assert time.monotonic() < until
                time.sleep(0.05)
            assert not path.exists()

    serve(folder, work)


def test_16_mb_in_place_touch_no_memory_of_the_servers_own(folder: Path) -> None:
    """A copy of them would be 4,096 pages that are new to the process."""

    def work(app: App) -> None:
        size = 16 << 20
        with shared(2 * size) as (key, _), httpx.Client(timeout=30) as client:
            url = f"http://{address(app, 'http')}"
            region = {"key": key, "byte_size": 2 * size}
            client.post(f"{url}/v2/systemsharedmemory/region/r/register", json=region)
            tensor = {"name": "x", "datatype": "FP32", "shape": [1, size // 4]}
            said = {
                "inputs": [tensor | {"parameters": place(0, size)}],
                "outputs": [{"name": "y", "parameters": place(size, size)}],
            }
            faults = []
            for _ in range(5):
                before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
                assert client.post(f"{url}/v2/models/same_fp32/infer", json=said).is_success
                faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
        assert min(faults) * 4096 < 64 * 1024, faults

    serve(folder, work)


MISTAKES = [
    ("sum", {"a": [[1, 2]]}, "b"),
    ("sum", {"a": [[1, 2]], "b": [[1, 2]], "c": [[1, 2]]}, "c"),
    ("sum", {"a": [[1, 2, 3]], "b": [[1, 2, 3]]}, "a"),
    ("sum", {"a": [1, 2], "b": [1, 2]}, "a"),
    ("sum", {"a": [[1, 2]] * 33, "b": [[1, 2]] * 33}, "32"),
    ("same_fp32", {"x": [[1, 2]]}, "FP32"),
]


@pytest.mark.parametrize("wire", WIRES)
def test_a_tensor_that_the_model_does_not_take_is_named(folder: Path, wire: str) -> None:
    def work(app: App) -> None:
        module = WIRES[wire]
        with module.InferenceServerClient(address(app, wire)) as client:
            for model, arrays, said in MISTAKES:
                inputs = []
                for name, rows in arrays.items():
                    array = np.array(rows, np.int32)
                    tensor = module.InferInput(name, list(array.shape), "INT32")
                    tensor.set_data_from_numpy(array)
                    inputs.append(tensor)
                with pytest.raises(InferenceServerException) as raised:
                    client.infer(model, inputs)
                assert str(raised.value.status()) in ("400", "StatusCode.INVALID_ARGUMENT")
                assert said in str(raised.value)

    serve(folder, work)


def test_metadata_statistics_and_repository_of_real_models(folder: Path) -> None:
    def work(app: App) -> None:
        with httpx.Client(base_url=f"http://{address(app, 'http')}", timeout=30) as client:
            metadata = client.get("/v2/models/sum").json()
            assert metadata["inputs"] == [
                {"name": name, "datatype": "INT32", "shape": [-1, 2]} for name in ("a", "b")
            ]
            config = client.get("/v2/models/sum/config").json()
            assert config["max_batch_size"] == 32
            assert (config["platform"], config["backend"]) == ("onnxruntime_onnx", "onnxruntime")
            inputs = [
                {"name": name, "datatype": "INT32", "shape": [2, 2], "data": [1, 2, 3, 4]}
                for name in ("a", "b")
            ]
            answer = client.post("/v2/models/sum/infer", json={"inputs": inputs})
            assert answer.json()["outputs"][0]["data"] == [2, 4, 6, 8]
            (stats,) = client.get("/v2/models/sum/stats").json()["model_stats"]
            assert (stats["inference_count"], stats["execution_count"]) == (2, 1)
            assert stats["inference_stats"]["success"]["count"] == 1
            assert [batch["batch_size"] for batch in stats["batch_stats"]] == [2]
            assert client.post("/v2/repository/models/sum/unload").status_code == 200
            assert client.get("/v2/models/sum/ready").status_code == 400
            refused = client.post("/v2/models/sum/infer", json={"inputs": inputs})
            assert refused.status_code == 503
            assert client.post("/v2/repository/models/sum/load").status_code == 200
            assert client.get("/v2/models/sum/ready").status_code == 200

    serve(folder, work)


def test_nan_where_a_model_forbids_it(folder: Path) -> None:
    onnx_models.identity(folder / "strict.onnx")
    more = MODEL.format(name="strict", folder=folder) + "[models.onnx]\nforbid_nan = true\n"

    def work(app: App) -> None:
        with httpx.Client(base_url=f"http://{address(app, 'http')}", timeout=30) as client:
            head = b'{"inputs":[{"name":"x","datatype":"FP32","shape":[1,4],"parameters":{"binary_data_size":16}}]}'
            data = np.array([1, np.nan, 2, 3], "<f4").tobytes()
            answer = client.post(
                "/v2/models/strict/infer",
                content=head + data,
                headers={"inference-header-content-length": str(len(head))},
            )
            assert answer.status_code == 400
            assert "NaN" in answer.json()["error"]

    serve(folder, work, onnx=more)


def test_where_keys_are_sealed_memory_is_viewed_and_limits_hold(folder: Path) -> None:
    server = 'api_key = ["sk-tensors"]\nmax_body_bytes = 65536'
    limits = "[models.limits]\nrequests_per_minute = 3\n"

    def work(app: App) -> None:
        array = np.arange(4, dtype="<i4").reshape(2, 2)
        fd = os.memfd_create("default.tensors", os.MFD_ALLOW_SEALING)
        os.ftruncate(fd, 4096)
        fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
        os.pwrite(fd, array.tobytes(), 0)
        key = {"authorization": "Bearer sk-tensors"}
        said = {
            "inputs": [
                {"name": name, "datatype": "INT32", "shape": [2, 2], "parameters": place(0)}
                for name in ("a", "b")
            ],
            "outputs": [{"name": "sum", "parameters": place(1024)}],
        }
        with httpx.Client(base_url=f"http://{address(app, 'http')}", timeout=30) as client:
            region = {"key": f"memfd:{os.getpid()}:{fd}", "byte_size": 4096}
            path = "/v2/systemsharedmemory/region/r/register"
            assert client.post(path, json=region).status_code == 401
            assert client.post(path, json=region, headers=key).status_code == 200
            asked = [client.post("/v2/models/sum/infer", json=said, headers=key) for _ in range(4)]
            large = client.post("/v2/models/sum/infer", content=bytes(65537), headers=key)
        assert [answer.status_code for answer in asked] == [200, 200, 200, 429]
        assert list(asked[3].json()) == ["error"]
        assert int(asked[3].headers["retry-after"]) > 0
        assert np.array_equal(np.frombuffer(os.pread(fd, 16, 1024), "<i4"), 2 * array.reshape(-1))
        assert (large.status_code, list(large.json())) == (413, ["error"])
        os.close(fd)

    serve(folder, work, server, limits)


def place(offset: int, size: int = 16) -> dict[str, Any]:
    return {
        "shared_memory_region": "r",
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }
