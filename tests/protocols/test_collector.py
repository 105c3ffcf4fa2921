from __future__ import annotations

from typing import Any

from headrace.protocols.collector import Collector
from headrace.protocols.fold import Fold


def test_it_tells_of_a_whole_log_once(kit: Any) -> None:
    async def main() -> None:
        told: list[Any] = []
        generation = kit.Generation(kit.chat_request())
        Collector(done=told.append).attach(generation, client=True)
        generation.write(kit.token(1, "a"))
        assert told == []
        generation.write(kit.finish(2))
        assert isinstance(told[0], Fold)
        assert len(told) == 1

    kit.run(main())


def test_a_client_that_left_before_it_began_to_read_has_left(kit: Any) -> None:
    async def main() -> None:
        told: list[Any] = []
        generation = kit.Generation(kit.chat_request())
        collector = Collector(done=told.append)
        collector.close()
        collector.attach(generation, client=True)
        assert generation.left.is_set()
        generation.write(kit.finish(1))
        assert told == []

    kit.run(main())
