from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import ssl

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from headrace.domain.errors import Code
from headrace.engines.limits import Limits
from headrace.engines.origin import Origin, with_body
from headrace.engines.pool import Pool

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok"
QUICK = Limits(connect_s=0.2, first_byte_s=0.2, between_bytes_s=0.2, idle_s=0.2)


async def read_request(reader):
    head = await reader.readuntil(b"\r\n\r\n")
    length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
    return head, await reader.readexactly(length)


def answering(*answers, close=False):
    """A handler that gives one answer a request, the last one for ever."""

    async def handler(reader, writer):
        left = list(answers)
        while True:
            await read_request(reader)
            for piece in left[0] if isinstance(left[0], list) else [left[0]]:
                writer.write(piece)
                await writer.drain()
            if close:
                return
            left = left[1:] or left

    return handler


@contextlib.asynccontextmanager
async def pool_of(server, limits=None, tls=None):
    pool = Pool(Origin.parse(server.url), limits, tls)
    try:
        yield pool
    finally:
        await pool.close()


def ask(pool, sink, body=b"{}"):
    return pool.send(with_body(pool.origin.head("POST", "/x"), body), sink)


def test_a_second_request_uses_the_connection_of_the_first(run, upstream):
    async def main():
        async with upstream(answering(OK)) as server, pool_of(server) as pool:
            assert (await pool.fetch("GET", "/a")).body == b"ok"
            assert (await pool.fetch("POST", "/b", b"{}")).body == b"ok"
            assert server.connections == 1
            assert pool.idle_connections == 1

    run(main())


def test_the_request_arrives_as_it_was_sent(run, upstream):
    async def main():
        got = []

        async def handler(reader, writer):
            got.append(await read_request(reader))
            writer.write(OK)

        async with upstream(handler) as server:
            server.url += "/base/"
            async with pool_of(server) as pool:
                await pool.fetch("POST", "/v1/x", b'{"a":1}')
        head, body = got[0]
        assert head.startswith(b"POST /base/v1/x HTTP/1.1\r\nhost: 127.0.0.1:")
        assert body == b'{"a":1}'

    run(main())


ANSWERS = {
    "content-length": OK,
    "chunked": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\no\r\n1\r\nk\r\n0\r\n\r\n",
    "chunk extensions and trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntrailer: x\r\n\r\n"
        b'2;a=b;c="d"\r\nok\r\n0;z\r\nx: y\r\n\r\n'
    ),
    "after 100 and 103": (
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nlink: </a>\r\n\r\n" + OK
    ),
}


@pytest.mark.parametrize("status", [200, 503])
@pytest.mark.parametrize("answer", ANSWERS.values(), ids=ANSWERS.keys())
def test_every_framing_is_read_and_keeps_the_connection(run, upstream, answer, status):
    async def main():
        head = b"HTTP/1.1 %d OK\r\nretry-after: 7\r\n" % status
        said = answer.replace(b"HTTP/1.1 200 OK\r\n", head)
        async with upstream(answering(said)) as server, pool_of(server) as pool:
            for _ in range(2):
                response = await pool.fetch("GET", "/")
                assert (response.status, response.body) == (status, b"ok")
                # Those of a refusal, without its trailers and what came before; nobody needs others.
                assert response.headers.get(b"retry-after") == (b"7" if status == 503 else None)
                assert response.headers.keys().isdisjoint((b"x", b"link"))
            assert server.connections == 1

    run(main())


