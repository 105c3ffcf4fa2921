"""KServe V2 over gRPC, with grpc's own client and our own messages."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from headrace.protocols.grpc import open_inference_pb2 as pb
from headrace.protocols.grpc.open_inference import OpenInference


class Client:
    """The methods by their names."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        service = OpenInference.service
        for method in service.methods:
            kind: Any = channel.stream_stream if method.client_streaming else channel.unary_unary
            made = kind(
                f"/{service.full_name}/{method.name}",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=getattr(pb, method.output_type.name).FromString,
            )
            setattr(self, method.name, made)


@contextlib.asynccontextmanager
async def talking(kit: Any, v2: Any, keys: Any = None) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A client of a server, its models, and the server."""
    tensors = v2.Lines()
    service = kit.Service(kit.hello, keys=keys)
    async with (
        v2.serving(service, tensors) as server,
        grpc.aio.insecure_channel(server.address) as channel,
    ):
        yield Client(channel), tensors, server


def asked(model: str = "identity_fp32", **fields: Any) -> Any:
    return pb.ModelInferRequest(model_name=model, **fields)


def fp32(**fields: Any) -> dict[str, Any]:
    return {"name": "in", "datatype": "FP32", "shape": [1, 2]} | fields


async def refused(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await call
    return raised.value.code(), raised.value.details() or ""


def test_an_inference_with_raw_contents(kit: Any, v2: Any) -> None:
    async def main() -> None:
        data = np.array([1.5, np.nan], "<f4").tobytes()
        request = asked(
            id="mine",
            inputs=[fp32()],
            raw_input_contents=[data],
            parameters={"priority": {"uint64_param": 2}, "timeout": {"int64_param": 500_000}},
        )
        async with talking(kit, v2) as (client, tensors, _):
            call = client.ModelInfer(request, metadata=[("x-request-id", "theirs")])
            answer = await call
            metadata = dict(await call.initial_metadata())
        assert metadata["x-request-id"] == "theirs"
        assert (answer.model_name, answer.model_version, answer.id) == (
            "identity_fp32",
            "2",
            "mine",
        )
        (output,) = answer.outputs
        assert (output.name, output.datatype, list(output.shape)) == ("out", "FP32", [1, 2])
        assert answer.raw_output_contents == [data]
        (taken,) = tensors.taken
        assert (taken.id, taken.priority, taken.timeout_s) == ("mine", 2, 0.5)

    kit.run(main())


CONTENTS: dict[str, tuple[str, list[Any], str]] = {
    "BOOL": ("bool_contents", [True, False], "?"),
    "UINT8": ("uint_contents", [0, 255], "u1"),
    "UINT16": ("uint_contents", [0, 65535], "<u2"),
    "UINT32": ("uint_contents", [0, 2**32 - 1], "<u4"),
    "UINT64": ("uint64_contents", [0, 2**64 - 1], "<u8"),
    "INT8": ("int_contents", [-128, 127], "i1"),
    "INT16": ("int_contents", [-(2**15), 2**15 - 1], "<i2"),
    "INT32": ("int_contents", [-(2**31), 2**31 - 1], "<i4"),
    "INT64": ("int64_contents", [-(2**63), 2**63 - 1], "<i8"),
    "FP32": ("fp32_contents", [-0.5, 3.0], "<f4"),
    "FP64": ("fp64_contents", [0.1, 1e300], "<f8"),
}


@pytest.mark.parametrize("datatype", CONTENTS)
def test_each_type_with_contents_of_its_own(kit: Any, v2: Any, datatype: str) -> None:
    async def main() -> None:
        field, values, dtype = CONTENTS[datatype]
        tensor = fp32(datatype=datatype, contents={field: values})
        async with talking(kit, v2) as (client, _, _):
            answer = await client.ModelInfer(asked(f"identity_{datatype.lower()}", inputs=[tensor]))
        assert answer.raw_output_contents == [np.array(values, dtype).tobytes()]

    kit.run(main())


def test_strings_with_contents_of_their_own(kit: Any, v2: Any) -> None:
    async def main() -> None:
        tensor = fp32(datatype="BYTES", contents={"bytes_contents": [b"", b"\xff\x00"]})
        async with talking(kit, v2) as (client, _, _):
            answer = await client.ModelInfer(asked("identity_bytes", inputs=[tensor]))
        assert answer.raw_output_contents == [b"\0\0\0\0\x02\0\0\0\xff\0"]

    kit.run(main())


MISTAKES: list[tuple[str, dict[str, Any], str]] = [
    ("no inputs", {}, "`inputs` must have 1 to 256 tensors"),
    (
        "too few raw",
        {"inputs": [fp32(), fp32(name="b")], "raw_input_contents": [bytes(8)]},
        "`raw_input_contents` has nothing for `inputs[1]`",
    ),
    (
        "too many raw",
        {"inputs": [fp32()], "raw_input_contents": [bytes(8), b""]},
        "`raw_input_contents` has 2 tensors, 1 of them for an input",
    ),
    (
        "both",
        {
            "inputs": [fp32(contents={"fp32_contents": [1, 2]})],
            "raw_input_contents": [bytes(8)],
        },
        "`inputs[0].contents` and `raw_input_contents` exclude each other",
    ),
    (
        "truncated",
        {"inputs": [fp32()], "raw_input_contents": [bytes(7)]},
        "`inputs[0]` has 7 bytes; FP32 of the shape [1, 2] needs 8",
    ),
    ("no contents", {"inputs": [fp32()]}, "`inputs[0].contents` has 0 elements"),
    (
        "contents of another type",
        {"inputs": [fp32(contents={"int_contents": [1, 2]})]},
        "`inputs[0].contents.int_contents` is not for FP32, which is in `fp32_contents`",
    ),
    (
        "half precision in contents",
        {"inputs": [fp32(datatype="FP16")]},
        "`inputs[0].contents` cannot have FP16: send it in `raw_input_contents`",
    ),
    (
        "out of range",
        {"inputs": [fp32(datatype="INT8", contents={"int_contents": [1, 128]})]},
        "has a number in it that is none of INT8",
    ),
    (
        "a parameter of another type",
        {"inputs": [fp32()], "parameters": {"priority": {"string_param": "1"}}},
        "`inputs[0].contents` has 0 elements",
    ),
]


@pytest.mark.parametrize(
    ("fields", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_mistake_is_named(kit: Any, v2: Any, fields: dict[str, Any], said: str) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, tensors, _):
            code, message = await refused(client.ModelInfer(asked(**fields)))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert said in message
        assert not tensors.taken

    kit.run(main())


def test_a_stream_answers_each_request_and_outlives_mistakes(kit: Any, v2: Any) -> None:
    async def main() -> None:
        data = np.array([1, 2], "<f4").tobytes()
        good = asked(id="good", inputs=[fp32()], raw_input_contents=[data])
        bad = asked(id="bad", inputs=[fp32()], raw_input_contents=[data[:4]])
        large = np.zeros(1 << 18, "<f4").tobytes()
        big = asked(id="big", inputs=[fp32(shape=[1, 1 << 18])], raw_input_contents=[large])
        async with talking(kit, v2) as (client, _, _):
            call = client.ModelStreamInfer()
            for request in (good, bad, big, big, good):
                await call.write(request)
            await call.done_writing()
            answers = [answer async for answer in call]
            assert await call.code() is grpc.StatusCode.OK
        assert [answer.infer_response.id for answer in answers] == [
            *("good", "bad", "big", "big", "good")
        ]
        assert [bool(answer.error_message) for answer in answers] == [False, True, *[False] * 3]
        assert "needs 8" in answers[1].error_message
        assert answers[0].infer_response.parameters["triton_final_response"].bool_param
        assert answers[2].infer_response.raw_output_contents == [large]

    kit.run(main())


@pytest.mark.parametrize("how", ["ModelInfer", "ModelStreamInfer"])
def test_a_client_that_leaves_cancels_its_inference(kit: Any, v2: Any, how: str) -> None:
    async def main() -> None:
        request = asked(inputs=[fp32()], raw_input_contents=[bytes(8)])
        async with talking(kit, v2) as (client, tensors, _):
            tensors.hold = asyncio.Event()
            call = getattr(client, how)(*([request] if how == "ModelInfer" else []))
            if how == "ModelStreamInfer":
                await call.write(request)
            await tensors.began.wait()
            call.cancel()
            await tensors.cancelled.wait()

    kit.run(main())


def test_a_deadline_that_passes_cancels_its_inference(kit: Any, v2: Any) -> None:
    async def main() -> None:
        request = asked(inputs=[fp32()], raw_input_contents=[bytes(8)])
        async with talking(kit, v2) as (client, tensors, _):
            tensors.hold = asyncio.Event()
            code, _ = await refused(client.ModelInfer(request, timeout=0.05))
            assert code is grpc.StatusCode.DEADLINE_EXCEEDED
            await tensors.cancelled.wait()

    kit.run(main())


def test_what_is_said_of_server_and_models(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, tensors, _):
            assert (await client.ServerLive(pb.ServerLiveRequest())).live
            assert (await client.ServerReady(pb.ServerReadyRequest())).ready
            server = await client.ServerMetadata(pb.ServerMetadataRequest())
            metadata = await client.ModelMetadata(pb.ModelMetadataRequest(name="simple"))
            config = (await client.ModelConfig(pb.ModelConfigRequest(name="simple"))).config
            asked_ = pb.ModelStatisticsRequest(name="simple", version="1")
            (stats,) = (await client.ModelStatistics(asked_)).model_stats
            tensors.states["simple"] = "failed"
            ready = await client.ModelReady(pb.ModelReadyRequest(name="simple"))
            missing = await client.ModelReady(pb.ModelReadyRequest(name="none"))
            index = await client.RepositoryIndex(pb.RepositoryIndexRequest(ready=True))
        assert (server.name, server.version) == ("headrace", "9")
        assert (metadata.platform, list(metadata.versions)) == ("onnxruntime_onnx", ["1", "2"])
        assert list(metadata.inputs[0].shape) == [-1, 16]
        assert (config.max_batch_size, config.backend) == (8, "onnxruntime")
        assert config.input[0].data_type == pb.TYPE_INT32
        assert list(config.output[1].dims) == [16]
        assert list(config.version_policy.specific.versions) == [1, 2]
        assert stats.inference_stats.success.ns == 750_000_000
        assert stats.batch_stats[0].compute_infer.count == 2
        assert not ready.ready
        assert not missing.ready
        assert "simple" not in {model.name for model in index.models}

    kit.run(main())


def test_only_health_needs_no_key_and_only_admin_loads(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2, keys={"k": "acme"}) as (client, tensors, _):
            assert (await client.ServerReady(pb.ServerReadyRequest())).ready
            code, _ = await refused(client.ServerMetadata(pb.ServerMetadataRequest()))
            assert code is grpc.StatusCode.UNAUTHENTICATED
            key = [("authorization", "Bearer k")]
            await client.ServerMetadata(pb.ServerMetadataRequest(), metadata=key)
            for method, kind in (
                (client.RepositoryModelLoad, pb.RepositoryModelLoadRequest),
                (client.RepositoryModelUnload, pb.RepositoryModelUnloadRequest),
            ):
                code, message = await refused(method(kind(model_name="simple"), metadata=key))
                assert code is grpc.StatusCode.PERMISSION_DENIED
                assert "admin" in message
            assert not tensors.states
        async with talking(kit, v2) as (client, tensors, _):
            await client.RepositoryModelUnload(pb.RepositoryModelUnloadRequest(model_name="simple"))
            assert tensors.states == {"simple": "unloaded"}
            await client.RepositoryModelLoad(pb.RepositoryModelLoadRequest(model_name="simple"))
            assert tensors.states == {"simple": "ready"}

    kit.run(main())


def test_a_browser_asks_it_by_connect(kit: Any, v2: Any) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (_, _, server), httpx.AsyncClient() as client:
            answer = await client.post(
                f"{server.url}/inference.GRPCInferenceService/ModelMetadata",
                json={"name": "simple"},
            )
        assert answer.json()["inputs"][0]["shape"] == ["-1", "16"]

    kit.run(main())


def test_reflection_and_health_know_it(kit: Any, v2: Any) -> None:
    from grpc_health.v1 import health_pb2
    from grpc_reflection.v1alpha import reflection_pb2

    async def main() -> None:
        name = "inference.GRPCInferenceService"
        async with v2.serving(kit.Service(kit.hello), v2.Lines()) as server:
            async with grpc.aio.insecure_channel(server.address) as channel:
                reflect: Any = channel.stream_stream(
                    "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
                    request_serializer=reflection_pb2.ServerReflectionRequest.SerializeToString,
                    response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
                )
                call = reflect()
                asked = reflection_pb2.ServerReflectionRequest
                await call.write(asked(file_containing_symbol=name))
                found = await call.read()
                await call.write(asked(list_services=""))
                listed = await call.read()
                await call.done_writing()
                check: Any = channel.unary_unary(
                    "/grpc.health.v1.Health/Check",
                    request_serializer=health_pb2.HealthCheckRequest.SerializeToString,
                    response_deserializer=health_pb2.HealthCheckResponse.FromString,
                )
                await check(health_pb2.HealthCheckRequest(service=name))
        (file,) = found.file_descriptor_response.file_descriptor_proto
        assert file == pb.DESCRIPTOR.serialized_pb
        names = {service.name for service in listed.list_services_response.service}
        assert {name, "headrace.v1.InferenceService"} <= names

    kit.run(main())


def test_a_lease_is_asked_for_in_the_metadata(kit: Any, v2: Any) -> None:
    async def main() -> None:
        path = Path("/dev/shm") / f"headrace-test-{os.getpid()}-{secrets.token_hex(4)}"
        path.write_bytes(bytes(64))
        try:
            async with talking(kit, v2) as (client, _, server):
                asked = pb.SystemSharedMemoryRegisterRequest(name="r", key=path.name, byte_size=64)
                lease = [("x-shared-memory-lease", "true")]
                await client.SystemSharedMemoryRegister(asked, metadata=lease)
                listed = pb.SystemSharedMemoryStatusRequest()
                regions = (await client.SystemSharedMemoryStatus(listed)).regions
                assert regions["r"].key == path.name
                server.memory.sweep()
                assert not path.exists()
                assert not (await client.SystemSharedMemoryStatus(listed)).regions
        finally:
            path.unlink(missing_ok=True)

    kit.run(main())
