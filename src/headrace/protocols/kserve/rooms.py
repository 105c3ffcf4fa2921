"""The places in shared memory that the outputs of one inference shall have.

An output is written in place while the model runs, unless an input is there under another address: whoever computes it
decides by addresses what it may be written over (:class:`~headrace.domain.tensors.TensorRequest`).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.memory import Span
from headrace.domain.tensors import Tensor
from headrace.protocols.body import refuse
from headrace.protocols.kserve.asked import Asked, Place
from headrace.protocols.kserve.datatypes import bytes_of
from headrace.protocols.memory_port import Memory, Region


class Rooms:
    """``into``: memory for outputs, by their names, as a request has it. Raises ``NOT_FOUND``, and
    ``INVALID_REQUEST`` for a place that is none or that another output has."""

    def __init__(self, asked: Asked, memory: Memory, tenant: str) -> None:
        self.into: dict[str, Any] = {}
        self._memory = memory
        self._tenant = tenant
        self._regions: dict[str, Region] = {}
        spans: list[Span] = []
        for index, wanted in enumerate(asked.outputs):
            if (place := wanted.place) is not None:
                region = self._find(place.region)
                room = region.room(place.offset, place.size)
                span = region.span(place.offset, place.size)
                if any(span.meets(other) for other in spans):
                    said = "is a place that is another output's, too"
                    raise refuse(f"outputs[{index}].parameters.shared_memory_offset", said)
                spans.append(span)
                if room is not None and not self._read_elsewhere(place, span, asked.places):
                    self.into[wanted.name] = np.frombuffer(room, np.uint8)

    def put(self, tensor: Tensor, place: Place) -> Place:
        """Have an output in its place, and say that with its true size. Raises ``INVALID_REQUEST`` if it is larger, and
        ``NOT_FOUND`` if the region is not the one any more."""
        region = self._regions[place.region]
        if self._memory.find(self._tenant, place.region) is not region:
            said = f"The region {place.region[:200]!r} is another one than when it was asked for."
            raise HeadraceError(Code.NOT_FOUND, said)
        room = self.into.get(tensor.name)
        if room is not None and np.may_share_memory(room, tensor.array):
            return Place(place.region, place.offset, tensor.array.nbytes)
        data = bytes_of(tensor)
        if len(data) > place.size:
            said = f"has {len(data)} bytes; the place for it has {place.size}"
            raise refuse(f"outputs.{tensor.name}", said)
        region.write(place.offset, data)
        return Place(place.region, place.offset, len(data))

    def _find(self, name: str) -> Region:
        region = self._regions.get(name)
        if region is None:
            region = self._regions[name] = self._memory.find(self._tenant, name)
        return region

    def _read_elsewhere(self, place: Place, span: Span, inputs: Sequence[Place]) -> bool:
        """Whether an input is there by another region."""
        return any(
            each.region != place.region
            and span.meets(self._find(each.region).span(each.offset, each.size))
            for each in inputs
        )
