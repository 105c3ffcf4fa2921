"""Real collectors (OTLP over HTTP and gRPC), and a whole server in a process of its own in front of them."""

from __future__ import annotations

import gzip
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import httpx
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2_grpc import (
    TraceServiceServicer,
    add_TraceServiceServicer_to_server,
)
from tests.kill.arena import free_port

WAIT_S = 30.0
KINDS = {1: "internal", 2: "server", 3: "client"}


class SpanSeen:
    """A span as a collector got it."""

    def __init__(self, span: Any, resource: Mapping[str, Any]) -> None:
        self.name: str = span.name
        self.kind = KINDS[span.kind]
        self.trace = span.trace_id.hex()
        self.id = span.span_id.hex()
        self.parent = span.parent_span_id.hex()
        self.tracestate: str = span.trace_state
        self.start: int = span.start_time_unix_nano
        self.end: int = span.end_time_unix_nano
        self.attributes = values(span.attributes)
        self.events = [event.name for event in span.events]
        self.links = [(link.trace_id.hex(), link.span_id.hex()) for link in span.links]
        self.failed = span.status.code == 2
        self.message: str = span.status.message
        self.resource = resource

    def __repr__(self) -> str:
        return f"{self.kind} {self.name} {self.id}<{self.parent} {self.attributes}"


def values(attributes: Any) -> dict[str, Any]:
    return {pair.key: _value(pair.value) for pair in attributes}


def _value(value: Any) -> Any:
    kind = value.WhichOneof("value")
    if kind == "array_value":
        return [_value(one) for one in value.array_value.values]
    return getattr(value, kind)


class Collector:
    """Keeps what it was sent. ``url`` is for ``OTEL_EXPORTER_OTLP_ENDPOINT``."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[SpanSeen] = []
        self.metrics: dict[str, Any] = {}
        self.exports = 0
        self._came = threading.Condition()

    def take(self, request: Any) -> None:
        with self._came:
            self.exports += 1
            for resource in request.resource_spans:
                about = values(resource.resource.attributes)
                for scope in resource.scope_spans:
                    self.spans += [SpanSeen(span, about) for span in scope.spans]
            self._came.notify_all()

    def take_metrics(self, request: Any) -> None:
        with self._came:
            for resource in request.resource_metrics:
                for scope in resource.scope_metrics:
                    self.metrics |= {metric.name: metric for metric in scope.metrics}
            self._came.notify_all()

    def wait(self, condition: Callable[[], Any]) -> Any:
        with self._came:
            assert self._came.wait_for(condition, WAIT_S), self.spans
            return condition()

    def trace(self, trace: str, count: int) -> list[SpanSeen]:
        """The spans of a trace, from the first that began, once there are ``count`` of them."""

        def found() -> list[SpanSeen]:
            mine = [span for span in self.spans if span.trace == trace]
            return (
                sorted(mine, key=lambda span: (span.start, -span.end)) if len(mine) >= count else []
            )

        spans = self.wait(found)
        assert len(spans) == count, spans
        return spans


class _Handler(BaseHTTPRequestHandler):
    collector: Collector
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["content-length"]))
        if self.headers.get("content-encoding") == "gzip":
            body = gzip.decompress(body)
        if self.path == "/v1/traces":
            self.collector.take(ExportTraceServiceRequest.FromString(body))
        elif self.path == "/v1/metrics":
            self.collector.take_metrics(ExportMetricsServiceRequest.FromString(body))
        self.send_response(200 if self.path in ("/v1/traces", "/v1/metrics") else 404)
        self.send_header("content-type", "application/x-protobuf")
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


class _Servicer(TraceServiceServicer):
    def __init__(self, collector: Collector) -> None:
        self._collector = collector

    def Export(self, request: Any, context: Any) -> Any:
        self._collector.take(request)
        return ExportTraceServiceResponse()


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector that is spoken to over HTTP."""
    collector = Collector()
    handler = type("Handler", (_Handler,), {"collector": collector})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        collector.url = f"http://127.0.0.1:{server.server_address[1]}"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield collector
        server.shutdown()
        thread.join()


@contextmanager
def collecting_over_grpc() -> Iterator[Collector]:
    collector = Collector()
    server = grpc.server(ThreadPoolExecutor(2))
    add_TraceServiceServicer_to_server(_Servicer(collector), server)
    collector.url = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    yield collector
    server.stop(None).wait()


