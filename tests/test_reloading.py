"""Keys, tenants and limits change while the whole server runs, and no stream notices."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import pty
import signal
import socket
import ssl
import subprocess
import sys
import termios
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from headrace.domain.errors import HeadraceError
from headrace.settings import SettingsError
from tests.pki import Authority
from tests.whole import Whole

Run = Callable[..., Any]
HEADRACE = [sys.executable, "-m", "headrace"]
KEYS = 'api_key = ["sk-default"]'
OPS = '\n[[tenants]]\nname = "ops"\nkeys = ["sk-ops"]\nscopes = ["admin", "infer"]\n'
ALPHA = '\n[[tenants]]\nname = "alpha"\nkeys = ["sk-alpha"]\nweight = 2\n'
BOSS = {"authorization": "Bearer sk-ops"}


def keyed(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


def chat(text: str, **fields: Any) -> dict[str, Any]:
    return {"model": "echo", "messages": [{"role": "user", "content": text}]} | fields


def talking(app: Any, **headers: str) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=f"http://{app.front.address}", timeout=30, headers=headers)


async def status(client: httpx.AsyncClient, key: str) -> int:
    return (await client.get("/v1/models", headers=keyed(key))).status_code


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    while not await condition():  # noqa: ASYNC110
        await asyncio.sleep(0.02)


async def command(*words: str) -> tuple[str, str]:
    """What ``headrace`` says."""
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(*HEADRACE, *words, stdout=pipe, stderr=pipe)
    out, err = await process.communicate()
    assert process.returncode == 0, err
    return out.decode().strip(), err.decode()


def test_a_reload_takes_over_what_is_live_and_names_what_is_not(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running(KEYS, OPS + ALPHA) as app, talking(app, **BOSS) as client:
            assert await status(client, "sk-alpha") == 200
            changed = ALPHA.replace("sk-alpha", "sk-other").replace("2", "3")
            limits = "\n[limits]\nmax_queue = 7\ntotal_timeout_s = 60\n"
            whole.write('api_key = ["sk-new"]\nmax_connections = 9\n', OPS + changed + limits)
            answer = (await client.post("/admin/reload")).json()
            assert answer["need_restart"] == ["server.max_connections"]
            assert set(answer["applied"]) == {
                "server.api_key",
                "tenants[1].keys",
                "tenants[1].weight",
                "limits.max_queue",
                "limits.total_timeout_s",
            }
            statuses = [
                await status(client, f"sk-{key}") for key in ("alpha", "other", "default", "new")
            ]
            assert statuses == [401, 200, 401, 200]
            assert (await client.get("/admin/tenants/alpha")).json()["weight"] == 3
            assert app.flows[0].queue.limit == app.batch_queue.limit == 7
            assert app.service.limits.total_timeout_s == 60
            again = (await client.post("/admin/reload")).json()
            assert again == {"applied": [], "need_restart": ["server.max_connections"]}

    run(main())


@pytest.mark.parametrize(
    ("server", "more", "said"),
    [
        (KEYS, OPS + "\n[[tenants]]\nname = 'ops'\n", "tenants[1].name: ops comes twice"),
        (KEYS + "\nprot = 1", OPS, "server.prot: no such setting"),
        (
            KEYS,
            OPS + 'overflow = "wait"\n[limits]\nmax_queue = 0\n',
            "tenants[0].overflow: nobody can wait, since limits.max_queue is 0",
        ),
        ("port = 1", OPS, "is not TOML"),
        (
            'host = "0.0.0.0"\n' + KEYS,
            OPS.replace("keys", "key"),
            "tenants[0].key: no such setting",
        ),
    ],
)
def test_a_mistake_changes_nothing_and_is_named(
    run: Run, tmp_path: Path, server: str, more: str, said: str
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running(KEYS, OPS + ALPHA) as app, talking(app, **BOSS) as client:
            whole.write(server, more)
            answer = await client.post("/admin/reload")
            assert answer.status_code == 422
            assert said in answer.json()["error"]["message"]
            assert await status(client, "sk-alpha") == await status(client, "sk-default") == 200

    run(main())


def test_a_reload_never_opens_a_server_that_others_reach(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        open_to_all = 'host = "0.0.0.0"\n'
        async with whole.running(open_to_all, OPS) as app:
            url = f"http://127.0.0.1:{app.front.port}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                whole.write(open_to_all)
                refused = await client.post("/admin/reload", headers=BOSS)
                assert "lets other machines in" in refused.json()["error"]["message"]
                whole.write('host = "127.0.0.1"\n')  # which needs a restart
                refused = await client.post("/admin/reload", headers=BOSS)
                assert refused.status_code == 422
                made = await client.post("/admin/keys", json={}, headers=BOSS)
                whole.write(open_to_all)
                done = await client.post("/admin/reload", headers=BOSS)
                assert done.json()["applied"], "keys that were created are keys"
                assert await status(client, made.json()["key"]) == 200
                assert await status(client, "sk-ops") == 401
                assert (await client.get("/v1/models")).status_code == 401

    run(main())


def test_binding_for_others_without_any_key_is_refused_but_created_ones_count(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        with pytest.raises(SettingsError, match=r"^server\.host: 0\.0\.0\.0 lets other machines"):
            async with whole.running('host = "0.0.0.0"'):
                pass
        key, _ = await command("keys", "create", "--config", str(whole.file))
        async with whole.running('host = "0.0.0.0"') as app:
            url = f"http://127.0.0.1:{app.front.port}"
            async with httpx.AsyncClient(base_url=url, timeout=30) as client:
                assert await status(client, key) == 200
                assert (await client.get("/v1/models")).status_code == 401

    run(main())


def test_a_stream_goes_on_while_its_key_is_revoked_and_everything_changes(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running(KEYS, OPS) as app, talking(app, **BOSS) as client:
            made = (await client.post("/admin/keys", json={"tenant": "alpha"})).json()
            mine = keyed(made["key"])
            body = chat("slowly", stream=True)
            seen = []
            async with client.stream(
                "POST", "/v1/chat/completions", json=body, headers=mine
            ) as answer:
                lines = answer.aiter_lines()
                while "content" not in (line := await anext(lines)):
                    pass
                seen.append(line)
                await client.delete(f"/admin/keys/{made['id']}")
                assert await status(client, made["key"]) == 401
                whole.write('api_key = ["sk-new"]', OPS + ALPHA)
                await client.post("/admin/reload")
                await client.put("/admin/tenants/alpha", json={"weight": 0})
                seen += [line async for line in lines if line.startswith("data: ")]
            chunks = [json.loads(line[6:]) for line in seen if line != "data: [DONE]"]
            text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
            assert text == "a " * 100
            assert seen[-1] == "data: [DONE]"

    run(main())


OF_MODEL = "\n[models.limits]\nconcurrent = 50\n"
AT_MODEL = '[[tenants.model_limits]]\nmodel = "echo"\n'


def test_limits_of_a_model_and_of_a_tenant_at_it_change_and_whoever_is_in_counts(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        at_model = f"{ALPHA}{AT_MODEL}requests_per_minute = 100\n"
        async with (
            whole.running(KEYS, OF_MODEL + OPS + at_model) as app,
            talking(app, **BOSS) as client,
        ):

            async def ask(key: str) -> httpx.Response:
                path = "/v1/chat/completions"
                return await client.post(path, json=chat("x"), headers=keyed(key))

            body = chat("slowly", stream=True)
            async with client.stream("POST", "/v1/chat/completions", json=body) as answer:
                lines = answer.aiter_lines()
                seen = [await anext(lines)]
                whole.write(KEYS, OF_MODEL.replace("50", "1") + OPS + at_model.replace("100", "2"))
                done = (await client.post("/admin/reload")).json()
                assert done["need_restart"] == []
                assert set(done["applied"]) == {
                    "models[0].limits.concurrent",
                    "tenants[1].model_limits[0].requests_per_minute",
                }
                refused = await ask("sk-default")
                assert refused.status_code == 429, "the stream has the only place"
                assert "model echo" in refused.json()["error"]["message"]
                seen += [line async for line in lines]
            assert "data: [DONE]" in seen
            assert sum("content" in line for line in seen) >= 100
            assert (await ask("sk-default")).status_code == 200
            answers = [await ask("sk-alpha") for _ in range(3)]
            assert [one.status_code for one in answers] == [200, 200, 429]
            assert answers[0].headers["x-ratelimit-limit-requests"] == "2"
            assert "tenant alpha at model echo" in answers[2].json()["error"]["message"]

    run(main())


def test_admin_changes_limits_of_a_model_and_of_a_tenant_at_it_over_restarts(
    run: Run, tmp_path: Path
) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        more = f"{OF_MODEL}{OPS}{ALPHA}{AT_MODEL}requests_per_minute = 100\n"
        path = "/v1/chat/completions"

        async def left(client: httpx.AsyncClient, key: str) -> tuple[int, str | None]:
            answer = await client.post(path, json=chat("x"), headers=keyed(key))
            return answer.status_code, answer.headers.get("x-ratelimit-limit-requests")

        async with whole.running(KEYS, more) as app, talking(app, **BOSS) as client:
            shown = (await client.get("/admin/models/echo/limits")).json()
            assert shown == {"model": "echo", "concurrent": 50}
            assert await left(client, "sk-alpha") == (200, "100")
            streaming = client.stream("POST", path, json=chat("slowly", stream=True))
            async with streaming as answer:
                lines = answer.aiter_lines()
                seen = [await anext(lines)]
                of_model = {"concurrent": 1, "requests_per_minute": 500}
                await client.put("/admin/models/echo/limits", json=of_model)
                assert (await left(client, "sk-default"))[0] == 429, "the stream has the only place"
                seen += [line async for line in lines]
            assert "data: [DONE]" in seen
            limits = [{"model": "echo", "requests_per_minute": 7}]
            await client.put("/admin/tenants/alpha", json={"model_limits": limits})
            assert await left(client, "sk-alpha") == (200, "7")
        async with whole.running(KEYS, more) as app, talking(app, **BOSS) as client:
            assert await left(client, "sk-alpha") == (200, "7")
            assert await left(client, "sk-default") == (200, "500")
            await client.delete("/admin/tenants/alpha")
            assert await left(client, "sk-alpha") == (200, "100")
            await client.delete("/admin/models/echo/limits")
            assert await left(client, "sk-default") == (200, None)

    run(main())


def shown(port: int, name: str = "127.0.0.1") -> bytes:
    """The certificate of a server, as a client sees it that asks for this name; none is sent for an address."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    with (
        socket.create_connection(("127.0.0.1", port), 20) as plain,
        context.wrap_socket(plain, server_hostname=name) as secure,
    ):
        assert secure.selected_alpn_protocol() == "h2"
        return secure.getpeercert(binary_form=True) or b""


