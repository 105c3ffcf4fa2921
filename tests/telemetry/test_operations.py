from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPResponse

import pytest
from prometheus_client.parser import text_string_to_metric_families

from headrace.telemetry.exposition import Exposition
from headrace.telemetry.metrics import Metrics
from headrace.telemetry.operations import MAX_CONNECTIONS, OperationsPort

TIMEOUT_S = 10


class Server:
    """An operations port with a readiness that the test sets."""

    def __init__(self) -> None:
        self.ready = (True, "smollm2-135m is ready")
        self.metrics = Metrics()
        self.metrics.model("m").of("chat").admitted_count += 1
        self.foreign: str | None = None
        self.hosts: list[bytes | None] = []
        self.port = OperationsPort(
            "127.0.0.1", 0, Exposition(self.metrics), lambda: self.ready, self._foreign
        )
        self.port.start()

    def _foreign(self, host: bytes | None) -> str | None:
        self.hosts.append(host)
        return self.foreign

    def get(self, path: str, accept: str = "*/*") -> tuple[HTTPResponse, bytes]:
        connection = HTTPConnection(*self.port.address, timeout=TIMEOUT_S)
        try:
            connection.request("GET", path, headers={"accept": accept})
            response = connection.getresponse()
            return response, response.read()
        finally:
            connection.close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.port.close()


def test_livez_says_the_process_is_up(server: Server) -> None:
    response, body = server.get("/livez")
    assert (response.status, json.loads(body)) == (200, {"status": "ok"})


def test_readyz_gives_the_reason_when_no_model_can_serve(server: Server) -> None:
    assert server.get("/readyz")[0].status == 200
    server.ready = (False, "smollm2-135m is loading")
    response, body = server.get("/readyz")
    assert response.status == 503
    assert json.loads(body)["reason"] == "smollm2-135m is loading"


def test_metrics_come_as_text_or_json(server: Server) -> None:
    response, body = server.get("/metrics")
    assert response.headers["content-type"].startswith("text/plain")
    assert list(text_string_to_metric_families(body.decode()))
    _, body = server.get("/metrics?x=1", "application/json")
    assert json.loads(body)["totals"]["requests"] == 1


def test_an_unknown_path_says_what_is_here(server: Server) -> None:
    response, body = server.get("/v1/models")
    assert response.status == 404
    assert b"/metrics" in body


def test_it_answers_while_the_serving_loop_is_blocked(server: Server) -> None:
    answered = threading.Event()
    seen: list[int] = []

    def probe() -> None:
        seen.extend(server.get(path)[0].status for path in ("/livez", "/readyz", "/metrics"))
        answered.set()

    async def serve() -> bool:
        threading.Thread(target=probe).start()
        return answered.wait(TIMEOUT_S)  # blocks the loop's thread until the probes are answered

    assert asyncio.run(serve())
    assert seen == [200, 200, 200]


def test_figures_are_not_for_who_calls_by_a_foreign_name_but_probes_are(server: Server) -> None:
    server.foreign = "evil.example"
    response, body = server.get("/metrics")
    assert response.status == 403
    assert "'evil.example'" in json.loads(body)["error"]
    assert [server.get(path)[0].status for path in ("/livez", "/readyz")] == [200, 200]
    host, port = server.port.address
    assert server.hosts == [f"{host}:{port}".encode()]


def test_silent_connections_beyond_the_bound_are_closed(server: Server) -> None:
    silent = [
        HTTPConnection(*server.port.address, timeout=TIMEOUT_S) for _ in range(MAX_CONNECTIONS)
    ]
    try:
        for connection in silent:
            connection.connect()
        late = HTTPConnection(*server.port.address, timeout=TIMEOUT_S)
        late.connect()
        assert late.sock.recv(1) == b""
        late.close()
    finally:
        for connection in silent:
            connection.close()


def test_a_taken_port_is_an_error_at_once(server: Server) -> None:
    with pytest.raises(OSError, match="in use"):
        OperationsPort(
            *server.port.address, Exposition(Metrics()), lambda: (True, ""), lambda _: None
        )


def test_closing_twice_is_closing_once(server: Server) -> None:
    server.port.close()
    server.port.close()
