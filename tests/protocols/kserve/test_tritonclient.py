"""NVIDIA's own client of KServe V2, over HTTP and gRPC, waiting and not, with its shared memory."""

from __future__ import annotations

import asyncio
import os
import queue
import secrets
from collections.abc import Callable
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio
from tritonclient.utils import (
    InferenceServerException,
    np_to_triton_dtype,
    serialize_byte_tensor,
    shared_memory,
)

WIRES = {"http": tritonclient.http, "grpc": tritonclient.grpc}
ARRAYS: dict[str, Any] = {
    "BOOL": np.array([[True, False]]),
    "UINT8": np.array([[0, 255]], np.uint8),
    "UINT16": np.array([[0, 65535]], np.uint16),
    "UINT32": np.array([[0, 2**32 - 1]], np.uint32),
    "UINT64": np.array([[0, 2**64 - 1]], np.uint64),
    "INT8": np.array([[-128, 127]], np.int8),
    "INT16": np.array([[-(2**15), 2**15 - 1]], np.int16),
    "INT32": np.array([[-(2**31), 2**31 - 1]], np.int32),
    "INT64": np.array([[-(2**63), 2**63 - 1]], np.int64),
    "FP16": np.array([[0.5, -2]], np.float16),
    "FP32": np.array([[0.5, np.inf]], np.float32),
    "FP64": np.array([[0.1, 1e300]], np.float64),
    "BF16": np.array([[0.5, -2]], ml_dtypes.bfloat16),
    "BYTES": np.array([["wörld".encode(), b"\xff\x00"]], object),
}


def with_server(kit: Any, v2: Any, work: Callable[[Any, Any], Any], keys: Any = None) -> None:
    """Run what waits in a thread of its own, beside a server: given its address, and its models."""

    async def main() -> None:
        tensors = v2.Lines()
        service = kit.Service(kit.hello, keys=keys)
        async with v2.serving(service, tensors) as server:
            await asyncio.to_thread(work, server.address, tensors)

    kit.run(main())


def inputs(wire: Any, array: Any, datatype: str) -> list[Any]:
    tensor = wire.InferInput("in", list(array.shape), datatype)
    tensor.set_data_from_numpy(array)
    return [tensor]


@pytest.mark.parametrize("datatype", ARRAYS)
@pytest.mark.parametrize("wire", WIRES)
def test_all_types_come_back_as_they_were(kit: Any, v2: Any, wire: str, datatype: str) -> None:
    array = ARRAYS[datatype]

    def work(address: str, _: Any) -> None:
        module = WIRES[wire]
        with module.InferenceServerClient(address) as client:
            name = f"identity_{datatype.lower()}"
            result = client.infer(name, inputs(module, array, datatype), request_id="7")
            found = result.as_numpy("out")
            assert found.shape == array.shape
            assert found.astype(array.dtype).tolist() == array.tolist()

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_what_it_asks_of_server_and_models(kit: Any, v2: Any, wire: str) -> None:
    def work(address: str, tensors: Any) -> None:
        options = {"as_json": True} if wire == "grpc" else {}
        with WIRES[wire].InferenceServerClient(address) as client:
            assert client.is_server_live()
            assert client.is_server_ready()
            assert client.is_model_ready("simple", "1")
            assert client.get_server_metadata(**options)["name"] == "headrace"
            metadata = client.get_model_metadata("simple", **options)
            assert [int(length) for length in metadata["inputs"][0]["shape"]] == [-1, 16]
            config = client.get_model_config("simple", **options)
            config = config.get("config", config)
            assert (config["max_batch_size"], config["input"][0]["data_type"]) == (8, "TYPE_INT32")
            (stats,) = client.get_inference_statistics("simple", "2", **options)["model_stats"]
            assert int(stats["inference_stats"]["success"]["ns"]) == 750_000_000
            index = client.get_model_repository_index(**options)
            index = index.get("models", []) if wire == "grpc" else index
            assert len(index) == 30
            client.unload_model("simple")
            assert tensors.states == {"simple": "unloaded"}
            assert not client.is_model_ready("simple")
            client.load_model("simple")
            assert client.is_model_ready("simple")
            with pytest.raises(InferenceServerException) as raised:
                client.get_model_metadata("none")
            assert "There is no model none:2." in str(raised.value)

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_outputs_that_it_asks_for(kit: Any, v2: Any, wire: str) -> None:
    def work(address: str, tensors: Any) -> None:
        module = WIRES[wire]
        first = np.arange(32, dtype=np.int32).reshape(2, 16)
        asked = []
        for name in ("INPUT0", "INPUT1"):
            tensor = module.InferInput(name, [2, 16], np_to_triton_dtype(first.dtype))
            tensor.set_data_from_numpy(first)
            asked.append(tensor)
        wanted = [module.InferRequestedOutput("OUTPUT1")]
        with module.InferenceServerClient(address) as client:
            result = client.infer(
                "simple", asked, "1", outputs=wanted, priority=5, timeout=2_000_000
            )
        assert result.as_numpy("OUTPUT1").tolist() == np.zeros((2, 16)).tolist()
        assert result.as_numpy("OUTPUT0") is None
        (request,) = tensors.taken
        assert (request.version, list(request.outputs)) == ("1", ["OUTPUT1"])
        assert (request.priority, request.timeout_s) == (5, 2.0)

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_its_shared_memory(kit: Any, v2: Any, wire: str) -> None:
    def work(address: str, tensors: Any) -> None:
        module = WIRES[wire]
        key = f"/headrace-test-{os.getpid()}-{secrets.token_hex(4)}"
        array = np.arange(1024, dtype=np.float32).reshape(1, 1024)
        size = array.nbytes
        handle = shared_memory.create_shared_memory_region("both", key, 2 * size)
        try:
            shared_memory.set_shared_memory_region(handle, [array])
            with module.InferenceServerClient(address) as client:
                client.register_system_shared_memory("both", key, 2 * size)
                options = {"as_json": True} if wire == "grpc" else {}
                status = client.get_system_shared_memory_status(**options)
                assert key in str(status)
                tensor = module.InferInput("in", [1, 1024], "FP32")
                tensor.set_shared_memory("both", size)
                output = module.InferRequestedOutput("out")
                output.set_shared_memory("both", size, offset=size)
                result = client.infer("identity_fp32", [tensor], outputs=[output])
                shape = result.get_output("out")
                shape = shape.shape if wire == "grpc" else shape["shape"]
                found = shared_memory.get_contents_as_numpy(handle, np.float32, shape, size)
                assert found.tolist() == array.tolist()
                assert tensors.taken[0].into["out"].nbytes == size
                client.unregister_system_shared_memory("both")
                assert key not in str(client.get_system_shared_memory_status(**options))
        finally:
            shared_memory.destroy_shared_memory_region(handle)

    with_server(kit, v2, work)


