"""Events as they are stored."""

from __future__ import annotations

import msgspec
import pytest

from headrace.domain.event import Error
from headrace.streams.encoded import decode_events, encode_run


@pytest.mark.parametrize("retry_after_s", [None, 6.25])
def test_an_error_is_read_as_it_was_stored(retry_after_s: float | None) -> None:
    error = Error(3, 1_795_346_282.5, "queue_full", "Shed.", True, retry_after_s)
    assert decode_events(bytes(encode_run([error])), 1) == [error]


def test_an_error_that_was_stored_before_it_said_when_to_come_again_is_read() -> None:
    old = msgspec.msgpack.encode(["e", 3, 1_795_346_282.5, "queue_full", "Shed.", True])
    assert decode_events(old, 1) == [Error(3, 1_795_346_282.5, "queue_full", "Shed.", True)]
