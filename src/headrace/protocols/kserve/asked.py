"""One inference as both wires have it: what it takes, where its tensors are, how its answer is wanted."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, NamedTuple

import msgspec
from msgspec import Meta

from headrace.domain.tensors import Tensor, TensorRequest
from headrace.protocols.body import refuse
from headrace.protocols.kserve.datatypes import checked_shape, known_datatype, tensor_of
from headrace.protocols.memory_port import Memory

MAX_TENSORS = 256
"""Inputs of a request, and outputs that it asks for."""
MAX_ID = 1024
_MICROSECONDS = 1e-6

Whole = Annotated[int, Meta(ge=0, lt=2**31)]


class TensorParameters(msgspec.Struct, frozen=True, gc=False):
    """What is said of an input or an output beside its name. Others are not looked at, as Triton has it."""

    shared_memory_region: str | None = None
    shared_memory_byte_size: int | None = None
    shared_memory_offset: int | None = None
    binary_data_size: int | None = None
    binary_data: bool | None = None
    classification: Whole | None = None


class RequestParameters(msgspec.Struct, frozen=True, gc=False):
    """What is said of a request. ``timeout``: microseconds. The first three are for models with state."""

    sequence_id: Any = None
    sequence_start: Any = None
    sequence_end: Any = None
    priority: Whole | None = None
    timeout: Whole | None = None
    binary_data_output: bool | None = None


NOTHING = TensorParameters()
NOTHING_MORE = RequestParameters()


class Place(NamedTuple):
    """Where in shared memory a tensor is: bytes."""

    region: str
    offset: int
    size: int


class Wanted(NamedTuple):
    """An output that was asked for. ``binary``: as bytes behind the JSON; None: as the request says of all.
    ``classes``: so many, the highest, instead of its elements; 0: as it is."""

    name: str
    binary: bool | None = None
    place: Place | None = None
    classes: int = 0


class Asked(NamedTuple):
    """``outputs``: empty for all. ``binary``: how they come where nothing else is said. ``places``: of those inputs
    that are in shared memory."""

    request: TensorRequest
    outputs: Sequence[Wanted]
    binary: bool
    places: Sequence[Place]


def place_of(parameters: TensorParameters, at: str) -> Place | None:
    """Where a tensor is in shared memory, if it is there. Raises ``INVALID_REQUEST``. ``at``: their path."""
    region = parameters.shared_memory_region
    size = parameters.shared_memory_byte_size
    offset = parameters.shared_memory_offset
    if region is None:
        if size is not None or offset is not None:
            said = "is required beside its size and offset"
            raise refuse(f"{at}.shared_memory_region", said)
        return None
    if size is None:
        raise refuse(f"{at}.shared_memory_byte_size", "is required")
    return Place(region, offset or 0, size)


def place_parameters(place: Place) -> dict[str, str | int]:
    """What the answer says of an output in shared memory."""
    said: dict[str, str | int] = {
        "shared_memory_region": place.region,
        "shared_memory_byte_size": place.size,
    }
    if place.offset:
        said["shared_memory_offset"] = place.offset
    return said


def wanted_output(name: str, parameters: TensorParameters, at: str) -> Wanted:
    """Raises ``INVALID_REQUEST``."""
    place = place_of(parameters, at)
    binary, classes = parameters.binary_data, parameters.classification or 0
    for beside, wanted in (("binary_data", binary), ("classification", classes)):
        if place is not None and wanted:
            raise refuse(f"{at}.{beside}", "and shared memory exclude each other")
    return Wanted(name, binary, place, classes)


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
    parameters: RequestParameters,
    places: Sequence[Place],
) -> Asked:
    """A request of all these. ``places`` as :class:`Asked` has them. Raises ``INVALID_REQUEST``."""
    _check_names("inputs", [tensor.name for tensor in inputs])
    _check_names("outputs", [output.name for output in outputs])
    if parameters.sequence_id or parameters.sequence_start or parameters.sequence_end:
        raise refuse("parameters.sequence_id", "is for models with state; there are none here")
    timeout = parameters.timeout
    request = TensorRequest(
        model,
        inputs,
        [output.name for output in outputs],
        version,
        id,
        priority=parameters.priority or 0,
        timeout_s=timeout * _MICROSECONDS if timeout else None,
    )
    return Asked(request, outputs, parameters.binary_data_output or False, places)


def _check_names(path: str, names: Sequence[str]) -> None:
    if len(names) > MAX_TENSORS:
        raise refuse(path, f"has more than {MAX_TENSORS} tensors")
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise refuse(path, f"has {twice[:200]!r} twice")
