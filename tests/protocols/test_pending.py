"""Of a handler that waits nothing is left where its client leaves at once, nor a word in the log about it."""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import pytest
from h2.connection import H2Connection
from h2.events import PingAckReceived

from headrace.domain.errors import HeadraceError
from headrace.protocols.pending import Guarded
from headrace.protocols.tasks import Tasks


class Unanswered:
    """A call that nobody may answer."""

    def fail(self, error: HeadraceError) -> None:
        raise AssertionError(error)

    def crash(self) -> None:
        raise AssertionError


async def handler() -> None:
    raise AssertionError("it has begun")


@contextmanager
def nothing_said() -> Iterator[None]:
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        yield
        gc.collect()
    assert [str(one.message) for one in said if one.category is RuntimeWarning] == []


def test_a_call_within_a_call_that_is_over_before_its_first_step_says_nothing(kit: Any) -> None:
    async def main() -> None:
        tasks = Tasks()
        for stop in (asyncio.Task.cancel, lambda _: None):  # its client leaves, or the server
            call = Guarded(handler(), Unanswered())
            stop(tasks.start(Guarded(call, Unanswered())))
            await tasks.close()
            await asyncio.sleep(0)
            assert len(tasks) == 0

    with nothing_said():
        kit.run(main())


def test_one_that_is_refused_as_there_are_too_many_says_nothing(kit: Any) -> None:
    async def main() -> None:
        with pytest.raises(HeadraceError, match="Too many"):
            Tasks(limit=0).start(Guarded(handler(), Unanswered()))

    with nothing_said():
        kit.run(main())


def test_a_client_that_asks_and_leaves_in_one_breath_is_not_in_the_log(kit: Any) -> None:
    body = b'{"model": "minilm", "input": "hi"}'
    names = (
        (":method", "POST"),
        (":path", "/v1/embeddings"),
        (":scheme", "http"),
        (":authority", "h"),
    )
    said = H2Connection()
    said.initiate_connection()
    said.send_headers(1, [*names, ("content-type", "application/json")])
    said.send_data(1, body, end_stream=True)
    said.reset_stream(1)
    said.ping(b"thatsall")

    async def main() -> None:
        embedder = kit.Embedder()
        async with kit.serving(kit.Service(kit.hello), embedder=embedder) as url:
            address = urlsplit(url)
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(said.data_to_send())
            while not any(
                isinstance(e, PingAckReceived) for e in said.receive_data(await reader.read(4096))
            ):
                pass
            writer.close()

    with nothing_said():
        kit.run(main())
