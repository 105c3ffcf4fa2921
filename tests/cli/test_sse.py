"""Messages of a stream, and nothing of a torn one."""

from __future__ import annotations

from headrace.cli.sse import Message, messages


def read(data: bytes) -> list[Message]:
    return list(messages(data.splitlines(keepends=True)))


def test_a_message_has_its_data_and_its_own_id_only() -> None:
    assert read(b"id: 1\ndata: a\n\ndata: b\n\n") == [Message("a", "1"), Message("b", None)]


def test_several_data_lines_are_one_text() -> None:
    assert read(b"data: a\ndata:b\ndata\n\n") == [Message("a\nb\n")]


def test_comments_retries_and_events_without_data_are_passed_over() -> None:
    assert read(b": hi\n\nretry: 5000\n\nid: 3\n\nevent: x\r\ndata: a\r\n\r\n") == [Message("a")]


def test_a_torn_message_is_dropped() -> None:
    for torn in (b"id: 2\ndata: b", b"id: 2\ndata: b\n", b"id: 2\ndata: b\n\r"):
        assert read(b"id: 1\ndata: a\n\n" + torn) == [Message("a", "1")]
