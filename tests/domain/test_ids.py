"""Ids carry one ULID under any prefix."""

from __future__ import annotations

import pytest

from headrace.domain.ids import find_ulid, ulid


def test_a_ulid_has_26_characters_and_sorts_by_time() -> None:
    early, late = ulid(1000.0), ulid(1000.001)
    assert len(early) == len(late) == 26
    assert early < late


def test_a_ulid_is_its_time_and_its_entropy() -> None:
    # The example of the ULID specification has the time 1469918176385 ms as 01ARYZ6S41.
    made = ulid(1469918176.385, lambda n: b"\xff" * n)
    assert made == "01ARYZ6S41" + "Z" * 16


@pytest.mark.parametrize("prefix", ["gen_", "chatcmpl-", "cmpl-", "resp_", "msg_"])
def test_every_prefix_finds_the_same_log(prefix: str) -> None:
    made = ulid(1.0)
    assert find_ulid(prefix + made) == made


@pytest.mark.parametrize("foreign", ["", "gen_", "gen_short", "x" * 26, "gen_" + "!" * 26])
def test_anything_else_finds_none(foreign: str) -> None:
    assert find_ulid(foreign) is None
