from __future__ import annotations

import time
from email.utils import formatdate

import pytest

from headrace.engines.faults import retry_after_s

NOW = b"Sun, 06 Nov 1994 08:49:37 GMT"
LATER = b"Sun, 06 Nov 1994 08:50:07 GMT"


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({b"Retry-After": b"7"}, 7.0),
        ({b"retry-after": b"7", b"Retry-After-Ms": b"20"}, 0.02),
        ({b"Retry-After": LATER, b"Date": NOW}, 30.0),
        ({b"Retry-After": NOW, b"Date": LATER}, 0.0),
        ({b"Retry-After": NOW}, 0.0),
        ({b"Retry-After": LATER, b"Date": b"yesterday"}, 0.0),
        ({b"Retry-After": b"9" * 400}, 1e15 - 1),
        ({b"Retry-After": b"9" * 5000}, 1e15 - 1),
        ({b"Retry-After": b"soon"}, None),
        ({b"Retry-After": b"Sun, 99 Nov 999999 08:50:07 GMT"}, None),
        ({b"Retry-After": b"\xff"}, None),
    ],
)
def test_when_to_come_back_is_said_in_seconds_or_as_a_date(
    headers: dict[bytes, bytes], seconds: float | None
) -> None:
    assert retry_after_s(headers) == seconds


def test_a_date_is_by_our_clock_where_the_other_does_not_say_its_own() -> None:
    said = formatdate(time.time() + 3600, usegmt=True).encode()
    found = retry_after_s({b"retry-after": said})
    assert found is not None
    assert 3500 < found <= 3600
