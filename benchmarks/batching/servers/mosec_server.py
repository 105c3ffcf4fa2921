"""``python -m benchmarks.batching.servers.mosec_server --port PORT --address 127.0.0.1``."""

from __future__ import annotations

from typing import Any

from mosec import Server, Worker

from benchmarks.batching.servers.minilm import SIZE, WAIT_S, MiniLm


class Embed(Worker):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.model = MiniLm()

    def forward(self, data: Any) -> Any:
        vectors = self.model.vectors([one["input"] for one in data]).tolist()
        return [{"embedding": vector} for vector in vectors]


if __name__ == "__main__":
    server = Server()
    server.append_worker(
        Embed, num=1, max_batch_size=SIZE, max_wait_time=max(1, int(WAIT_S * 1000))
    )
    server.run()
