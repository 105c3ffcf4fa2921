"""A client's certificate names its tenant: over HTTP/1.1, HTTP/2, gRPC, gRPC-Web and Connect alike."""

from __future__ import annotations

import asyncio
import datetime
import socket
import ssl
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc
import httpx
import pytest

from headrace.protocols.grpc import headrace_pb2 as pb
from tests.pki import Authority
from tests.whole import Whole

TENANTS = """
[[tenants]]
name = "alpha"
certificates = ["spiffe://example.org/ns/a/sa/x"]
keys = ["sk-alpha"]

[[tenants]]
name = "beta"
certificates = ["spiffe://example.org/ns/b/*"]

[[tenants]]
name = "scraper"
certificates = ["spiffe://example.org/monitoring"]
scopes = ["metrics"]
"""
ALPHA = "spiffe://example.org/ns/a/sa/x"
BETA = "spiffe://example.org/ns/b/sa/y"
SCRAPER = "spiffe://example.org/monitoring"
INFER = "/headrace.v1.InferenceService/Infer"
ASKED = pb.InferRequest(prompt="Hi").SerializeToString()


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("pki"))


def server(authority: Authority, auth: str = "required", more: str = "") -> str:
    return (
        f'ssl_certfile = "{authority.server()}"\nssl_client_ca = "{authority.ca}"\n'
        f'ssl_client_auth = "{auth}"\n{more}'
    )


def client(app: Any, authority: Authority, file: Path | None, **options: Any) -> httpx.AsyncClient:
    context = ssl.create_default_context(cafile=str(authority.ca))
    if file is not None:
        context.load_cert_chain(file)
    return httpx.AsyncClient(
        base_url=f"https://{app.front.address}", verify=context, timeout=30, **options
    )


async def begun(asking: httpx.AsyncClient, **options: Any) -> str:
    """The generation that this client begins, or why it may not."""
    body = {"model": "echo", "messages": [{"role": "user", "content": "Hi."}]}
    answer = await asking.post("/v1/chat/completions", json=body, **options)
    if answer.status_code != 200:
        return f"{answer.status_code} {answer.json()['error']['code']}"
    return answer.headers["x-generation-id"]


async def owner(app: Any, generation: str) -> tuple[str, str]:
    if not generation.startswith("gen_"):
        return generation, ""
    log = await app.hub.find(generation)
    caller = log.header.caller
    return caller.tenant, caller.key_id


