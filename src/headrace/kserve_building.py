"""KServe V2 for the models that take tensors. It imports numpy: so it is imported only where there are such models."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from headrace import __version__
from headrace.protocols.kserve.described import described
from headrace.protocols.kserve.endpoints import V2Endpoints
from headrace.protocols.port import Service
from headrace.protocols.router import Route
from headrace.protocols.tensor_port import Tensors
from headrace.shared_memory.regions import Regions

if TYPE_CHECKING:  # a package that not every server has
    from headrace.protocols.grpc.open_inference import OpenInference


class V2:
    """``routes``: for the HTTP API; ``described``: what its document says of them. ``body_bytes``: the most that a
    request may have."""

    def __init__(self, service: Service, tensors: Tensors, body_bytes: int) -> None:
        self._service = service
        self._tensors = tensors
        self._memory = Regions()
        endpoints = V2Endpoints(service, tensors, self._memory, __version__, body_bytes)
        self.routes: Sequence[Route] = endpoints.routes()
        self.described = described()

    def over_grpc(self) -> OpenInference:
        """The same over gRPC. Raises ``ImportError`` if its packages are missing."""
        from headrace.protocols.grpc.open_inference import OpenInference

        return OpenInference(self._service, self._tensors, self._memory, __version__)

    def close(self) -> None:
        """Let go of all shared memory."""
        self._memory.close()