@given(places=st.lists(st.integers(1, 200), max_size=6), answer=st.sampled_from([*ANSWERS]))
@settings(
    max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
def test_an_answer_may_be_cut_anywhere(run, upstream, places, answer):
    whole = ANSWERS[answer]
    at = sorted(place % len(whole) for place in places)
    pieces = [whole[a:b] for a, b in zip([0, *at], [*at, len(whole)], strict=True)]

    async def main():
        async with upstream(answering(pieces)) as server, pool_of(server) as pool:
            assert (await pool.fetch("GET", "/")).body == b"ok"

    run(main())


@pytest.mark.parametrize("status", [204, 304])
def test_a_status_without_body_ends_at_its_head(run, upstream, status):
    async def main():
        answer = b"HTTP/1.1 %d X\r\n\r\n" % status
        async with upstream(answering(answer, OK)) as server, pool_of(server) as pool:
            assert (await pool.fetch("GET", "/")).status == status
            assert (await pool.fetch("GET", "/")).body == b"ok"
            assert server.connections == 1

    run(main())


@pytest.mark.parametrize("pieces", [[b"until the end"], [b"until", b" the end"], []])
@pytest.mark.parametrize("head", [b"", b"connection: close\r\n"])
def test_an_answer_without_a_length_ends_with_its_connection(run, upstream, head, pieces):
    async def main():
        async def handler(reader, writer):
            await read_request(reader)
            for piece in (b"HTTP/1.1 200 OK\r\n" + head + b"\r\n", *pieces):
                writer.write(piece)
                await asyncio.sleep(0.005)  # a read of its own

        async with upstream(handler) as server, pool_of(server) as pool:
            assert (await pool.fetch("GET", "/")).body == b"".join(pieces)
            assert pool.idle_connections == 0

    run(main())


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
        OK + b"and more",
        OK + OK,
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\nx: y\r\n",
        OK + b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nmore",
        OK + b"HTTP/1.1 100 Continue\r\n\r\n",
    ],
    ids=[
        *["close", "http/1.0", "garbage after it", "a second answer", "a second head"],
        *["half a second answer", "a second answer's 100"],
    ],
)
def test_a_connection_is_not_used_again_when_it_must_not_be(run, upstream, answer):
    async def main():
        async with upstream(answering(answer)) as server, pool_of(server) as pool:
            for _ in range(2):
                assert (await pool.fetch("GET", "/")).body == b"ok"
            assert server.connections == 2

    run(main())


def test_head_body_and_end_are_told_in_order_with_one_body_a_read(run, upstream, heard):
    async def main():
        chunks = b"".join(b"5\r\nevent\r\n" for _ in range(9))
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + chunks + b"0\r\n\r\n"
        async with upstream(answering(answer)) as server, pool_of(server) as pool:
            sink = heard()
            ask(pool, sink)
            assert await sink.ended is None
            assert sink.calls == ["head", "body", "end"]
            assert sink.text == b"event" * 9

    run(main())


def test_a_stale_connection_is_replaced_once_without_the_caller_knowing(run, upstream):
    async def main():
        async def handler(reader, writer):
            await read_request(reader)
            writer.write(OK)
            if server.connections == 1:
                await read_request(reader)  # and closes without a byte

        async with upstream(handler) as server, pool_of(server) as pool:
            await pool.fetch("GET", "/")
            assert (await pool.fetch("POST", "/", b"again")).body == b"ok"
            assert server.connections == 2

    run(main())


def test_a_request_is_not_repeated_twice_nor_on_a_new_connection(run, upstream, heard):
    async def main():
        async def handler(reader, writer):
            await read_request(reader)

        async with upstream(handler) as server, pool_of(server) as pool:
            sink = heard()
            ask(pool, sink)
            error = await sink.ended
            assert error.code is Code.ENGINE_FAILED
            assert "without an answer" in error.message
            assert server.connections == 1

    run(main())


