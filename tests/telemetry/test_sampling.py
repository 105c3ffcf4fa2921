from __future__ import annotations

import random

import pytest

from headrace.telemetry.sampling import Sampler


@pytest.mark.parametrize(
    ("name", "argument", "begins", "unsampled", "sampled"),
    [
        ("always_on", "", True, True, True),
        ("always_off", "", False, False, False),
        ("parentbased_always_on", "", True, False, True),
        ("parentbased_always_off", "", False, False, True),
        ("traceidratio", "0", False, False, False),
        ("traceidratio", "", True, True, True),
        ("parentbased_traceidratio", "0", False, False, True),
        ("parentbased_traceidratio", "1.0", True, False, True),
    ],
)
def test_who_decides(
    name: str, argument: str, begins: bool, unsampled: bool, sampled: bool
) -> None:
    sampler = Sampler.named(name, argument)
    trace = 0x0AF7651916CD43DDFFFFFFFFFFFFFFFF
    decided = [sampler.takes(trace, said) for said in (None, False, True)]
    assert decided == [begins, unsampled, sampled]


def test_a_share_is_taken_by_the_traces_own_number() -> None:
    sampler = Sampler.named("traceidratio", "0.01")
    numbers = random.Random(7)
    traces = [numbers.getrandbits(128) for _ in range(20_000)]
    assert 150 < sum(sampler.takes(trace, None) for trace in traces) < 250
    assert all(sampler.takes(trace, None) == (trace % 2**64 < 0.01 * 2**64) for trace in traces)


@pytest.mark.parametrize(("name", "argument"), [("often", ""), ("traceidratio", "2")])
def test_what_cannot_be_is_said(name: str, argument: str) -> None:
    with pytest.raises(ValueError, match="ratio"):
        Sampler.named(name, argument)
