"""``bentoml serve benchmarks.batching.servers.bento_service:MiniLmService --port PORT``."""

from __future__ import annotations

import bentoml

from benchmarks.batching.servers.minilm import SIZE, MiniLm


@bentoml.service(traffic={"timeout": 600, "max_concurrency": 10_000}, workers=1)
class MiniLmService:
    def __init__(self) -> None:
        self.model = MiniLm()

    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=SIZE, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
    def embed(self, input: list[list[int]]) -> list[list[float]]:
        return self.model.vectors(input)
