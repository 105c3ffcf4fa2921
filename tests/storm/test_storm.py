"""Nothing is left of clients that leave all at once. Ten storms of 1,000 are ``make storm-test``."""

from __future__ import annotations

from tests.storm.storms import storms


def test_nothing_is_left_of_a_storm_of_disconnects() -> None:
    found, _ = storms(count=2, clients=200)
    assert found == []