class Upstream:
    """An OpenAI-compatible server that keeps the headers it was sent. ``fail``: answers that it refuses first;
    ``cut``: streams that it breaks off first, after a word; ``pause_s``: before each token."""

    def __init__(self) -> None:
        self.headers: list[dict[str, str]] = []
        self.fail = self.cut = 0
        self.pause_s = 0.0
        self.url = ""


class _Model(BaseHTTPRequestHandler):
    upstream: Upstream
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._json({"data": [{"id": "m"}]})

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["content-length"])))
        upstream = self.upstream
        upstream.headers.append({name.lower(): value for name, value in self.headers.items()})
        if upstream.fail > 0:
            upstream.fail -= 1
            self._json({"error": {"message": "out of order"}}, 500)
        elif body.get("stream"):
            self._stream()
        elif self.path.endswith("/embeddings"):
            vector = {"object": "embedding", "index": 0, "embedding": "AACAPwAAAAA="}
            usage = {"prompt_tokens": 7, "total_tokens": 7}
            self._json({"object": "list", "data": [vector], "model": "m", "usage": usage})
        else:
            message = {"role": "assistant", "content": "The mill turns."}
            choice = {"index": 0, "message": message, "finish_reason": "stop"}
            usage = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
            self._json({"choices": [choice], "usage": usage})

    def _stream(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        self.close_connection = True
        for word in ("The ", "mill ", "turns."):
            time.sleep(self.upstream.pause_s)
            self._chunk({"index": 0, "delta": {"content": word}, "finish_reason": None})
            if self.upstream.cut > 0:
                self.upstream.cut -= 1
                return
        self._chunk({"index": 0, "delta": {}, "finish_reason": "stop"})
        self.wfile.write(b"data: [DONE]\n\n")

    def _chunk(self, choice: dict[str, Any]) -> None:
        self.wfile.write(b"data: %s\n\n" % json.dumps({"choices": [choice]}).encode())
        self.wfile.flush()

    def _json(self, value: Any, status: int = 200) -> None:
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Silent."""


@contextmanager
def answering() -> Iterator[Upstream]:
    upstream = Upstream()
    handler = type("Handler", (_Model,), {"upstream": upstream})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        server.daemon_threads = True
        upstream.url = f"http://127.0.0.1:{server.server_address[1]}/v1"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield upstream
        server.shutdown()
        thread.join()


class Server:
    """``headrace serve`` with an environment of its own, on one port and folder, however often it dies."""

    def __init__(
        self, folder: Path, model: str, environment: Mapping[str, str], more: str = ""
    ) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self._config = folder / "headrace.toml"
        self._config.write_text(
            f'[server]\nport = {port}\nstate_dir = "{folder}"\nlog_format = "json"\n'
            f'shutdown_grace_s = 1\n{more}\n[[models]]\nname = "m"\n{model}\n'
        )
        self.log: list[dict[str, Any]] = []
        self._environment = {"OTEL_BSP_SCHEDULE_DELAY": "50", **environment}
        self._replicas = max(1, model.count("[[models.replicas]]"))
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Returns when all its replicas serve."""
        command = [sys.executable, "-m", "headrace", "serve", "--config", str(self._config)]
        clean = {name: value for name, value in os.environ.items() if not name.startswith("OTEL_")}
        environment = {**clean, **self._environment}
        process = subprocess.Popen(command, stderr=subprocess.PIPE, env=environment)
        self._process = process
        assert process.stderr
        said = []
        for line in process.stderr:
            said.append(line)
            if sum(b" serves" in line for line in said) == self._replicas:
                break
        else:
            raise AssertionError(b"".join(said).decode())
        threading.Thread(target=self._read, args=(process.stderr,), daemon=True).start()

    def _read(self, lines: Any) -> None:
        for line in lines:
            if line.startswith(b"{"):
                self.log.append(json.loads(line))

    def end(self, by: signal.Signals = signal.SIGTERM) -> int:
        process, self._process = self._process, None
        if process is None:
            return 0
        process.send_signal(by)
        status = process.wait(WAIT_S)
        if process.stderr:
            process.stderr.close()
        return status

    def ask(self, headers: Mapping[str, str] | None = None, **fields: Any) -> httpx.Response:
        body = {"model": "m", "messages": [{"role": "user", "content": "hello"}], **fields}
        path = f"{self.url}/v1/chat/completions"
        return httpx.post(path, json=body, headers=headers, timeout=WAIT_S)
