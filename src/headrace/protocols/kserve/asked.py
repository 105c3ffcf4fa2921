"""One inference as both wires have it: what it takes, where its tensors are, how its answer is wanted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from headrace.domain.tensors import Tensor, TensorRequest
from headrace.protocols.body import refuse
from headrace.protocols.kserve.datatypes import checked_shape, known_datatype, tensor_of
from headrace.protocols.memory_port import Memory

MAX_TENSORS = 256
"""Inputs of a request, and outputs that it asks for."""
MAX_ID = 1024
_REGION = "shared_memory_region"
_SIZE = "shared_memory_byte_size"
_OFFSET = "shared_memory_offset"
_MICROSECONDS = 1e-6
_LAST = 2**31

Parameters = Mapping[str, Any]


class Place(NamedTuple):
    """Where in shared memory a tensor is: bytes."""

    region: str
    offset: int
    size: int


class Wanted(NamedTuple):
    """An output that was asked for. ``binary``: as bytes behind the JSON; None: as the request says of all."""

    name: str
    binary: bool | None = None
    place: Place | None = None


class Asked(NamedTuple):
    """``outputs``: empty for all. ``binary``: how they come where nothing else is said."""

    request: TensorRequest
    outputs: Sequence[Wanted]
    binary: bool


def parameter(parameters: Parameters, name: str, kind: type, at: str = "parameters") -> Any:
    """Its value, None if it is not there. Raises ``INVALID_REQUEST`` for another type."""
    value = parameters.get(name)
    if value is None or type(value) is kind:
        return value
    raise refuse(f"{at}.{name}", f"must be {_SAID[kind]}")


_SAID: dict[type, str] = {int: "a whole number", bool: "true or false", str: "a text"}


def place_of(parameters: Parameters, at: str) -> Place | None:
    """Where a tensor is in shared memory, if it is there. Raises ``INVALID_REQUEST``."""
    region = parameter(parameters, _REGION, str, at)
    size = parameter(parameters, _SIZE, int, at)
    offset = parameter(parameters, _OFFSET, int, at)
    if region is None:
        if size is not None or offset is not None:
            raise refuse(f"{at}.{_REGION}", "is required beside its size and offset")
        return None
    if size is None:
        raise refuse(f"{at}.{_SIZE}", "is required")
    return Place(region, offset or 0, size)


def place_parameters(place: Place) -> dict[str, str | int]:
    """What the answer says of an output in shared memory."""
    said: dict[str, str | int] = {_REGION: place.region, _SIZE: place.size}
    if place.offset:
        said[_OFFSET] = place.offset
    return said


def wanted_output(name: str, parameters: Parameters, at: str) -> Wanted:
    """Raises ``INVALID_REQUEST``."""
    if parameter(parameters, "classification", int, at):
        raise refuse(f"{at}.classification", "is not done here")
    place = place_of(parameters, at)
    binary = parameter(parameters, "binary_data", bool, at)
    if place is not None and binary:
        raise refuse(f"{at}.binary_data", "and shared memory exclude each other")
    return Wanted(name, binary, place)


def shared_tensor(
    name: str,
    datatype: str,
    shape: Sequence[int],
    place: Place,
    memory: Memory,
    tenant: str,
    path: str,
) -> Tensor:
    """An input in shared memory: a view of its client's pages where that can be. Raises ``INVALID_REQUEST`` and
    ``NOT_FOUND``."""
    data = memory.find(tenant, place.region).read(place.offset, place.size)
    known = known_datatype(datatype, path)
    return tensor_of(name, known, checked_shape(shape, path), data, path)


def asked(
    model: str,
    version: str,
    id: str,
    inputs: Sequence[Tensor],
    outputs: Sequence[Wanted],
    parameters: Parameters,
) -> Asked:
    """A request of all these. Raises ``INVALID_REQUEST``."""
    _check_names("inputs", [tensor.name for tensor in inputs])
    _check_names("outputs", [output.name for output in outputs])
    for name in ("sequence_id", "sequence_start", "sequence_end"):
        if parameters.get(name):
            raise refuse(f"parameters.{name}", "is for models with state; there are none here")
    priority = _whole(parameters, "priority")
    timeout = _whole(parameters, "timeout")
    request = TensorRequest(
        model,
        inputs,
        [output.name for output in outputs],
        version,
        id,
        priority=priority,
        timeout_s=timeout * _MICROSECONDS if timeout else None,
    )
    binary = parameter(parameters, "binary_data_output", bool) or False
    return Asked(request, outputs, binary)


def _check_names(path: str, names: Sequence[str]) -> None:
    if len(names) > MAX_TENSORS:
        raise refuse(path, f"has more than {MAX_TENSORS} tensors")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refuse(path, f"has {twice[:200]!r} twice")


def _whole(parameters: Parameters, name: str) -> int:
    value: int = parameter(parameters, name, int) or 0
    if not 0 <= value < _LAST:
        raise refuse(f"parameters.{name}", f"must be a whole number from 0 to {_LAST - 1}")
    return value
