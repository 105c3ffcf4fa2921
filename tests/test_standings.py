"""How requests for tensors and embeddings stand in their queue: by the same terms and headers as generations."""

from __future__ import annotations

import math
from typing import Any

import pytest

from headrace.domain.request import Caller, Urgency
from headrace.domain.standing import Standing
from headrace.domain.tenant import Tenant
from headrace.standings import Standings


def standing(urgency: Urgency | None = None, priority: int = 0, **terms: Any) -> Standing:
    tenant = Tenant(name="shop", **terms)
    return Standings(lambda name: tenant).of(Caller("shop", urgency=urgency), priority, 100.0)


def test_the_usual_tenant_has_the_usual_standing() -> None:
    assert standing() == Standing()


def test_a_level_is_a_minute_of_arrival() -> None:
    assert [standing(level=one).priority for one in ("interactive", "standard", "batch")] == [
        -6,
        0,
        6,
    ]
    assert standing(priority=2, level="batch").priority == 8


def test_no_request_is_above_its_tenant_and_one_may_be_below() -> None:
    assert standing(Urgency(level="interactive"), level="standard").priority == 0
    assert standing(Urgency(level="batch"), level="interactive").priority == 6
    assert standing(Urgency(spare=True), level="interactive").priority == 6


def test_what_becomes_of_it_in_a_full_queue_is_its_tenants_choice() -> None:
    found = standing(overflow="shed", sheddable=True)
    assert (found.overflow, found.sheddable) == ("shed", True)


@pytest.mark.parametrize(
    ("terms", "urgency", "deadline"),
    [
        ({"sheddable": True, "ttft_ms": 500}, None, 100.5),
        ({"sheddable": True, "ttft_ms": 500}, Urgency(ttft_s=2.0), 102.0),
        ({"sheddable": True}, Urgency(ttft_s=2.0), 102.0),
        ({"sheddable": True}, None, math.inf),
        ({"ttft_ms": 500}, Urgency(ttft_s=2.0), math.inf),
    ],
)
def test_only_who_may_be_shed_is_refused_for_its_target(
    terms: dict[str, Any], urgency: Urgency | None, deadline: float
) -> None:
    assert standing(urgency, **terms).deadline == deadline
