"""Tensors in shared memory: the client's own pages, from its writing to its reading."""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

SIZE = 1 << 20
HALF = SIZE // 2
PATH = "/v2/models/identity_fp32/infer"
LISTED = "/v2/systemsharedmemory/status"


class Shared:
    """A file in shared memory and the client's mapping of it. ``key``: its name."""

    def __init__(self, prefix: str) -> None:
        self.key = f"{prefix}{os.getpid()}-{secrets.token_hex(4)}"
        self.path = Path("/dev/shm") / self.key
        self.path.write_bytes(bytes(SIZE))
        self.array = np.memmap(self.path, np.uint8, "r+")


@pytest.fixture
def shared() -> Iterator[Shared]:
    made = Shared("headrace-test-")
    yield made
    made.path.unlink(missing_ok=True)


@pytest.fixture
def of_acme() -> Iterator[Shared]:
    made = Shared("acme.")
    yield made
    made.path.unlink(missing_ok=True)


@contextlib.asynccontextmanager
async def talking(
    kit: Any, v2: Any, keys: Any = None
) -> AsyncIterator[tuple[httpx.AsyncClient, Any]]:
    tensors = v2.Lines()
    service = kit.Service(kit.hello, keys=keys)
    async with (
        v2.serving(service, tensors) as server,
        httpx.AsyncClient(base_url=server.url, timeout=30) as client,
    ):
        yield client, tensors


async def register(client: httpx.AsyncClient, key: str, **fields: Any) -> httpx.Response:
    name = fields.pop("name", "r")
    headers = fields.pop("headers", None)
    body = {"key": key, "byte_size": SIZE} | fields
    path = f"/v2/systemsharedmemory/region/{name}/register"
    return await client.post(path, json=body, headers=headers)


def place(offset: int, size: int, region: str = "r") -> dict[str, Any]:
    return {
        "parameters": {
            "shared_memory_region": region,
            "shared_memory_offset": offset,
            "shared_memory_byte_size": size,
        }
    }


