"""The ways of a tensor to a server and back, each as a client that wants speed would go it. Every one has the whole
round trip in it: from an array to an array, what the client encodes and decodes included."""

from __future__ import annotations

import fcntl
import json
import mmap
import os
import secrets
import socket
from base64 import b64decode, b64encode
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import grpc
import msgspec
import numpy as np

from headrace.protocols.grpc import open_inference_pb2 as pb

Array = Any
RoundTrip = Callable[[], Array]
"""One request; its answer, or where that is."""
MODEL, INPUT, OUTPUT = "identity", "x", "y"
PATH = f"/v2/models/{MODEL}/infer"
LENGTH = "inference-header-content-length"
_encode, _decode = msgspec.json.encode, msgspec.json.decode


class Http:
    """One connection of HTTP/1.1, with as little in Python as possible."""

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def post(self, path: str, body: Sequence[Any], length: int | None = None) -> tuple[str, Any]:
        """``length``: of the JSON, where more is behind it. Head and body of the answer."""
        return self.ask(self.request(path, body, length))

    def request(self, path: str, body: Sequence[Any], length: int | None = None) -> Sequence[Any]:
        """All of it, in parts; it may be sent more than once."""
        size = sum(memoryview(part).nbytes for part in body)
        more = "" if length is None else f"{LENGTH}: {length}\r\n"
        head = f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n"
        parts = [f"{head}content-type: application/json\r\n{more}\r\n".encode(), *body]
        return parts if size > 64 * 1024 else [b"".join(parts)]

    def ask(self, request: Sequence[Any]) -> tuple[str, Any]:
        """Head and body of the answer."""
        for part in request:
            self._socket.sendall(part)
        return self._receive()

    def close(self) -> None:
        self._socket.close()

    def _receive(self) -> tuple[str, Any]:
        data = b""
        while (end := data.find(b"\r\n\r\n")) < 0:
            data += self._socket.recv(65536)
        head = data[:end].decode("latin-1").lower()
        body = bytearray(int(head.partition("\r\ncontent-length: ")[2].partition("\r\n")[0]))
        have = data[end + 4 :]
        body[: len(have)] = have
        view = memoryview(body)[len(have) :]
        while view:
            view = view[self._socket.recv_into(view) :]
        if not head.startswith("http/1.1 200"):
            raise RuntimeError(f"{head}\n{bytes(body[:500])!r}")
        return head, body


def json_lists(port: int, array: Array) -> RoundTrip:
    http = Http(port)

    def once() -> Array:
        tensor = {"name": INPUT, "datatype": "FP32", "shape": array.shape}
        said = {"inputs": [tensor | {"data": array.reshape(-1).tolist()}]}
        _, body = http.post(PATH, [_encode(said)])
        return np.array(_decode(body)["outputs"][0]["data"], np.float32)

    return once


def base64_peer(port: int, array: Array) -> RoundTrip:
    http = Http(port)

    def once() -> Array:
        said = {"shape": array.shape, "data": b64encode(array).decode()}
        _, body = http.post("/", [_encode(said)])
        return np.frombuffer(b64decode(_decode(body)["data"]), np.float32)

    return once


def v2_binary(port: int, array: Array) -> RoundTrip:
    http = Http(port)

    def once() -> Array:
        parameters = {"binary_data_size": array.nbytes}
        tensor = {"name": INPUT, "datatype": "FP32", "shape": array.shape, "parameters": parameters}
        said = _encode({"inputs": [tensor], "parameters": {"binary_data_output": True}})
        head, body = http.post(PATH, [said, array.reshape(-1).view(np.uint8)], len(said))
        start = int(head.partition(f"{LENGTH}: ")[2].partition("\r\n")[0])
        return np.frombuffer(body, np.float32, array.size, start)

    return once


def grpc_raw(port: int, array: Array) -> RoundTrip:
    options = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}", options=options)
    infer: Any = channel.unary_unary(
        "/inference.GRPCInferenceService/ModelInfer",
        request_serializer=pb.ModelInferRequest.SerializeToString,
        response_deserializer=pb.ModelInferResponse.FromString,
    )

    def once() -> Array:
        tensor = pb.ModelInferRequest.InferInputTensor(
            name=INPUT, datatype="FP32", shape=array.shape
        )
        asked = pb.ModelInferRequest(
            model_name=MODEL, inputs=[tensor], raw_input_contents=[array.tobytes()]
        )
        return np.frombuffer(infer(asked).raw_output_contents[0], np.float32)

    return once


