"""Bodies that come again: read once, and looked up in the memory of whoever asks each time."""

from __future__ import annotations

import gc
import json
import weakref
from typing import Any, cast

import numpy as np
import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.kserve.asked import Asked
from headrace.protocols.kserve.repeated import MOST_BODIES, MOST_BYTES, Repeated
from headrace.protocols.kserve.request import decode_infer
from headrace.protocols.memory_port import Memory


class Fake:
    """Memory of regions by tenant and name: arrays of bytes."""

    def __init__(self) -> None:
        self.regions: dict[tuple[str, str], Any] = {}

    def find(self, tenant: str, name: str) -> Any:
        if (tenant, name) not in self.regions:
            raise HeadraceError(Code.NOT_FOUND, "not there")
        array = self.regions[tenant, name]

        class Region:
            @staticmethod
            def read(offset: int, size: int) -> memoryview:
                return memoryview(array)[offset : offset + size]

        return Region()


class House:
    """``read``: how many bodies were."""

    def __init__(self) -> None:
        self.memory = Fake()
        self.memory.regions["default", "r"] = np.arange(16, dtype=np.uint8)
        self.read = 0
        self.repeated = Repeated(self._decode)

    def ask(self, body: bytes, tenant: str = "default", size: int | None = None) -> Asked:
        return self.repeated.decode(body, size, "m", "1", cast(Memory, self.memory), tenant)

    def _decode(self, *arguments: Any) -> Asked:
        self.read += 1
        return decode_infer(*arguments)


def body(size: int = 8, offset: int = 4, **more: Any) -> bytes:
    place = {
        "shared_memory_region": "r",
        "shared_memory_offset": offset,
        "shared_memory_byte_size": size,
    }
    tensor = {"name": "x", "datatype": "UINT8", "shape": [size], "parameters": place}
    said = {"inputs": [tensor], "outputs": [{"name": "y", "parameters": place}], "id": "7"}
    return json.dumps(said | more).encode()


def test_what_comes_again_is_read_once_and_sees_what_is_in_the_memory_now() -> None:
    house = House()
    first = house.ask(body())
    first.request.into = {"y": first.request.inputs[0].array}
    house.memory.regions["default", "r"] = np.full(16, 9, np.uint8)
    again = house.ask(body())
    assert house.read == 1
    assert first.request.inputs[0].array.tolist() == list(range(4, 12))
    assert again.request.inputs[0].array.tolist() == [9] * 8
    assert np.shares_memory(again.request.inputs[0].array, house.memory.regions["default", "r"])
    assert again.request.into == {}
    assert (again.outputs, again.places, again.request.id) == (first.outputs, first.places, "7")


def test_it_is_each_tenants_own_memory() -> None:
    house = House()
    house.ask(body())
    with pytest.raises(HeadraceError) as caught:
        house.ask(body(), "acme")
    assert caught.value.code == Code.NOT_FOUND
    house.memory.regions["acme", "r"] = np.full(16, 3, np.uint8)
    assert house.ask(body(), "acme").request.inputs[0].array.tolist() == [3] * 8


def test_of_a_region_that_has_become_too_small_nothing_is_taken() -> None:
    house = House()
    house.ask(body())
    house.memory.regions["default", "r"] = np.zeros(6, np.uint8)
    with pytest.raises(HeadraceError, match=r"inputs\[0\]` has 2 bytes"):
        house.ask(body())


@pytest.mark.parametrize(
    ("said", "size"),
    [
        (b'{"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1], "data": [1]}]}', None),
        (body(), len(body())),
        (body() + b" " * MOST_BYTES, None),
    ],
)
def test_what_has_data_in_it_or_is_long_is_read_each_time(said: bytes, size: int | None) -> None:
    house = House()
    for _ in range(2):
        house.ask(said, size=size)
    assert house.read == 2


def test_so_is_what_was_refused() -> None:
    house = House()
    for _ in range(2):
        with pytest.raises(HeadraceError):
            house.ask(body(size=13))
    assert house.read == 2


def test_only_so_many_are_known() -> None:
    house = House()
    for number in range(MOST_BODIES + 2):
        house.ask(body(id=str(number)))
        assert len(house.repeated._known) <= MOST_BODIES
    read = house.read
    house.ask(body(id="2"))
    assert house.read == read
    house.ask(body(id="0"))
    assert house.read == read + 1


def test_no_memory_is_held_by_what_is_known() -> None:
    house = House()
    house.ask(body())
    gone = weakref.ref(house.memory.regions.pop(("default", "r")))
    gc.collect()
    assert gone() is None