def asked(inputs: Any, outputs: Any, elements: int = HALF // 4) -> dict[str, Any]:
    tensor = {"name": "in", "datatype": "FP32", "shape": [1, elements]}
    return {"inputs": [tensor | inputs], "outputs": [{"name": "out"} | outputs]}


def mapped(key: str) -> tuple[int, int]:
    """Where this process, but for the client's own mapping, has that file: begin and end."""
    found = []
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith(key):
            begin, _, end = line.split()[0].partition("-")
            found.append((int(begin, 16), int(end, 16)))
    return found[-1] if len(found) == 1 else _other(found)


def _other(found: list[tuple[int, int]]) -> tuple[int, int]:
    raise AssertionError(f"{len(found)} mappings of the file")


def test_inputs_are_the_clients_pages_and_outputs_are_written_in_place(
    kit: Any, v2: Any, shared: Shared
) -> None:
    async def main() -> None:
        values = np.arange(HALF // 4, dtype="<f4")
        shared.array[:HALF] = values.view(np.uint8)
        del shared.array  # so that the server's mapping is the only one here
        async with talking(kit, v2) as (client, tensors):
            assert (await register(client, f"/{shared.key}")).status_code == 200
            answer = await client.post(PATH, json=asked(place(0, HALF), place(HALF, HALF)))
            begin, end = mapped(shared.key)
            (request,) = tensors.taken
            room = request.into["out"]
            room_at = room.__array_interface__["data"][0]
            del room
            tensors.taken.clear()
            del request
        assert answer.status_code == 200, answer.text
        assert tensors.addresses == [begin]
        assert room_at == begin + HALF
        assert end - begin == SIZE
        (output,) = answer.json()["outputs"]
        assert output == {"name": "out", "datatype": "FP32", "shape": [1, HALF // 4]} | place(
            HALF, HALF
        )
        assert shared.path.read_bytes()[HALF:] == values.tobytes()

    kit.run(main())


def test_an_output_that_is_computed_elsewhere_is_copied_to_its_place(
    kit: Any, v2: Any, shared: Shared
) -> None:
    async def main() -> None:
        packed = b"\x02\0\0\0hi" + bytes(4)
        shared.array[16 : 16 + len(packed)] = np.frombuffer(packed, np.uint8)
        tensor = {"name": "in", "datatype": "BYTES", "shape": [2, 1]}
        said = {
            "inputs": [tensor | place(16, len(packed))],
            "outputs": [{"name": "out"} | place(1000, 64)],
        }
        async with talking(kit, v2) as (client, _):
            await register(client, shared.key)
            answer = await client.post("/v2/models/identity_bytes/infer", json=said)
            parameters = answer.json()["outputs"][0]["parameters"]
            said["outputs"] = [{"name": "out"} | place(1000, 9)]
            small = await client.post("/v2/models/identity_bytes/infer", json=said)
        assert parameters["shared_memory_byte_size"] == len(packed)
        assert bytes(shared.array[1000 : 1000 + len(packed)]) == packed
        assert small.status_code == 400
        assert small.json()["error"] == "`outputs.out` has 10 bytes; the place for it has 9."

    kit.run(main())


def test_regions_are_listed_and_forgotten(kit: Any, v2: Any, shared: Shared) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, _):
            for name in ("a", "b/c", "d"):
                await register(client, shared.key, name=name, offset=64, byte_size=64)
            entry = {"key": shared.key, "offset": 64, "byte_size": 64}
            every = (await client.get(LISTED)).json()
            assert every == [{"name": name} | entry for name in ("a", "b/c", "d")]
            one = (await client.get("/v2/systemsharedmemory/region/b/c/status")).json()
            assert one == [{"name": "b/c"} | entry]
            await client.post("/v2/systemsharedmemory/region/b/c/unregister")
            gone = await client.get("/v2/systemsharedmemory/region/b/c/status")
            assert gone.status_code == 404
            assert gone.json() == {"error": "The region 'b/c' is not registered."}
            assert len((await client.get(LISTED)).json()) == 2
            await client.post("/v2/systemsharedmemory/unregister")
            assert (await client.get(LISTED)).json() == []

    kit.run(main())


def test_a_tenant_has_only_its_own(kit: Any, v2: Any, of_acme: Shared, shared: Shared) -> None:
    async def main() -> None:
        acme, other = ({"authorization": f"Bearer {key}"} for key in ("a", "o"))
        async with talking(kit, v2, {"a": "acme", "o": "other"}) as (client, tensors):
            assert (await register(client, of_acme.key, headers=acme)).status_code == 200
            foreign = await register(client, of_acme.key, headers=other)
            assert (foreign.status_code, list(foreign.json())) == (403, ["error"])
            nobodys = await register(client, shared.key, name="s", headers=acme)
            assert nobodys.status_code == 403
            assert (await client.get(LISTED, headers=other)).json() == []
            said = asked(place(0, HALF), place(HALF, HALF))
            answer = await client.post(PATH, json=said, headers=other)
            assert (answer.status_code, answer.json()) == (
                404,
                {"error": "The region 'r' is not registered."},
            )
            assert not tensors.taken
            await client.post("/v2/systemsharedmemory/unregister", headers=other)
            of_acme.array[:HALF] = 7
            answer = await client.post(PATH, json=said, headers=acme)
            assert answer.status_code == 200, answer.text
            assert bytes(of_acme.array[HALF:]) == b"\x07" * HALF

    kit.run(main())


MISTAKES: list[tuple[str, Any, Any, str]] = [
    ("an offset outside", place(SIZE, 4), place(0, HALF), "are not all in it"),
    ("a size outside", place(0, SIZE + 4), place(0, HALF), "are not all in it"),
    ("a negative offset", place(-4, HALF), place(0, HALF), "are not all in it"),
    ("an output outside", place(0, HALF), place(HALF + 4, HALF), "are not all in it"),
    ("another size than the shape's", place(0, 8), place(0, HALF), "`inputs[0]` has 8 bytes; FP32"),
    ("a region that is not there", place(0, HALF, "x"), place(0, HALF), "'x' is not registered"),
    ("an output too large for its place", place(0, HALF), place(HALF, 8), f"needs {HALF} bytes"),
]


@pytest.mark.parametrize(
    ("inputs", "outputs", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES]
)
def test_a_place_that_is_none(
    kit: Any, v2: Any, shared: Shared, inputs: Any, outputs: Any, said: str
) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, _):
            await register(client, shared.key)
            answer = await client.post(PATH, json=asked(inputs, outputs))
        assert answer.status_code in (400, 404)
        assert said in answer.json()["error"]

    kit.run(main())


def test_a_file_that_has_become_shorter_hurts_nobody(kit: Any, v2: Any, shared: Shared) -> None:
    async def main() -> None:
        async with talking(kit, v2) as (client, _):
            await register(client, shared.key)
            os.truncate(shared.path, 4096)
            answer = await client.post(PATH, json=asked(place(0, HALF), place(HALF, HALF)))
            assert answer.status_code == 400
            assert "has 4096 bytes" in answer.json()["error"]

    kit.run(main())


def test_an_output_may_be_asked_for_where_its_input_is(kit: Any, v2: Any, shared: Shared) -> None:
    """Whether it can be written there is the engine's to say, which sees both at their addresses."""

    async def main() -> None:
        async with talking(kit, v2) as (client, tensors):
            await register(client, shared.key)
            shared.array[:HALF] = 7
            answer = await client.post(PATH, json=asked(place(0, HALF), place(0, HALF)))
            assert answer.status_code == 200, answer.text
            (request,) = tensors.taken
            assert request.into["out"].__array_interface__["data"][0] == tensors.addresses[0]
            assert bytes(shared.array[:HALF]) == b"\x07" * HALF
            tensors.taken.clear()

    kit.run(main())


@pytest.mark.parametrize(("at", "seen"), [(0, True), (HALF - 4, True), (HALF, False)])
def test_an_output_over_an_input_of_another_region_is_written_when_all_is_computed(
    kit: Any, v2: Any, shared: Shared, at: int, seen: bool
) -> None:
    """Both are of one file: who computes sees two addresses, and not that there is one memory behind them."""

    async def main() -> None:
        async with talking(kit, v2) as (client, tensors):
            await register(client, shared.key)
            await register(client, shared.key, name="again")
            shared.array[:HALF] = np.arange(HALF // 4, dtype="<f4").view(np.uint8)
            before = bytes(shared.array[:HALF])
            said = asked(place(0, HALF), place(at, HALF, "again"))
            answer = await client.post(PATH, json=said)
            assert answer.status_code == 200, answer.text
            (request,) = tensors.taken
            assert ("out" in request.into) is not seen
            assert bytes(shared.array[at : at + HALF]) == before
            tensors.taken.clear()
            del request

    kit.run(main())


def test_two_outputs_cannot_have_one_place(kit: Any, v2: Any, shared: Shared) -> None:
    async def main() -> None:
        tensors = [
            {"name": f"INPUT{i}", "datatype": "INT32", "shape": [1, 16]} | place(64 * i, 64)
            for i in (0, 1)
        ]
        outputs = [{"name": f"OUTPUT{i}"} | place(128 + 60 * i, 64) for i in (0, 1)]
        async with talking(kit, v2) as (client, _):
            await register(client, shared.key)
            said = {"inputs": tensors, "outputs": outputs}
            answer = await client.post("/v2/models/simple/infer", json=said)
        assert answer.status_code == 400
        assert "is a place that is another output's, too" in answer.json()["error"]
        assert "outputs[1].parameters.shared_memory_offset" in answer.json()["error"]

    kit.run(main())


@pytest.mark.parametrize("again", [True, False], ids=["registered again", "unregistered"])
@pytest.mark.parametrize("datatype", ["FP32", "BYTES"])
def test_who_registers_another_region_during_the_run_is_told_and_that_one_gets_nothing(
    kit: Any, v2: Any, shared: Shared, again: bool, datatype: str
) -> None:
    async def main() -> None:
        packed = b"\x02\0\0\0hi" + bytes(4)
        shared.array[: len(packed)] = np.frombuffer(packed, np.uint8)
        shape = [2, 1] if datatype == "BYTES" else [1, 1]
        size = len(packed) if datatype == "BYTES" else 4
        tensor = {"name": "in", "datatype": datatype, "shape": shape} | place(0, size)
        said = {"inputs": [tensor], "outputs": [{"name": "out"} | place(1000, 64)]}
        path = f"/v2/models/identity_{datatype.lower()}/infer"
        async with talking(kit, v2) as (client, tensors):
            await register(client, shared.key)
            tensors.hold = asyncio.Event()
            asking = asyncio.create_task(client.post(path, json=said))
            await tensors.began.wait()
            await client.post("/v2/systemsharedmemory/region/r/unregister")
            if again:
                await register(client, shared.key, offset=2048, byte_size=2048)
            tensors.hold.set()
            answer = await asking
            tensors.taken.clear()
        assert answer.status_code == 404
        assert "'r' is" in answer.json()["error"]
        assert not shared.array[2048:].any()

    kit.run(main())


def test_a_lease_is_asked_for_by_a_header(kit: Any, v2: Any, shared: Shared) -> None:
    async def main() -> None:
        tensors = v2.Lines()
        async with (
            v2.serving(kit.Service(kit.hello), tensors) as server,
            httpx.AsyncClient(base_url=server.url, timeout=30) as client,
        ):
            await register(client, shared.key, headers={"x-shared-memory-lease": "true"})
            server.memory.sweep()
            assert shared.path.exists()
            del shared.array
            server.memory.sweep()
            assert not shared.path.exists()
            assert (await client.get(LISTED)).json() == []

    kit.run(main())