@pytest.mark.parametrize("datatype", ["BYTES", "BF16", "FP16"])
@pytest.mark.parametrize("wire", WIRES)
def test_its_shared_memory_of_types_that_numpy_has_not(
    kit: Any, v2: Any, wire: str, datatype: str
) -> None:
    """In and out: strings have their lengths before them there, as on the wire."""
    array = ARRAYS[datatype]
    packed = {"BYTES": serialize_byte_tensor}.get(datatype)
    said = array if packed is None else packed(array)
    size = len(said.item()) if datatype == "BYTES" else array.size * 2

    def work(address: str, _: Any) -> None:
        module = WIRES[wire]
        key = f"/headrace-test-{os.getpid()}-{secrets.token_hex(4)}"
        handle = shared_memory.create_shared_memory_region("both", key, 4096)
        try:
            shared_memory.set_shared_memory_region(handle, [said])
            with module.InferenceServerClient(address) as client:
                client.register_system_shared_memory("both", key, 4096)
                tensor = module.InferInput("in", list(array.shape), datatype)
                tensor.set_shared_memory("both", size)
                output = module.InferRequestedOutput("out")
                output.set_shared_memory("both", 1024, offset=2048)
                client.infer(f"identity_{datatype.lower()}", [tensor], outputs=[output])
                kind = np.bytes_ if datatype == "BYTES" else array.dtype
                found = shared_memory.get_contents_as_numpy(handle, kind, array.shape, 2048)
                assert found.astype(array.dtype).tolist() == array.tolist()
                del found
        finally:
            shared_memory.destroy_shared_memory_region(handle)

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_its_calls_that_come_back_later(kit: Any, v2: Any, wire: str) -> None:
    """``async_infer``: a promise over HTTP, a callback over gRPC."""

    def work(address: str, _: Any) -> None:
        module = WIRES[wire]
        array = ARRAYS["FP32"]
        options = {"concurrency": 4} if wire == "http" else {}
        with module.InferenceServerClient(address, **options) as client:
            asked = [("identity_fp32", inputs(module, array, "FP32"))] * 8
            if wire == "http":
                promises = [client.async_infer(*one) for one in asked]
                results = [promise.get_result(timeout=20) for promise in promises]
            else:
                answers: queue.Queue[Any] = queue.Queue()
                for one in asked:
                    client.async_infer(*one, lambda result, error: answers.put((result, error)))
                found = [answers.get(timeout=20) for _ in asked]
                assert [error for _, error in found] == [None] * 8
                results = [result for result, _ in found]
            for result in results:
                assert result.as_numpy("out").tolist() == array.tolist()

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_the_highest_classes_it_asks_for(kit: Any, v2: Any, wire: str) -> None:
    def work(address: str, _: Any) -> None:
        module = WIRES[wire]
        first = np.array([[1, 5, 10, *[0] * 13], [7, -3, 2, *[6] * 13]], np.int32)
        asked = []
        for name, array in (("INPUT0", first), ("INPUT1", np.zeros_like(first))):
            asked.append(module.InferInput(name, [2, 16], "INT32"))
            asked[-1].set_data_from_numpy(array)
        wanted = [module.InferRequestedOutput(f"OUTPUT{n}", class_count=2 + n) for n in (0, 1)]
        with module.InferenceServerClient(address) as client:
            assert "classification" in str(client.get_server_metadata())
            result = client.infer("simple", asked, outputs=wanted)
        assert result.as_numpy("OUTPUT0").tolist() == [
            [b"10:2:pickle", b"5:1"],
            [b"7:0:apple", b"6:3"],
        ]
        assert result.as_numpy("OUTPUT1").tolist() == [
            [b"10:2", b"5:1", b"1:0"],
            [b"7:0", b"6:3", b"6:4"],
        ]

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_what_is_not_done_here_is_said(kit: Any, v2: Any, wire: str) -> None:
    def work(address: str, tensors: Any) -> None:
        module = WIRES[wire]
        asked = inputs(module, ARRAYS["FP32"], "FP32")
        refused: list[tuple[dict[str, Any], str]] = [
            ({"sequence_id": 7, "sequence_start": True}, "`parameters.sequence_id` is for models"),
        ]
        with module.InferenceServerClient(address) as client:
            for options, said in refused:
                with pytest.raises(InferenceServerException) as raised:
                    client.infer("identity_fp32", asked, **options)
                assert said in str(raised.value)
            client.infer("identity_fp32", asked, parameters={"anything": "else"})
            assert len(tensors.taken) == 1

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_memory_of_gpus_is_forgotten_as_its_examples_begin_and_never_taken(
    kit: Any, v2: Any, wire: str
) -> None:
    def work(address: str, _: Any) -> None:
        with WIRES[wire].InferenceServerClient(address) as client:
            client.unregister_system_shared_memory()
            client.unregister_cuda_shared_memory()
            client.unregister_cuda_shared_memory("frames")
            options = {"as_json": True} if wire == "grpc" else {}
            assert not client.get_cuda_shared_memory_status(**options)
            with pytest.raises(InferenceServerException) as raised:
                client.register_cuda_shared_memory("frames", b"aGFuZGxl", 0, 4096)
            assert "'frames' is of a GPU, whose memory is not shared here" in str(raised.value)

    with_server(kit, v2, work)


