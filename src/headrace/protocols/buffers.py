"""Which requests' bodies may be any buffer, so that long ones need not be copied to become bytes."""

from __future__ import annotations

from headrace.protocols.exchange import Head

_TENSORS = "/v2/models/"
_INFER = "/inference.GRPCInferenceService/ModelInfer"
_GRPC = frozenset((b"application/grpc", b"application/grpc+proto"))


def takes_buffer(head: Head) -> bool:
    """Tensors, over HTTP and gRPC. What comes as text or JSON is looked at as bytes."""
    if head.path == _INFER:
        return any(name == b"content-type" and value in _GRPC for name, value in head.headers)
    return head.path.startswith(_TENSORS)
