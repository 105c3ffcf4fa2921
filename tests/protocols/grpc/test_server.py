"""The gRPC port: health, reflection, TLS, unix sockets, and clients that do not read."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from google.protobuf import descriptor_pool
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from headrace.front.tls import ServerTls, Tls
from headrace.protocols.grpc.call import HIGH_WATER_BYTES
from headrace.protocols.grpc.wires import KEYLESS_BYTES


def test_health_follows_the_models(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        serving = rpc.Serving(kit.Service(kit.hello))
        await serving.start()
        async with grpc.aio.insecure_channel(serving.address) as channel:
            health = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="headrace.v1.InferenceService")
            watch = health.Watch(asked)
            states = health_pb2.HealthCheckResponse
            assert (await watch.read()).status == states.NOT_SERVING
            serving.services.health.look(True)
            assert (await watch.read()).status == states.SERVING
            assert (await health.Check(health_pb2.HealthCheckRequest())).status == states.SERVING
            serving.services.health.leave()
            assert (await watch.read()).status == states.NOT_SERVING
            watch.cancel()
        await serving.close()

    kit.run(main())


@pytest.mark.parametrize("version", ["v1alpha", "v1"])
def test_reflection_lists_the_services_and_needs_no_key(kit: Any, rpc: Any, version: str) -> None:
    async def main() -> None:
        serving = rpc.Serving(kit.Service(kit.hello, keys={"k": "acme"}))
        await serving.start()
        async with grpc.aio.insecure_channel(serving.address) as channel:
            call = channel.stream_stream(
                f"/grpc.reflection.{version}.ServerReflection/ServerReflectionInfo",
                request_serializer=lambda message: message.SerializeToString(),
                response_deserializer=reflection_pb2.ServerReflectionResponse.FromString,
            )()
            await call.write(reflection_pb2.ServerReflectionRequest(list_services=""))
            listed = (await call.read()).list_services_response.service
            assert {service.name for service in listed} == {
                "headrace.v1.InferenceService",
                "grpc.health.v1.Health",
                "grpc.reflection.v1alpha.ServerReflection",
            }
            symbol = "headrace.v1.Event"
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            assert (await call.read()).file_descriptor_response.file_descriptor_proto
            call.cancel()
        await serving.close()

    kit.run(main())


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"file_containing_symbol": "nobody.knows"}, 5),
        ({"file_by_filename": "nothing.proto"}, 5),
        ({"all_extension_numbers_of_type": "headrace.v1.Event"}, 12),
    ],
)
def test_reflection_says_what_is_not_there(kit: Any, rpc: Any, asked: Any, code: int) -> None:
    async def main() -> None:
        async with (
            rpc.talking(kit.Service(kit.hello)) as (_, serving),
            grpc.aio.insecure_channel(serving.address) as channel,
        ):
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            request = reflection_pb2.ServerReflectionRequest(**asked)
            await call.write(request)
            response = await call.read()
            assert response.original_request == request
            assert response.error_response.error_code == code
            await call.done_writing()
            assert await call.read() is grpc.aio.EOF
            assert await call.code() == grpc.StatusCode.OK

    kit.run(main())


def test_reflection_gives_a_file_and_before_it_what_it_needs(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with (
            rpc.talking(kit.Service(kit.hello)) as (_, serving),
            grpc.aio.insecure_channel(serving.address) as channel,
        ):
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            symbol = "headrace.v1.InferenceService"
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=symbol))
            files = (await call.read()).file_descriptor_response.file_descriptor_proto
            pool = descriptor_pool.DescriptorPool()
            for file in files:
                pool.AddSerializedFile(file)
            assert pool.FindServiceByName(symbol).methods_by_name["StreamInfer"].server_streaming
            call.cancel()

    kit.run(main())


def test_anybody_may_send_only_short_messages(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with (
            rpc.talking(kit.Service(kit.hello)) as (_, serving),
            grpc.aio.insecure_channel(serving.address) as channel,
        ):
            call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo()
            long = "x" * (KEYLESS_BYTES + 1)
            await call.write(reflection_pb2.ServerReflectionRequest(file_containing_symbol=long))
            assert (await rpc.refused(call)).code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    kit.run(main())


def test_health_of_a_service_that_is_not_there(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with (
            rpc.talking(kit.Service(kit.hello)) as (_, serving),
            grpc.aio.insecure_channel(serving.address) as channel,
        ):
            health = health_pb2_grpc.HealthStub(channel)
            asked = health_pb2.HealthCheckRequest(service="nobody")
            assert (await rpc.refused(health.Check(asked))).code() == grpc.StatusCode.NOT_FOUND
            watch = health.Watch(asked)
            unknown = health_pb2.HealthCheckResponse.SERVICE_UNKNOWN
            assert (await watch.read()).status == unknown
            watch.cancel()

    kit.run(main())


def test_a_watch_ends_with_its_server(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello)) as (_, serving):
            async with grpc.aio.insecure_channel(serving.address) as channel:
                watch = health_pb2_grpc.HealthStub(channel).Watch(health_pb2.HealthCheckRequest())
                await watch.read()
                serving.services.close()
                assert await watch.code() == grpc.StatusCode.UNAVAILABLE

    kit.run(main())


def test_a_method_that_is_not_there(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with (
            rpc.talking(kit.Service(kit.hello)) as (_, serving),
            grpc.aio.insecure_channel(serving.address) as channel,
        ):
            for path in ("/headrace.v1.InferenceService/Nothing", "/v1/models"):
                error = await rpc.refused(channel.unary_unary(path)(b""))
                assert error.code() == grpc.StatusCode.UNIMPLEMENTED
                assert error.details() == f"There is no method {path}."

    kit.run(main())


def test_who_calls_what_is_not_there_is_told_while_it_still_streams(kit: Any, rpc: Any) -> None:
    """As clients do that try a newer version of a service first."""

    async def asks() -> AsyncIterator[bytes]:
        await asyncio.Event().wait()
        yield b""

    async def main() -> None:
        async with (
            rpc.talking(kit.Service(kit.hello)) as (_, serving),
            grpc.aio.insecure_channel(serving.address) as channel,
        ):
            call = channel.stream_stream("/grpc.reflection.v9.ServerReflection/Info")(asks())
            assert await call.code() is grpc.StatusCode.UNIMPLEMENTED

    kit.run(main())


def test_the_http_port_speaks_grpc_too(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        routes = rpc.Serving(service).routes
        async with kit.serving(service, more=routes) as url:
            async with grpc.aio.insecure_channel(url.removeprefix("http://")) as channel:
                answer = await rpc.Client(channel).Infer(rpc.pb.InferRequest(prompt="Hi"))
                assert answer.text == "Hello wörld 😀\n"

    kit.run(main())


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip])
def test_messages_may_come_compressed(kit: Any, rpc: Any, compression: Any) -> None:
    async def main() -> None:
        service = kit.Service(kit.hello)
        async with rpc.talking(service) as (client, _):
            asked = rpc.pb.InferRequest(prompt="Hi " * 1000)
            await client.Infer(asked, compression=compression)
            assert service.generations[0].request.prompts == ("Hi " * 1000,)
            call = client.Converse(compression=compression)
            await call.write(rpc.pb.ConverseRequest(infer=asked))
            assert [event async for event in call][-1].finish.reason == "stop"
            assert service.generations[1].request.prompts == ("Hi " * 1000,)

    kit.run(main())


def test_a_compressed_message_cannot_grow_without_bound(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello), message_bytes=10_000) as (client, _):
            asked = rpc.pb.InferRequest(prompt="x" * 10_001)
            error = await rpc.refused(client.Infer(asked, compression=grpc.Compression.Gzip))
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED

    kit.run(main())


def test_a_unix_socket(kit: Any, rpc: Any, tmp_path: Path) -> None:
    async def main() -> None:
        path = str(tmp_path / "socket")
        serving = rpc.Serving(kit.Service(kit.hello), uds=path)
        await serving.start()
        async with grpc.aio.insecure_channel(f"unix:{path}") as channel:
            answer = await rpc.Client(channel).Infer(rpc.pb.InferRequest(prompt="Hi"))
            assert answer.text == "Hello wörld 😀\n"
        await serving.close()

    kit.run(main())


def test_tls(kit: Any, rpc: Any, tmp_path: Path) -> None:
    certificate = certified(tmp_path)

    async def main() -> None:
        serving = rpc.Serving(
            kit.Service(kit.hello), tls=ServerTls(Tls(certificate=str(certificate)))
        )
        await serving.start()
        trusted = grpc.ssl_channel_credentials(certificate.read_bytes())
        async with grpc.aio.secure_channel(serving.address, trusted) as channel:
            answer = await rpc.Client(channel).Infer(rpc.pb.InferRequest(prompt="Hi"))
            assert answer.text == "Hello wörld 😀\n"
        await serving.close()

    kit.run(main())


def certified(folder: Path) -> Path:
    """A certificate for 127.0.0.1, signed by itself, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]),
            critical=False,
        )
        .sign(key, hashes.SHA256())
    )
    path = folder / "both.pem"
    pem = serialization.Encoding.PEM
    plain = serialization.NoEncryption()
    path.write_bytes(
        made.public_bytes(pem) + key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain)
    )
    return path


