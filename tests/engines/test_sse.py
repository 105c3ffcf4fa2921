from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.sse import MAX_EVENT_BYTES, SseEvent, SseParser

PIECES = st.sampled_from(
    [
        *[b"data: a\n\n", b"data:b\r\n\r\n", b"data: c\r\r", b"data\n\n", b": comment\n"],
        *[b"id: 7\n", b"id: \x00\n", b"event: token\n", b"retry: 5000\n", b"retry: x\n"],
        *[b"\n", b"\r", b"\r\n", b"data: ", b"\xef\xbb\xbf", b"\xef", b"\xff\x00", b"x", b":"],
        *[b" ", b"data: \xf0\x9f\x98\x80\n", b"data:  two\n"],
    ]
)
STREAMS = st.lists(PIECES, max_size=30).map(b"".join) | st.binary(max_size=80)


def by_the_standard(stream: bytes) -> list[SseEvent]:
    """The standard's own algorithm over a whole stream, line by line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[SseEvent] = []
    data, name, last_id = b"", b"", b""
    for line in text.split(b"\n")[:-1]:
        if not line:
            if data:
                events.append(SseEvent(name, data[:-1], last_id))
            data, name = b"", b""
        elif not line.startswith(b":"):
            field, _, value = line.partition(b":")
            value = value[1:] if value.startswith(b" ") else value
            if field == b"data":
                data += value + b"\n"
            elif field == b"event":
                name = value
            elif field == b"id" and b"\0" not in value:
                last_id = value
    return events


def cut(stream: bytes, places: list[int]) -> list[bytes]:
    at = sorted(place % (len(stream) + 1) for place in places)
    return [stream[a:b] for a, b in zip([0, *at], [*at, len(stream)], strict=True)]


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=12))
def test_any_cut_of_any_stream_gives_the_events_of_the_standard(
    stream: bytes, places: list[int]
) -> None:
    parser = SseParser()
    events = [event for piece in cut(stream, places) for event in parser.feed_events(piece)]
    assert events == by_the_standard(stream)


@given(STREAMS, st.lists(st.integers(0, 1000), max_size=12))
def test_payloads_alone_are_those_of_the_events(stream: bytes, places: list[int]) -> None:
    parser = SseParser()
    payloads = [payload for piece in cut(stream, places) for payload in parser.feed(piece)]
    assert payloads == [event.data for event in by_the_standard(stream)]


LINES = st.binary(max_size=20).map(lambda line: line.translate(None, b"\r\n"))


@given(st.lists(LINES, max_size=9))
def test_many_plain_events_in_one_read_come_out_as_one_list(payloads: list[bytes]) -> None:
    stream = b"".join(b"data: %b\n\n" % payload for payload in payloads)
    assert SseParser().feed(stream) == payloads


def test_an_event_is_dispatched_at_its_blank_line_without_waiting_for_the_next_byte() -> None:
    parser = SseParser()
    assert parser.feed(b"data: a\r\n\r") == [b"a"]
    assert parser.feed(b"\ndata: b\r\r") == [b"b"]


def test_ids_names_and_retry_are_kept() -> None:
    parser = SseParser()
    events = parser.feed_events(b"retry: 5000\nid: 41\nevent: token\ndata: x\n\ndata: y\n\n")
    assert events == [SseEvent(b"token", b"x", b"41"), SseEvent(b"", b"y", b"41")]
    assert (parser.last_id, parser.retry_ms) == (b"41", 5000)


@pytest.mark.parametrize("size", [MAX_EVENT_BYTES + 1, 16_384])
def test_an_event_over_the_bound_breaks_the_stream_however_it_arrives(size: int) -> None:
    parser = SseParser()
    pieces = [b"data: ", *[b"x" * size] * (MAX_EVENT_BYTES // size + 1), b"\n\n"]
    with pytest.raises(HeadraceError) as caught:
        [parser.feed(piece) for piece in pieces]
    assert caught.value.code is Code.ENGINE_FAILED


def test_a_large_event_in_small_pieces_arrives_whole() -> None:
    parser = SseParser()
    pieces = [b"data: ", *[b"x" * 100] * 10_000]
    assert [parser.feed(piece) for piece in pieces] == [[]] * len(pieces)
    assert parser.feed(b"\n\n") == [b"x" * 1_000_000]
