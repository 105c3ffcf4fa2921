"""What a tensor costs in the server's own memory: in shared memory next to nothing, whatever its size."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import secrets
import tracemalloc
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SIZE = 16 << 20
MOST = 64 * 1024


@pytest.fixture
def file() -> Iterator[Path]:
    path = Path("/dev/shm") / f"headrace-test-{os.getpid()}-{secrets.token_hex(4)}"
    path.write_bytes(np.arange(SIZE // 4, dtype="<f4").tobytes() + bytes(SIZE))
    yield path
    path.unlink()


async def post(streams: Any, path: str, body: bytes) -> bytes:
    """With as little of the client in the measured memory as can be."""
    reader, writer = streams
    head = f"POST {path} HTTP/1.1\r\nhost: x\r\ncontent-length: {len(body)}\r\n\r\n"
    writer.write(head.encode() + body)
    answer: bytes = await reader.readuntil(b"\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200"), await reader.read(1000)
    length = int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    content: bytes = await reader.readexactly(length)
    return content


def asked() -> bytes:
    places = [
        {"shared_memory_region": "r", "shared_memory_offset": at, "shared_memory_byte_size": SIZE}
        for at in (0, SIZE)
    ]
    tensor = {"name": "in", "datatype": "FP32", "shape": [1, SIZE // 4], "parameters": places[0]}
    output = {"name": "out", "parameters": places[1]}
    return json.dumps({"inputs": [tensor], "outputs": [output]}).encode()


def test_16_mb_in_shared_memory_take_less_than_64_kb(kit: Any, v2: Any, file: Path) -> None:
    async def main() -> None:
        tensors = v2.Lines()
        async with v2.serving(kit.Service(kit.hello), tensors) as server:
            streams = await asyncio.open_connection("127.0.0.1", int(server.address[10:]))
            region = json.dumps({"key": file.name, "byte_size": 2 * SIZE}).encode()
            await post(streams, "/v2/systemsharedmemory/region/r/register", region)
            body = asked()
            await post(streams, "/v2/models/identity_fp32/infer", body)
            tensors.taken.clear()
            gc.collect()
            tracemalloc.start()
            try:
                before = tracemalloc.get_traced_memory()[0]
                await post(streams, "/v2/models/identity_fp32/infer", body)
                peak = tracemalloc.get_traced_memory()[1]
            finally:
                tracemalloc.stop()
                streams[1].close()
        assert peak - before < MOST, peak - before
        data = np.fromfile(file, "<f4")
        assert np.array_equal(data[: SIZE // 4], data[SIZE // 4 :])

    kit.run(main())