def test_an_address_that_is_taken_is_named(kit: Any, rpc: Any) -> None:
    async def main() -> None:
        async with rpc.talking(kit.Service(kit.hello)) as (_, serving):
            host, _, port = serving.address.rpartition(":")
            other = rpc.Serving(kit.Service(kit.hello), host=host, port=int(port))
            with pytest.raises(OSError, match=serving.address):
                await other.start()

    kit.run(main())


def test_a_client_that_does_not_read_stops_its_reader_and_gets_everything_later(
    kit: Any, rpc: Any
) -> None:
    """What the log has more than fits on the way stays in the log."""
    text = "x" * 4000

    async def main() -> None:
        service = kit.Service(lambda generation: None)
        async with rpc.talking(service) as (client, _):
            start = rpc.pb.StreamInferRequest(infer=rpc.pb.InferRequest(prompt="Hi"))
            call = client.StreamInfer(start)
            generation = await service.generation(0)
            await generation.attached.wait()
            (subscription,) = generation.readers
            while not (subscription.lagging and subscription.seen < generation.last_seq - 100):
                generation.write(kit.token(generation.last_seq + 1, text))
                assert generation.last_seq * len(text) < 64 * 2**20, "there is no back-pressure"
                await asyncio.sleep(0)
            on_the_way = subscription.seen * len(text)
            assert on_the_way < 5_000_000 + HIGH_WATER_BYTES  # the client's window grows
            generation.write(kit.finish(generation.last_seq + 1))
            seqs = [event.seq async for event in call]
            assert seqs == list(range(1, generation.last_seq + 1))

    kit.run(main())