def test_a_spiffe_id_names_the_tenant_and_heads_that_are_alike_share_nothing(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(server(authority), TENANTS) as app:
            for uri, tenant in ((ALPHA, "alpha"), (BETA, "beta"), (ALPHA, "alpha")):
                async with client(app, authority, authority.client(uri)) as asking:
                    for _ in range(2):
                        assert await owner(app, await begun(asking)) == (tenant, uri)

    run(main())


def test_everything_else_is_401_or_403(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(server(authority), TENANTS) as app:
            strangers = {
                ("spiffe://example.org/ns/c",): "401 invalid_api_key",
                (ALPHA, BETA): "401 invalid_api_key",
                (): "401 invalid_api_key",
                (SCRAPER,): "403 forbidden",
            }
            for uris, refusal in strangers.items():
                async with client(app, authority, authority.client(*uris)) as asking:
                    assert await begun(asking) == refusal
                    key = {"authorization": "Bearer sk-alpha"}
                    generation = await begun(asking, headers=key)
                    assert await owner(app, generation) == ("alpha", "tenants.alpha.keys[0]")
            async with client(app, authority, authority.client(SCRAPER)) as scraping:
                assert (await scraping.get("/metrics")).status_code == 200
            async with client(app, authority, authority.client(ALPHA)) as asking:
                wrong = {"authorization": "Bearer sk-wrong"}
                assert await begun(asking, headers=wrong) == "401 invalid_api_key"

    run(main())


@pytest.mark.parametrize("bad", ["none", "foreign", "expired"])
def test_a_certificate_that_is_required_and_not_good_ends_the_handshake(
    run: Callable[..., Any], authority: Authority, tmp_path: Path, bad: str
) -> None:
    file = {
        "none": None,
        "foreign": Authority(tmp_path / "other").client(ALPHA),
        "expired": authority.client(ALPHA, life=-datetime.timedelta(hours=1)),
    }[bad]

    async def main() -> None:
        async with Whole(tmp_path).running(server(authority), TENANTS) as app:
            with pytest.raises(httpx.TransportError):
                async with client(app, authority, file) as asking:
                    await asking.get("/livez")

    run(main())


def test_where_it_is_optional_a_key_does_as_well_and_probes_need_neither(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(server(authority, "optional"), TENANTS) as app:
            async with client(app, authority, None) as asking:
                assert (await asking.get("/livez")).status_code == 200
                assert await begun(asking) == "401 invalid_api_key"
                key = {"authorization": "Bearer sk-alpha"}
                assert (await owner(app, await begun(asking, headers=key)))[0] == "alpha"
            async with client(app, authority, authority.client(BETA)) as asking:
                assert await owner(app, await begun(asking)) == ("beta", BETA)

    run(main())


def test_a_reload_believes_another_authority_from_then_on(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other")
    believed = tmp_path / "believed.pem"
    believed.write_bytes(authority.ca.read_bytes())
    lines = f'ssl_certfile = "{authority.server()}"\nssl_client_ca = "{believed}"\n'

    async def main() -> None:
        async with Whole(tmp_path).running(lines, TENANTS) as app:
            files = authority.client(ALPHA), other.client(ALPHA)
            async with client(app, authority, files[0]) as asking:
                assert await owner(app, await begun(asking)) == ("alpha", ALPHA)
                believed.write_bytes(other.ca.read_bytes())
                done = await app.reloading.reload("somebody")
                assert done.applied == ("server.ssl_client_ca",)
                assert await owner(app, await begun(asking)) == ("alpha", ALPHA), "it is open"
            with pytest.raises(httpx.TransportError):
                async with client(app, authority, files[0]) as asking:
                    await asking.get("/livez")
            async with client(app, authority, files[1]) as asking:
                assert await owner(app, await begun(asking)) == ("alpha", ALPHA)
                assert done.waiting == ()
            with pytest.raises(httpx.TransportError):
                async with client(app, authority, None) as asking:
                    await asking.get("/livez")

    run(main())


def test_http_2_has_it_too(run: Callable[..., Any], authority: Authority, tmp_path: Path) -> None:
    async def main() -> None:
        async with Whole(tmp_path).running(server(authority), TENANTS) as app:
            for uri, tenant in ((ALPHA, "alpha"), (BETA, "beta")):
                async with client(app, authority, authority.client(uri), http2=True) as asking:
                    assert (await asking.get("/v1/models")).http_version == "HTTP/2"
                    assert await owner(app, await begun(asking)) == (tenant, uri)
            async with client(app, authority, authority.client(SCRAPER), http2=True) as asking:
                assert await begun(asking) == "403 forbidden"

    run(main())


def test_grpc_and_its_web_wires_have_it_too(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running(server(authority, more="grpc_port = 0"), TENANTS) as app:
            for uri, tenant in ((ALPHA, "alpha"), (SCRAPER, "403"), ("spiffe://no.test/x", "401")):
                file = authority.client(uri)
                said = [await over_grpc(app, authority, file)]
                async with client(app, authority, file) as asking:
                    for kind in ("application/grpc-web+proto", "application/proto"):
                        said.append(await over_web(app, asking, kind))
                assert set(said) == {tenant}, uri

    run(main())


def shown(authority: Authority, file: Path) -> grpc.ChannelCredentials:
    pem = file.read_bytes()
    return grpc.ssl_channel_credentials(authority.ca.read_bytes(), pem, pem)


async def over_grpc(app: Any, authority: Authority, file: Path) -> str:
    credentials = shown(authority, file)
    async with grpc.aio.secure_channel(app.grpc.address, credentials) as channel:
        call = channel.unary_unary(INFER)(ASKED)
        try:
            await call
        except grpc.aio.AioRpcError as error:
            refused = {
                grpc.StatusCode.UNAUTHENTICATED: "401",
                grpc.StatusCode.PERMISSION_DENIED: "403",
            }
            return refused[error.code()]
        metadata = dict(await call.initial_metadata())
        return (await owner(app, str(metadata["x-generation-id"])))[0]


async def over_web(app: Any, asking: httpx.AsyncClient, kind: str) -> str:
    body = ASKED if kind == "application/proto" else b"\0" + len(ASKED).to_bytes(4, "big") + ASKED
    answer = await asking.post(INFER, content=body, headers={"content-type": kind})
    if "x-generation-id" in answer.headers:
        return (await owner(app, answer.headers["x-generation-id"]))[0]
    if answer.status_code != 200:
        return str(answer.status_code)
    numbers = {b"grpc-status: 16": "401", b"grpc-status: 7": "403"}
    headers = f"grpc-status: {answer.headers.get('grpc-status', '')}".encode()
    return next(said for line, said in numbers.items() if line in answer.content + headers)


def test_where_it_is_optional_the_grpc_port_takes_a_key_as_well(
    run: Callable[..., Any], authority: Authority, tmp_path: Path
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        lines = server(authority, "optional", "grpc_port = 0")
        async with whole.running(lines, TENANTS) as app:
            assert await over_grpc(app, authority, authority.client(ALPHA)) == "alpha"
            trusted = grpc.ssl_channel_credentials(authority.ca.read_bytes())
            async with grpc.aio.secure_channel(app.grpc.address, trusted) as channel:
                key = (("authorization", "Bearer sk-alpha"),)
                assert await channel.unary_unary(INFER)(ASKED, metadata=key)

    run(main())


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_no_connection_is_resumed_from_one_that_had_a_certificate(
    run: Callable[..., Any], authority: Authority, tmp_path: Path, version: ssl.TLSVersion
) -> None:
    context = ssl.create_default_context(cafile=str(authority.ca))
    context.maximum_version = version
    context.load_cert_chain(authority.client(ALPHA))

    def ask(port: int, session: ssl.SSLSession | None) -> tuple[ssl.SSLSession | None, bool | None]:
        with (
            socket.create_connection(("127.0.0.1", port), 20) as plain,
            context.wrap_socket(plain, server_hostname="127.0.0.1", session=session) as secure,
        ):
            secure.sendall(b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n")
            assert secure.recv(4096).startswith(b"HTTP/1.1 200")
            return secure.session, secure.session_reused

    async def main() -> None:
        async with Whole(tmp_path).running(server(authority), TENANTS) as app:
            session, _ = await asyncio.to_thread(ask, app.front.port, None)
            _, reused = await asyncio.to_thread(ask, app.front.port, session)
            assert not reused

    run(main())