class Shared:
    """A region for an input and an output of one size. ``given`` and ``got``: the arrays in it. ``over``: the output is
    asked for where the input is. What is asked is the same each time, so it is written down once."""

    def __init__(self, http: Http, array: Array, fd: int, key: str, *, over: bool = False) -> None:
        size = array.nbytes
        at = 0 if over else size
        os.ftruncate(fd, 2 * size)
        memory = mmap.mmap(fd, 2 * size)
        floats = np.frombuffer(memory, np.float32)
        self.given, self.got = floats[: array.size], floats[at // 4 :][: array.size]
        self.given[:] = array.reshape(-1)
        name = secrets.token_hex(4)
        said = json.dumps({"key": key, "byte_size": 2 * size}).encode()
        http.post(f"/v2/systemsharedmemory/region/{name}/register", [said])
        tensor = {"name": INPUT, "datatype": "FP32", "shape": array.shape}
        said = _encode(
            {
                "inputs": [tensor | _place(name, 0, size)],
                "outputs": [{"name": OUTPUT} | _place(name, at, size)],
            }
        )
        self._request = http.request(PATH, [said])
        self._http = http

    def once(self) -> Array:
        self._http.ask(self._request)
        return self.got

    def copy(self) -> Array:
        """What the server is asked for, done by the client: one memcpy of the same pages."""
        np.copyto(self.got, self.given)
        return self.got


def shared_in_place(port: int, array: Array) -> RoundTrip:
    return _posix(port, array).once


def shared_over_input(port: int, array: Array) -> RoundTrip:
    """The client reads its answer where it wrote its question."""
    return _posix(port, array, over=True).once


def in_turns(port: int, array: Array) -> tuple[RoundTrip, RoundTrip]:
    """In place, and the copy alone: one after the other, both find caches as the other left them."""
    shared = _posix(port, array)
    return shared.once, shared.copy


def shared_copied(port: int, array: Array) -> RoundTrip:
    """The client has its array, and wants it, in memory of its own."""
    shared = _posix(port, array)
    mine = array.copy().reshape(-1)

    def once() -> Array:
        shared.given[:] = mine
        return shared.once().copy()

    return once


def memfd_in_place(port: int, array: Array) -> RoundTrip:
    """As where several tenants are, each of whom could harm the others: memory that cannot shrink."""
    fd = os.memfd_create("default.benchmark", os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 2 * array.nbytes)
    fcntl.fcntl(fd, fcntl.F_ADD_SEALS, fcntl.F_SEAL_SHRINK)
    return Shared(Http(port), array, fd, f"memfd:{os.getpid()}:{fd}").once


def memcpy(_: int, array: Array) -> RoundTrip:
    """No server: the array is copied once."""
    there = np.empty_like(array)

    def once() -> Array:
        np.copyto(there, array)
        return there

    return once


def memcpy_shared(_: int, array: Array) -> RoundTrip:
    """The same in shared memory, whose pages are small everywhere."""
    fd = os.memfd_create("benchmark")
    os.ftruncate(fd, 2 * array.nbytes)
    floats = np.frombuffer(mmap.mmap(fd, 2 * array.nbytes), np.float32)
    given, got = floats[: array.size], floats[array.size :]
    given[:] = array.reshape(-1)

    def once() -> Array:
        np.copyto(got, given)
        return got

    return once


def _posix(port: int, array: Array, *, over: bool = False) -> Shared:
    path = Path("/dev/shm") / f"headrace-benchmark-{os.getpid()}-{secrets.token_hex(4)}"
    fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        return Shared(Http(port), array, fd, path.name, over=over)
    finally:
        path.unlink()  # mapped by both; nothing is left of it after them


def _place(region: str, offset: int, size: int) -> dict[str, Any]:
    said = {"region": region, "offset": offset, "byte_size": size}
    return {"parameters": {f"shared_memory_{name}": value for name, value in said.items()}}
