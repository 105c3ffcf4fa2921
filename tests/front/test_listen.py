from __future__ import annotations

import asyncio
import contextlib
import datetime
import ipaddress
import os
import socket
import ssl
import threading

import h2.connection
import h2.events
import pytest
import uvloop
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from headrace.front.listen import AddressTaken, FrontOptions, listen
from headrace.front.tls import ServerTls, Tls

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory):
    """A PEM file: a key and a certificate for 127.0.0.1, signed by itself."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "headrace test")])
    now = datetime.datetime.now(datetime.UTC)
    signed = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName(
                [
                    x509.IPAddress(ipaddress.ip_address("127.0.0.1")),
                    x509.UniformResourceIdentifier("https://headrace.test/client"),
                ]
            ),
            False,
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    path = tmp_path_factory.mktemp("tls") / "server.pem"
    pem, no_password = serialization.Encoding.PEM, serialization.NoEncryption()
    path.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, no_password)
        + signed.public_bytes(pem)
    )
    return str(path)


def trusting(certificate, *protocols):
    context = ssl.create_default_context(cafile=certificate)
    if protocols:
        context.set_alpn_protocols(list(protocols))
    return context


def test_port_0_takes_a_free_one_and_says_which(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as one, wire.serve(wire.Recorder()) as two:
            assert one.port != two.port
            assert one.address == f"127.0.0.1:{one.port}"

    wire.run(main())


def test_a_taken_port_is_an_error_that_names_it(wire):
    async def main():
        async with wire.serve(wire.Recorder()) as front:
            with pytest.raises(AddressTaken, match=f"127.0.0.1:{front.port} is taken"):
                await listen(wire.Recorder(), FrontOptions(port=front.port))

    wire.run(main())


class Overtaken(asyncio.SelectorEventLoop):
    """A loop on which somebody else listens just before a front does; it remembers its timers."""

    def __init__(self, rival: socket.socket) -> None:
        super().__init__()
        self.rival = rival
        self.timers: list[asyncio.TimerHandle] = []

    async def create_server(self, *args, **kwargs):
        self.rival.listen()
        return await super().create_server(*args, **kwargs)

    def call_later(self, delay, callback, *args, context=None):
        timer = super().call_later(delay, callback, *args, context=context)
        self.timers.append(timer)
        return timer


def test_a_front_that_cannot_listen_after_all_leaves_nothing_behind(wire):
    with socket.socket() as rival:
        rival.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        rival.bind(("127.0.0.1", 0))
        port = rival.getsockname()[1]
        loop = Overtaken(rival)
        with asyncio.Runner(loop_factory=lambda: loop) as runner:
            before = os.listdir("/proc/self/fd")
            with pytest.raises(AddressTaken, match=f"127.0.0.1:{port} is taken"):
                runner.run(listen(wire.Recorder(), FrontOptions(port=port)))
            assert loop.timers
            assert all(timer.cancelled() for timer in loop.timers)
            assert len(os.listdir("/proc/self/fd")) == len(before)


def test_an_address_of_another_machine_is_an_error_that_names_it(wire):
    async def main():
        with pytest.raises(OSError, match=r"192\.0\.2\.1:1"):
            await listen(wire.Recorder(), FrontOptions(host="192.0.2.1", port=1))
        with pytest.raises(OSError, match="no-such-host"):
            await listen(wire.Recorder(), FrontOptions(host="no-such-host.invalid", port=1))

    wire.run(main())


def test_workers_share_a_port(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, reuse_port=True) as one:
            async with wire.serve(handler, reuse_port=True, port=one.port) as two:
                clients = [await wire.Client.open(one) for _ in range(50)]
                for client in clients:
                    assert (await client.ask(GET)).status == 200
                assert one.connections + two.connections == 50
                assert one.connections
                assert two.connections
                for client in clients:
                    await client.close()

    wire.run(main())


def test_accepted_connections_have_what_the_listening_socket_was_given(wire):
    async def main():
        async with wire.serve(wire.Recorder(), limits={"stall_s": 7.0}) as front:
            client = await wire.Client.open(front)
            await client.ask(GET)
            (connection,) = front._connections.open
            sock = connection.transport.get_extra_info("socket")
            for name, value in (("TCP_NODELAY", 1), ("TCP_USER_TIMEOUT", 7000)):
                assert sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, name)) == value
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            await client.close()

    wire.run(main())


def test_localhost_listens_on_every_address_it_has(wire):
    async def main():
        async with wire.serve(wire.Recorder(), host="localhost") as front:
            for info in socket.getaddrinfo("localhost", front.port, type=socket.SOCK_STREAM):
                reader, writer = await asyncio.open_connection(info[4][0], front.port)
                client = wire.Client(reader, writer)
                assert (await client.ask(GET)).status == 200
                await client.close()

    wire.run(main())


def test_a_unix_socket_is_served_and_removed(wire, tmp_path):
    path = str(tmp_path / "front.sock")

    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, uds=path) as front:
            assert (front.address, front.port) == (path, 0)
            client = await wire.Client.open(front)
            assert (await client.ask(GET)).status == 200
            assert handler.seen[0].peer == "unix"
            with pytest.raises(AddressTaken, match=r"front\.sock is taken"):
                await listen(handler, FrontOptions(uds=path))
            await client.close()

    wire.run(main())
    assert not os.path.exists(path)


def test_a_unix_socket_that_a_dead_process_left_is_replaced(wire, tmp_path):
    path = str(tmp_path / "front.sock")
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(path)

    async def main():
        async with wire.serve(wire.Recorder(), uds=path) as front:
            client = await wire.Client.open(front)
            assert (await client.ask(GET)).status == 200
            await client.close()

    wire.run(main())


def test_a_front_in_a_thread_of_its_own_serves_while_another_loop_is_blocked(wire):
    started, stop = threading.Event(), threading.Event()
    port = 0

    def operations():
        async def main():
            nonlocal port
            async with wire.serve(wire.Recorder()) as front:
                port = front.port
                started.set()
                await asyncio.get_running_loop().run_in_executor(None, stop.wait)

        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(main())

    async def main():
        async with wire.serve(wire.Recorder()):
            thread = threading.Thread(target=operations)
            thread.start()
            assert started.wait(wire.TIMEOUT_S)
            with socket.create_connection(("127.0.0.1", port), wire.TIMEOUT_S) as sock:
                sock.sendall(GET)  # blocks this loop
                assert sock.recv(100).startswith(b"HTTP/1.1 200 OK")
            stop.set()
            thread.join(wire.TIMEOUT_S)
            assert not thread.is_alive()

    wire.run(main())


@pytest.mark.parametrize("protocols", [[], ["http/1.1"], ["http/1.1", "h2c"]])
def test_tls_carries_http_1(wire, certificate, protocols):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, tls=ServerTls(Tls(certificate=certificate))) as front:
            client = await wire.Client.open(front, trusting(certificate, *protocols))
            for _ in range(2):
                assert (await client.ask(GET)).status == 200
            assert handler.seen[0].scheme == "https"
            assert handler.seen[0].certificate is None
            await client.close()
            await wire.eventually(lambda: not front.connections)

    wire.run(main())


def test_a_long_body_over_tls_is_put_where_it_stays(wire, certificate):
    async def main():
        body = os.urandom(1 << 20)
        post = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(body)
        handler = wire.Recorder()
        tls = ServerTls(Tls(certificate=certificate))
        async with wire.serve(handler, tls=tls, maps=lambda head: True) as front:
            client = await wire.Client.open(front, trusting(certificate))
            for _ in range(2):
                assert (await client.ask(post + body)).status == 200
                assert (await client.ask(GET)).status == 200
            assert isinstance(handler.seen[0].body, memoryview)
            assert [bytes(exchange.body) for exchange in handler.seen] == [body, b""] * 2
            await client.close()

    wire.run(main())


def test_alpn_chooses_http_2(wire, certificate):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, tls=ServerTls(Tls(certificate=certificate))) as front:
            client = await wire.Client.open(front, trusting(certificate, "h2", "http/1.1"))
            frames = h2.connection.H2Connection()
            frames.initiate_connection()
            fields = [(":method", "GET"), (":path", "/"), (":scheme", "https"), (":authority", "a")]
            frames.send_headers(1, fields, end_stream=True)
            client.send(frames.data_to_send())
            events = []
            while not any(isinstance(event, h2.events.StreamEnded) for event in events):
                events += frames.receive_data(await wire.within(client.reader.read(65_536)))
            assert handler.seen[0].scheme == "https"
            await client.close()
            await wire.eventually(lambda: not front.connections)

    wire.run(main())


def test_a_tls_client_that_leaves_is_noticed(wire, certificate):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler, tls=ServerTls(Tls(certificate=certificate))) as front:
            for how in ("close", "reset"):
                client = await wire.Client.open(front, trusting(certificate))
                client.send(GET)
                count = len(handler.gone) + 1
                await handler.until(lambda count=count: len(handler.seen) == count)
                if how == "reset":
                    client.reset()
                await client.close()
                await handler.until(lambda count=count: len(handler.gone) == count)
                await wire.eventually(lambda: not front.connections)

    wire.run(main())


def test_back_pressure_holds_over_tls(wire, certificate):
    async def main():
        handler = wire.Recorder(hold=True)
        async with wire.serve(handler, tls=ServerTls(Tls(certificate=certificate))) as front:
            client = await wire.Client.open(front, trusting(certificate))
            client.writer.transport.pause_reading()
            client.send(GET)
            await handler.until(lambda: handler.seen)
            exchange = handler.seen[0]
            sent, stops = 0, 0

            def fill():
                nonlocal sent, stops
                while sent < 50_000_000:
                    sent += 16_000
                    if not exchange.send(b"x" * 16_000):
                        stops += 1
                        return
                exchange.end()

            exchange.on_drain = fill
            exchange.start(200, ())
            fill()
            (connection,) = front._connections.open
            assert connection.paused
            assert sent < 20_000_000
            client.writer.transport.resume_reading()
            assert len((await client.answer()).body) == sent >= 50_000_000
            assert stops
            await client.close()

    wire.run(main())


def test_a_refused_tls_client_reads_the_refusal(wire, certificate):
    async def main():
        limits = {"body_bytes": 1000}
        async with wire.serve(
            wire.Recorder(), tls=ServerTls(Tls(certificate=certificate)), limits=limits
        ) as front:
            client = await wire.Client.open(front, trusting(certificate))
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
            client.send(b"x" * 9_000_000)
            assert (await wire.within(client.answer())).status == 413
            await client.close()
            await wire.eventually(lambda: not front.connections)

    wire.run(main())


def test_old_tls_and_plain_text_get_nowhere(wire, certificate):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, tls=ServerTls(Tls(certificate=certificate))) as front:
            old = trusting(certificate)
            old.set_ciphers("ALL:@SECLEVEL=0")
            old.minimum_version = old.maximum_version = ssl.TLSVersion.TLSv1_1
            with pytest.raises((ssl.SSLError, ConnectionError)):
                await wire.Client.open(front, old)
            plain = await wire.Client.open(front)
            plain.send(GET)
            assert b"200" not in await wire.within(plain.rest())
            await wire.eventually(lambda: not front.connections)
        assert handler.seen == []

    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        wire.run(main())


def test_a_client_certificate_is_asked_for_checked_and_handed_on(wire, certificate):
    async def main():
        handler = wire.Recorder()
        tls = ServerTls(Tls(certificate=certificate, client_ca=certificate))
        async with wire.serve(handler, tls=tls) as front:
            context = trusting(certificate)
            context.load_cert_chain(certificate)
            client = await wire.Client.open(front, context)
            seen = []
            handler.hold = True
            client.send(GET)
            await handler.until(lambda: handler.seen)
            seen.append(handler.seen[0].certificate)
            handler.seen[0].respond(200, (), b"")
            await client.answer()
            await client.close()
            assert seen == [("https://headrace.test/client",)]
            count = len(handler.seen)
            with contextlib.suppress(ssl.SSLError, ConnectionError, asyncio.IncompleteReadError):
                stranger = await wire.Client.open(front, trusting(certificate))
                stranger.send(GET)
                await stranger.rest()
            assert len(handler.seen) == count
            await wire.eventually(lambda: not front.connections)

    wire.run(main())


def test_a_certificate_that_is_not_there_stops_the_start(wire):
    async def main():
        with pytest.raises(OSError, match="No such file"):
            await listen(
                wire.Recorder(),
                FrontOptions(port=0, tls=ServerTls(Tls(certificate="/no/such.pem"))),
            )

    wire.run(main())