def ports(app: Any) -> tuple[int, int]:
    return app.front.port, int(app.grpc.address.rpartition(":")[2])


async def all_shown(app: Any) -> set[bytes]:
    """By both ports, to clients with and without a name for the server."""
    asked = [(port, name) for port in ports(app) for name in ("127.0.0.1", "headrace.test")]
    return {await asyncio.to_thread(shown, *one) for one in asked}


def test_a_renewed_certificate_is_for_new_connections_and_streams_stay(
    run: Run, tmp_path: Path
) -> None:
    authority = Authority(tmp_path / "pki")
    old, new = authority.server().read_bytes(), authority.server().read_bytes()
    file = tmp_path / "server.pem"
    file.write_bytes(old)

    async def main() -> None:
        whole = Whole(tmp_path)
        lines = f'{KEYS}\ngrpc_port = 0\nssl_certfile = "{file}"'
        trusting = ssl.create_default_context(cafile=str(authority.ca))
        async with whole.running(lines, OPS) as app:
            url = f"https://{app.front.address}"
            async with httpx.AsyncClient(base_url=url, verify=trusting, headers=BOSS) as client:
                path, body = "/v1/chat/completions", chat("slowly", stream=True)
                async with client.stream("POST", path, json=body) as answer:
                    answered = answer.aiter_text()
                    said = await anext(answered)
                    file.write_bytes(new)
                    assert await all_shown(app) == {ssl.PEM_cert_to_DER_cert(first_of(old))}
                    done = (await client.post("/admin/reload")).json()
                    assert done == {"applied": ["server.ssl_certfile"], "need_restart": []}
                    assert await all_shown(app) == {ssl.PEM_cert_to_DER_cert(first_of(new))}
                    said += "".join([text async for text in answered])
                assert said.count('"content":"a "') == 100
                assert "[DONE]" in said
                again = (await client.post("/admin/reload")).json()
                assert again["applied"] == []

    run(main())


