"""``bentoml serve benchmarks.batching.servers.bento_service:MiniLmService --port PORT``."""

from __future__ import annotations

import bentoml

from benchmarks.batching.servers.minilm import SIZE, MiniLm


@bentoml.service(traffic={"timeout": 600, "max_concurrency": 10_000}, workers=1)
class MiniLmService:
    def __init__(self) -> None:
        self.model = MiniLm()

    # Its own wait: it learns how long to hold a batch, within its default of a minute.
    @bentoml.api(batchable=True, batch_dim=0, max_batch_size=SIZE, max_latency_ms=60_000)  # type: ignore[untyped-decorator]
    def embed(self, input: list[str]) -> list[list[float]]:
        found: list[list[float]] = self.model.vectors(input).tolist()
        return found
