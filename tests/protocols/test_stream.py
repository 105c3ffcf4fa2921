"""A client's stream: when its head goes out, how it lags, how it ends."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Event
from headrace.domain.request import CANCEL, CONTINUE, Caller
from headrace.protocols.call import Call
from headrace.protocols.encoder import FRAMINGS
from headrace.protocols.formats import ENCODERS
from headrace.protocols.stream import HEARTBEAT_ROUNDS, ClientStream, OpenStreams
from headrace.protocols.terms import Terms


class RecordedExchange:
    """Keeps what is answered; ``room`` is how many more sends it takes before it says stop."""

    def __init__(self) -> None:
        self.head = SimpleNamespace(method="POST", path="/", query="", headers=(), known=None)
        self.body = b""
        self.on_gone: Any = None
        self.on_drain: Any = None
        self.gone = False
        self.calls: list[str] = []
        self.status = 0
        self.headers: dict[bytes, bytes] = {}
        self.sent = b""
        self.room = 1_000
        self.heartbeat = asyncio.Event()

    def respond(self, status: int, headers: Sequence[tuple[bytes, bytes]], body: bytes) -> None:
        self.calls.append("respond")
        self.status, self.headers, self.sent = status, dict(headers), body

    def start(self, status: int, headers: bytes) -> None:
        self.calls.append("start")
        lines = headers.split(b"\r\n")[:-1]
        self.status = status
        self.headers = dict(tuple(line.split(b": ", 1)) for line in lines)  # type: ignore[misc]

    def send(self, data: bytes) -> bool:
        self.calls.append("send")
        self.sent += data
        if data == b":\n":
            self.heartbeat.set()
        self.room -= 1
        return self.room > 0

    def end(self) -> None:
        self.calls.append("end")

    def abort(self) -> None:
        self.calls.append("abort")


class Scene:
    """A stream on a generation, in one format."""

    def __init__(
        self,
        kit: Any,
        wire: str = "openai-chat",
        *,
        leaving: Any = CANCEL,
        reading: bool = False,
        heartbeat_s: float = 15.0,
    ) -> None:
        self.streams = OpenStreams(heartbeat_s)
        self.generation = kit.Generation(kit.chat_request(), caller=Caller(leaving=leaving))
        self.exchange = RecordedExchange()
        encoder = ENCODERS[wire](self.generation, {}, FRAMINGS["sse"])
        self.stream = ClientStream(
            Call(self.exchange, Terms(self.exchange.head), "req_1", time.perf_counter()),
            self.generation,
            encoder,
            FRAMINGS["sse"],
            self.streams,
            reading=reading,
        )

    def attach(self) -> Scene:
        self.stream.attach()
        return self

    def write(self, *events: Event) -> None:
        self.generation.write(*events)


def test_the_head_comes_with_the_first_event_that_is_shown(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        scene.write(kit.progress(1))
        assert scene.exchange.calls == []

        scene.write(kit.token(2, "a"))

        assert scene.exchange.calls[0] == "start"
        assert scene.exchange.sent.startswith(b"retry: 5000\ndata: {")
        assert scene.exchange.headers[b"content-type"] == b"text/event-stream; charset=utf-8"
        assert scene.exchange.headers[b"cache-control"] == b"no-cache"
        assert scene.exchange.headers[b"x-accel-buffering"] == b"no"
        assert scene.exchange.headers[b"x-generation-id"] == scene.generation.id.encode()
        assert b"x-request-id" in scene.exchange.headers

    kit.run(main())


def test_a_generation_that_outlives_its_client_is_named_at_its_first_event(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit, leaving=CONTINUE).attach()

        scene.write(kit.progress(1))

        assert scene.exchange.calls == ["start", "send"]
        assert scene.exchange.sent == b"retry: 5000\n"

    kit.run(main())


@pytest.mark.parametrize("leaving", [CANCEL, CONTINUE])
@pytest.mark.parametrize("together", [True, False])
def test_an_error_that_comes_first_is_an_http_status(
    kit: Any, leaving: Any, together: bool
) -> None:
    async def main() -> None:
        scene = Scene(kit, leaving=leaving).attach()
        events = [kit.progress(1), kit.error(2, "queue_timeout", "Too long.")]
        if together:
            scene.write(*events)
        elif leaving is CANCEL:
            for event in events:
                scene.write(event)
        else:
            scene.write(events[1])

        assert scene.exchange.calls == ["respond"]
        assert scene.exchange.status == 408
        assert b'"code":"queue_timeout"' in scene.exchange.sent
        assert scene.exchange.headers[b"x-should-retry"] == b"true"
        assert len(scene.streams) == 0

    kit.run(main())


def test_an_error_after_a_token_is_said_in_the_stream(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        scene.write(kit.token(1, "a"), kit.error(2))

        assert scene.exchange.status == 200
        assert b'data: {"error":{' in scene.exchange.sent
        assert b"[DONE]" not in scene.exchange.sent
        assert scene.exchange.calls[-1] == "end"

    kit.run(main())


def test_reading_a_failed_log_shows_its_error_as_an_event(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit, "native", reading=True)
        scene.write(kit.error(1))
        scene.attach()

        assert scene.exchange.status == 200
        assert b"event: error\n" in scene.exchange.sent

    kit.run(main())


def test_a_log_being_read_has_its_head_at_once(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit, "native", reading=True).attach()

        assert scene.exchange.calls == ["start", "send"]
        assert scene.generation.clients == 0

    kit.run(main())


def test_one_batch_of_events_is_one_write(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        scene.write(kit.token(1, "a"))
        before = scene.exchange.calls.count("send")
        scene.write(*[kit.token(seq, "b") for seq in range(2, 50)])

        assert scene.exchange.calls.count("send") == before + 1

    kit.run(main())


def test_a_lagging_client_gets_nothing_until_it_drained_then_everything_once(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        scene.write(kit.token(1, "a"))
        scene.exchange.room = 1
        scene.write(kit.token(2, "b"))
        sent = scene.exchange.sent
        scene.write(kit.token(3, "c"))
        scene.write(kit.finish(4))
        assert scene.exchange.sent == sent

        scene.exchange.room = 1_000
        scene.exchange.on_drain()
        scene.exchange.on_drain()

        assert scene.exchange.sent.count(b'"content":"c"') == 1
        assert scene.exchange.sent.endswith(b"data: [DONE]\n\n")
        assert scene.exchange.calls[-1] == "end"

    kit.run(main())


def test_leaving_closes_the_subscription_and_nothing_is_sent_after(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        scene.write(kit.token(1, "a"))
        assert scene.generation.clients == 1
        calls = list(scene.exchange.calls)

        scene.exchange.on_gone()
        scene.write(kit.token(2, "b"))

        assert scene.generation.clients == 0
        assert scene.exchange.calls == calls
        assert len(scene.streams) == 0

    kit.run(main())


def test_a_client_that_left_before_its_stream_began_counts_as_left(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit)
        scene.exchange.gone = True
        scene.attach()

        assert scene.generation.left.is_set()
        assert len(scene.streams) == 0

    kit.run(main())


@pytest.mark.parametrize("started", [True, False])
def test_a_log_that_is_lost_ends_the_stream_with_the_reason(kit: Any, started: bool) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        if started:
            scene.write(kit.token(1, "a"))
        scene.generation.lose(HeadraceError(Code.CURSOR_GONE, "Dropped by age."))

        assert scene.exchange.status == (200 if started else 410)
        assert b'"code":"cursor_gone"' in scene.exchange.sent
        assert scene.exchange.calls[-1] == ("end" if started else "respond")

    kit.run(main())


def test_a_silent_stream_gets_its_head_and_a_comment(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        for _ in range(HEARTBEAT_ROUNDS - 1):
            scene.stream.sweep()
        assert scene.exchange.calls == []

        scene.stream.sweep()
        assert scene.exchange.sent == b"retry: 5000\n:\n"
        scene.write(kit.token(1, "a"))
        for _ in range(HEARTBEAT_ROUNDS):
            scene.stream.sweep()
        assert scene.exchange.sent.endswith(b"\n\n:\n")

    kit.run(main())


def test_a_stream_that_is_not_silent_or_lags_gets_no_comment(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        for seq in range(1, 9):
            scene.write(kit.token(seq, "a"))
            scene.stream.sweep()
        scene.exchange.room = 1
        scene.write(kit.token(9, "a"))
        for _ in range(2 * HEARTBEAT_ROUNDS):
            scene.stream.sweep()

        assert b"\n:\n" not in scene.exchange.sent

    kit.run(main())


def test_silent_streams_are_swept_by_themselves(kit: Any) -> None:
    async def main() -> None:
        scene = Scene(kit, heartbeat_s=0.003).attach()

        await scene.exchange.heartbeat.wait()

        assert scene.exchange.sent == b"retry: 5000\n:\n"
        scene.write(kit.finish(1))
        assert len(scene.streams) == 0

    kit.run(main())


@pytest.mark.parametrize("end", ["finish", "error", "gone", "already ended"])
def test_a_stream_that_ended_is_freed_without_the_garbage_collector(kit: Any, end: str) -> None:
    async def main() -> None:
        scene = Scene(kit)
        if end == "already ended":
            scene.write(kit.finish(1))
        scene.attach()
        if end == "gone":
            scene.exchange.on_gone()
        elif end != "already ended":
            scene.write(kit.finish(1) if end == "finish" else kit.error(1))
        scene.exchange.on_gone = scene.exchange.on_drain = None  # as every front does
        call = weakref.ref(scene.exchange)
        del scene
        assert call() is None

    gc.disable()
    try:
        kit.run(main())
    finally:
        gc.enable()


def test_what_cannot_be_encoded_breaks_the_connection_instead_of_hanging_it(
    kit: Any, caplog: pytest.LogCaptureFixture
) -> None:
    async def main() -> None:
        scene = Scene(kit).attach()
        scene.write(kit.token(1, "a"))
        scene.write(kit.token(2, "\ud800"))

        assert scene.exchange.calls[-1] == "abort"
        assert len(scene.streams) == 0

    kit.run(main())
    assert len(caplog.records) == 1