def test_its_stream(kit: Any, v2: Any) -> None:
    def work(address: str, _: Any) -> None:
        module = tritonclient.grpc
        answers: queue.Queue[Any] = queue.Queue()
        array = ARRAYS["FP32"]
        with module.InferenceServerClient(address) as client:
            client.start_stream(lambda result, error: answers.put((result, error)))
            for name in ("identity_fp32", "none", "identity_fp32"):
                client.async_stream_infer(name, inputs(module, array, "FP32"))
            found = [answers.get(timeout=20) for _ in range(3)]
            client.stop_stream()
        assert [error is None for _, error in found] == [True, False, True]
        assert found[2][0].as_numpy("out").tolist() == array.tolist()

    with_server(kit, v2, work)


@pytest.mark.parametrize("wire", WIRES)
def test_its_clients_that_do_not_wait(kit: Any, v2: Any, wire: str) -> None:
    async def main() -> None:
        module = {"http": tritonclient.http.aio, "grpc": tritonclient.grpc.aio}[wire]
        async with v2.serving(kit.Service(kit.hello), v2.Lines()) as server:
            client = module.InferenceServerClient(server.address)
            try:
                assert await client.is_server_ready()
                for datatype in ("FP32", "BYTES"):
                    array = ARRAYS[datatype]
                    name = f"identity_{datatype.lower()}"
                    result = await client.infer(name, inputs(WIRES[wire], array, datatype))
                    assert result.as_numpy("out").tolist() == array.tolist()
            finally:
                await client.close()

    kit.run(main())


@pytest.mark.parametrize("wire", WIRES)
def test_its_keys(kit: Any, v2: Any, wire: str) -> None:
    def work(address: str, _: Any) -> None:
        module = WIRES[wire]
        with module.InferenceServerClient(address) as client:
            asked = inputs(module, ARRAYS["FP32"], "FP32")
            with pytest.raises(InferenceServerException) as raised:
                client.infer("identity_fp32", asked)
            assert "The API key is not known" in str(raised.value)
            client.infer("identity_fp32", asked, headers={"authorization": "Bearer k"})

    with_server(kit, v2, work, keys={"k": "acme"})


@pytest.mark.parametrize("coding", ["gzip", "deflate"])
def test_its_compression_over_http(kit: Any, v2: Any, coding: str) -> None:
    def work(address: str, _: Any) -> None:
        module = tritonclient.http
        array = np.zeros((1, 100_000), np.float32)
        with module.InferenceServerClient(address) as client:
            for binary in (True, False):
                result = client.infer(
                    "identity_fp32",
                    inputs(module, array, "FP32"),
                    outputs=[module.InferRequestedOutput("out", binary_data=binary)],
                    request_compression_algorithm=coding,
                    response_compression_algorithm=coding,
                )
                assert result.as_numpy("out").tolist() == array.tolist()

    with_server(kit, v2, work)
