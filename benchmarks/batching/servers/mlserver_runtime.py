"""MLServer's custom runtime, as ``model-settings.json`` names it; batches are MLServer's own (adaptive batching)."""

from __future__ import annotations

from typing import Any

import numpy as np
from mlserver import MLModel
from mlserver.codecs import NumpyCodec
from mlserver.types import InferenceRequest, InferenceResponse

from benchmarks.batching.servers.minilm import MiniLm


class Runtime(MLModel):  # type: ignore[misc]
    async def load(self) -> bool:
        self.model = MiniLm()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        rows: Any = NumpyCodec.decode_input(payload.inputs[0])
        vectors = np.array(self.model.vectors(rows), np.float32)
        output = NumpyCodec.encode_output("embedding", vectors)
        return InferenceResponse(model_name=self.name, outputs=[output])