def first_of(pem: bytes) -> str:
    end = "-----END CERTIFICATE-----\n"
    return pem.decode().partition(end)[0] + end


def mixed(authority: Authority) -> bytes:
    """A certificate with the key of another one."""
    one, other = authority.server().read_text(), authority.server().read_text()
    return (first_of(one.encode()) + other.removeprefix(first_of(other.encode()))).encode()


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (mixed, "the key is not that of the certificate"),
        (lambda authority: b"nothing", "a certificate or its key is missing or broken"),
        (lambda authority: authority.encrypted(), "its key is encrypted"),
    ],
)
def test_a_broken_certificate_leaves_the_old_one_and_says_so(
    run: Run, tmp_path: Path, broken: Callable[[Authority], bytes], why: str
) -> None:
    authority = Authority(tmp_path / "pki")
    file = tmp_path / "server.pem"
    file.write_bytes(authority.server().read_bytes())

    async def main() -> None:
        whole = Whole(tmp_path)
        lines = f'{KEYS}\ngrpc_port = 0\nssl_certfile = "{file}"'
        async with whole.running(lines, OPS) as app:
            before = await all_shown(app)
            file.write_bytes(broken(authority))
            whole.write(lines, OPS + "\n[limits]\nmax_queue = 7\n")
            with pytest.raises(HeadraceError) as refused:
                await app.reloading.reload("somebody")
            assert refused.value.message.startswith("Nothing has changed, since the server cannot")
            assert f"{file} for TLS" in refused.value.message
            assert why in refused.value.message
            assert await all_shown(app) == before
            assert app.flows[0].queue.limit != 7

    run(main())