BROKEN = {
    "mid length": (b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok", "middle"),
    "mid length, in capitals": (b"HTTP/1.1 200 OK\r\nCONTENT-LENGTH: 20\r\n\r\nok", "middle"),
    "mid chunk": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n9\r\nok", "middle"),
    "no last chunk": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n2\r\nok\r\n",
        "middle",
    ),
    "mid head": (b"HTTP/1.1 200 OK\r\ncontent-le", "middle"),
    "no http": (b"SSH-2.0-OpenSSH_9.2\r\n", "did not speak"),
    "bad chunk size": (b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n-2\r\n", "not speak"),
    "two lengths": (
        b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\nok",
        "did not speak",
    ),
    "switching": (
        b"HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\nconnection: upgrade\r\n\r\n",
        "did not speak",
    ),
    "head without end": (b"HTTP/1.1 200 OK\r\nx: " + b"x" * 100_000, "head that does not end"),
    "endless trailers": (
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n" + b"a: b\r\n" * 50_000,
        "head that does not end",
    ),
}


@pytest.mark.parametrize(("answer", "words"), BROKEN.values(), ids=BROKEN.keys())
def test_a_broken_answer_fails_once_and_may_be_tried_elsewhere(run, upstream, heard, answer, words):
    async def main():
        async with (
            upstream(answering(answer, close=True)) as server,
            pool_of(server) as pool,
        ):
            sink = heard()
            ask(pool, sink)
            error = await sink.ended
            assert error.code is Code.ENGINE_FAILED
            assert error.meaning.retryable
            assert words in error.message
            assert sink.calls.count("failed") == 1

    run(main())


def test_a_port_nobody_listens_on_is_unavailable(run, upstream, heard):
    async def main():
        async with upstream(answering(OK)) as server:
            pass
        async with pool_of(server) as pool:
            sink = heard()
            ask(pool, sink)
            assert sink.calls == []
            error = await sink.ended
            assert error.code is Code.ENGINE_UNAVAILABLE
            assert server.url in error.message
            assert pool.open_connections == 0

    run(main())


def silent_after(answer):
    async def handler(reader, writer):
        await read_request(reader)
        writer.write(answer)
        await reader.readexactly(1)

    return handler


@pytest.mark.parametrize(
    ("handler", "where"),
    [
        (silent_after(b""), "before"),
        (silent_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\n"), "before"),
        (silent_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"), "in the middle of"),
    ],
)
def test_silence_over_the_limit_ends_the_call_and_its_connection(
    run, upstream, heard, handler, where
):
    async def main():
        async with upstream(handler) as server, pool_of(server, QUICK) as pool:
            sink = heard()
            ask(pool, sink)
            error = await sink.ended
            assert error.code is Code.ENGINE_TIMEOUT
            assert f"too long {where} its answer" in error.message
            assert await server.gone.get() == 1
            assert pool.open_connections == 0

    run(main())


def test_no_limit_counts_while_the_upstream_is_made_to_stand(run, upstream, heard):
    handler = silent_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")

    async def main():
        async with (
            upstream(handler) as server,
            pool_of(server, QUICK) as pool,
            pool_of(server, QUICK) as clock,
        ):
            sink = heard()
            ask(pool, sink)
            pool.stands(True)
            for _ in range(3):
                other = heard()
                ask(clock, other)
                await other.ended
            assert not sink.ended.done()
            pool.stands(False)
            assert (await sink.ended).code is Code.ENGINE_TIMEOUT

    run(main())


def test_every_byte_of_a_slow_answer_renews_the_limit(run, upstream, heard):
    limits = Limits(first_byte_s=0.1, between_bytes_s=0.1)

    async def main():
        async def handler(reader, writer):
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\n")
            for _ in range(20):
                await asyncio.sleep(0.03)
                writer.write(b"x")

        async with upstream(handler) as server, pool_of(server, limits) as pool:
            sink = heard()
            ask(pool, sink)
            assert await sink.ended is None

    run(main())


def test_an_upstream_that_does_not_accept_is_given_up(run, heard):
    async def main():
        import socket

        with socket.socket() as listener, contextlib.ExitStack() as stack:
            listener.bind(("127.0.0.1", 0))
            listener.listen(0)
            for _ in range(4):  # fill the backlog
                filler = stack.enter_context(socket.socket())
                filler.setblocking(False)
                filler.connect_ex(listener.getsockname())
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            pool = Pool(Origin.parse(url), QUICK)
            sink = heard()
            ask(pool, sink)
            error = await sink.ended
            assert error.code is Code.ENGINE_TIMEOUT
            assert "accept a connection" in error.message
            await pool.close()

    run(main())


def test_idle_connections_are_closed_after_their_limit(run, upstream):
    async def main():
        async with upstream(answering(OK)) as server, pool_of(server, QUICK) as pool:
            await pool.fetch("GET", "/")
            assert pool.idle_connections == 1
            assert await server.gone.get() == 1
            assert pool.open_connections == 0

    run(main())


def test_cancel_closes_the_connection_at_once_and_tells_nothing_more(run, upstream, heard):
    async def main():
        handler = silent_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        async with upstream(handler) as server, pool_of(server) as pool:
            sink = heard()
            call = ask(pool, sink)
            await sink.first.wait()
            call.cancel()
            call.cancel()
            assert await server.gone.get() == 1
            assert sink.calls == ["head", "body"]
            assert pool.open_connections == 0

    run(main())


def test_a_call_cancelled_while_connecting_leaves_a_usable_connection(run, upstream, heard):
    async def main():
        async with upstream(answering(OK)) as server, pool_of(server) as pool:
            sink = heard()
            ask(pool, sink).cancel()
            assert (await pool.fetch("GET", "/")).body == b"ok"
            assert (await pool.fetch("GET", "/")).body == b"ok"
            assert server.connections == pool.idle_connections == 2
            assert sink.calls == []

    run(main())


def test_calls_over_the_bound_wait_in_order_and_those_over_the_line_are_refused(
    run, upstream, heard
):
    limits = Limits(max_connections=1, max_waiting=2)

    async def main():
        async def handler(reader, writer):
            while True:
                _, body = await read_request(reader)
                writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%b" % (len(body), body))

        async with upstream(handler) as server, pool_of(server, limits) as pool:
            sinks = [heard() for _ in range(5)]
            calls = [ask(pool, sink, b"%d" % i) for i, sink in enumerate(sinks[:3])]
            ask(pool, sinks[3])
            calls[1].cancel()
            ask(pool, sinks[4], b"4")
            errors = [await sinks[i].ended for i in (0, 2, 3, 4)]
            assert [error and error.code for error in errors] == [
                *[None, None, Code.ENGINE_UNAVAILABLE, None]
            ]
            assert [sink.text for sink in sinks] == [b"0", b"", b"2", b"", b"4"]
            assert server.connections == 1

    run(main())


def test_close_fails_everything_under_way_once(run, upstream, heard):
    limits = Limits(max_connections=1)

    async def main():
        handler = silent_after(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        async with upstream(handler) as server, pool_of(server, limits) as pool:
            running, waiting, late = heard(), heard(), heard()
            ask(pool, running)
            ask(pool, waiting)
            await running.first.wait()
            await pool.close()
            ask(pool, late)
            for sink in (running, waiting, late):
                assert (await sink.ended).code is Code.ENGINE_UNAVAILABLE
            await pool.close()

    run(main())


def test_a_collected_answer_over_its_bound_is_an_error(run, upstream):
    async def main():
        answer = b"HTTP/1.1 200 OK\r\n\r\n" + b"x" * 1000
        async with upstream(answering(answer)) as server, pool_of(server) as pool:
            with pytest.raises(Exception, match="larger than 999 bytes"):
                await pool.fetch("GET", "/", max_bytes=999)

    run(main())


def certificate(tmp_path):
    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(1))
        .not_valid_after(now + datetime.timedelta(1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .sign(key, hashes.SHA256())
    )
    path = tmp_path / "cert.pem"
    path.write_bytes(
        made.public_bytes(serialization.Encoding.PEM)
        + key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return str(path)


def test_https_is_verified(run, upstream, heard, tmp_path):
    path = certificate(tmp_path)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(path)

    async def main():
        async with upstream(answering(OK), ssl=server_side) as server:
            async with pool_of(server, tls=ssl.create_default_context(cafile=path)) as trusting:
                assert (await trusting.fetch("GET", "/")).body == b"ok"
            async with pool_of(server) as doubting:
                sink = heard()
                ask(doubting, sink)
                error = await sink.ended
                assert error.code is Code.ENGINE_UNAVAILABLE
                assert "certificate" in error.message.lower()

    run(main())


@pytest.mark.parametrize(
    "url", ["ftp://x", "localhost:8000", "http://", "http://u:p@h", "http://h/?a=1"]
)
def test_a_url_that_is_no_base_url_is_refused(url):
    with pytest.raises(ValueError, match=r"URL|user"):
        Origin.parse(url)


def test_a_header_cannot_smuggle_another_one():
    with pytest.raises(ValueError, match="line break"):
        Origin.parse("http://h").head("GET", "/", [("authorization", "x\r\nhost: y")])


@pytest.mark.parametrize(
    ("url", "host"),
    [
        ("http://h", "h"),
        ("http://h:80", "h"),
        ("https://h:80/v1", "h:80"),
        ("http://[::1]:81", "[::1]:81"),
    ],
)
def test_the_host_header_names_the_port_where_it_is_not_the_default(url, host):
    assert f"\r\nhost: {host}\r\n".encode() in Origin.parse(url).head("GET", "/")
