"""Ids carry one ULID under any prefix."""

from __future__ import annotations

import pytest

from headrace.domain.ids import Ulids, find_ulid


def test_a_ulid_has_26_characters_and_sorts_by_time() -> None:
    ulids = Ulids()
    early, late = ulids.new(1000.0), ulids.new(1000.001)
    assert len(early) == len(late) == 26
    assert early < late


def test_a_ulid_is_its_time_and_its_entropy() -> None:
    # The example of the ULID specification has the time 1469918176385 ms as 01ARYZ6S41.
    made = Ulids(lambda n: b"\xff" * n).new(1469918176.385)
    assert made[:22] == "01ARYZ6S41" + "Z" * 12


@pytest.mark.parametrize("prefix", ["gen_", "chatcmpl-", "cmpl-", "resp_", "msg_"])
def test_every_prefix_finds_the_same_log(prefix: str) -> None:
    made = Ulids().new(1.0)
    assert find_ulid(prefix + made) == made


@pytest.mark.parametrize("foreign", ["", "gen_", "gen_short", "x" * 26, "gen_" + "!" * 26])
def test_anything_else_finds_none(foreign: str) -> None:
    assert find_ulid(foreign) is None


def test_ids_of_one_millisecond_differ_and_sort() -> None:
    ulids = Ulids()
    made = [ulids.new(7.0) for _ in range(5_000)]
    assert made == sorted(made)
    assert len(set(made)) == len(made)


def test_a_clock_that_goes_back_gives_no_id_twice() -> None:
    ulids = Ulids()
    made = [ulids.new(now) for now in (7.0, 7.001, 7.0, 7.001, 7.0)]
    assert len(set(made)) == len(made)