def test_a_key_of_the_command_line_works_soon_and_stops_soon(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        config = ("--config", str(whole.file))
        async with whole.running() as app, talking(app) as client:
            assert (await client.get("/v1/models")).status_code == 200
            words = ("--tenant", "alpha", "--expires", "30d", "--name", "their app")
            key, noted = await command("keys", "create", *words, *config)
            assert "The tenant alpha is new" in noted
            assert "It is the first" in noted
            assert key not in noted

            async def keyless_refused() -> bool:
                return (await client.get("/v1/models")).status_code == 401

            await until(keyless_refused)
            assert await status(client, key) == 200
            listed, _ = await command("keys", "list", *config)
            assert f"{key[3:15]}  tenant=alpha  scope=infer" in listed
            assert key[-43:] not in listed
            await command("keys", "revoke", key[3:15], *config)

            async def refused() -> bool:
                return await status(client, key) == 401

            await until(refused)
            assert "(good for nothing)" in (await command("keys", "list", *config))[0]

    run(main())


def test_sighup_reads_the_settings_again(run: Run, tmp_path: Path) -> None:
    async def main() -> None:
        whole = Whole(tmp_path)
        async with whole.running(KEYS) as app, talking(app) as client:
            whole.write("api_key = 7")
            os.kill(os.getpid(), signal.SIGHUP)  # a mistake is logged
            whole.write('api_key = "sk-new"')
            os.kill(os.getpid(), signal.SIGHUP)

            async def new() -> bool:
                return await status(client, "sk-new") == 200

            await until(new)
            assert await status(client, "sk-default") == 401

    run(main())


def test_a_server_whose_terminal_is_closed_stops(tmp_path: Path) -> None:
    whole = Whole(tmp_path)
    whole.write()
    ours, theirs = pty.openpty()

    def take_terminal() -> None:
        signal.signal(signal.SIGHUP, signal.SIG_DFL)
        fcntl.ioctl(0, termios.TIOCSCTTY, 0)

    server = subprocess.Popen(
        [*HEADRACE, "serve", "--config", str(whole.file)],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=take_terminal,
    )
    os.close(theirs)
    said = b""
    while b"listens on" not in said:
        said += os.read(ours, 1024)
    os.close(ours)
    assert server.wait(30) == 0


def test_a_server_without_a_terminal_reads_its_settings_again(tmp_path: Path) -> None:
    whole = Whole(tmp_path)
    whole.write()
    server = subprocess.Popen(
        [*HEADRACE, "serve", "--config", str(whole.file)],
        stdin=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),
    )
    with server:
        assert server.stderr
        until_line(server.stderr, "echo serves")
        whole.write(more="\n[limits]\nmax_queue = 3\n")
        server.send_signal(signal.SIGHUP)
        line = until_line(server.stderr, "settings were read again")
        assert "changed: limits.max_queue; need a restart: nothing" in line
        server.terminate()
        server.stderr.read()
    assert server.returncode == 0


def until_line(lines: Any, what: str) -> str:
    return next(line for line in lines if what in line)
