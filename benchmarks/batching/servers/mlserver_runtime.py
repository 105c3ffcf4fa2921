"""MLServer's custom runtime, as ``model-settings.json`` names it; batches are MLServer's own (adaptive batching)."""

from __future__ import annotations

from typing import Any

from mlserver import MLModel
from mlserver.codecs import NumpyCodec, StringCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.batching.servers.minilm import MiniLm


class Runtime(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.model = MiniLm()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        texts: Any = StringCodec.decode_input(payload.inputs[0])
        output = NumpyCodec.encode_output("embedding", self.model.vectors(texts))
        return InferenceResponse(model_name=self.name, outputs=[output])
