"""Padding is bounded, and so are the shapes."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.scheduling.buckets import Buckets


@given(
    st.integers(1, 5000),
    st.floats(0.0, 0.9),
    st.integers(1, 64),
    st.floats(0.0, 1.0, exclude_max=True),
)
def test_padding_is_at_most_the_share_or_less_than_the_smallest(
    longest: int, waste: float, smallest: int, at: float
) -> None:
    count = 1 + int(at * longest)
    length = Buckets(longest, waste, smallest).length(count)
    assert count <= length <= longest
    assert length - count <= waste * length + 1e-6 or length <= smallest


def test_there_are_few_lengths() -> None:
    assert len(Buckets(8192, 0.25).lengths) <= math.log(8192 / 8, 4 / 3) + 2


def test_a_length_is_its_own_bucket() -> None:
    buckets = Buckets(512, 0.25)
    assert [buckets.length(length) for length in buckets.lengths] == list(buckets.lengths)


def test_what_is_longer_than_all_is_refused() -> None:
    with pytest.raises(ValueError, match="513 elements are more than 512"):
        Buckets(512, 0.25).length(513)


@pytest.mark.parametrize(("longest", "waste", "smallest"), [(0, 0.2, 1), (8, 1.0, 1), (8, 0.2, 0)])
def test_impossible_buckets_are_refused(longest: int, waste: float, smallest: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        Buckets(longest, waste, smallest)
