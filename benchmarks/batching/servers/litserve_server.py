"""``python -m benchmarks.batching.servers.litserve_server PORT``."""

from __future__ import annotations

import sys
from typing import Any

import litserve

from benchmarks.batching.servers.minilm import SIZE, WAIT_S, MiniLm


class Api(litserve.LitAPI):  # type: ignore[misc]
    def setup(self, device: str) -> None:
        self.model = MiniLm()

    def decode_request(self, request):  # type: ignore[no-untyped-def]  # LitServe would read a type as the schema
        return request["input"]

    def batch(self, inputs: Any) -> Any:
        return inputs

    def unbatch(self, output: Any) -> Any:
        return output

    def predict(self, rows: Any) -> Any:
        return self.model.vectors(rows).tolist()

    def encode_response(self, output: Any) -> Any:
        return {"embedding": output}


if __name__ == "__main__":
    api = Api(max_batch_size=SIZE, batch_timeout=WAIT_S)
    server = litserve.LitServer(api, accelerator="cpu", timeout=600, track_requests=False)
    server.run(
        host="127.0.0.1", port=int(sys.argv[1]), log_level="warning", generate_client_file=False
    )
