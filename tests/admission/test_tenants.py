"""The directory of tenants."""

from __future__ import annotations

import pytest

from headrace.admission.tenants import Tenants
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tenant import Tenant


def test_default_is_always_there_and_may_have_terms() -> None:
    tenants = Tenants()
    assert [tenant.name for tenant in tenants] == ["default"]
    tenants.replace([Tenant(name="default", weight=2.0)])
    assert tenants.find("default").weight == 2.0


def test_the_later_of_two_counts_and_all_are_replaced_at_once() -> None:
    tenants = Tenants()
    tenants.replace([Tenant(name="a"), Tenant(name="a", weight=3.0), Tenant(name="b")])
    assert tenants.find("a").weight == 3.0
    tenants.replace([Tenant(name="b")])
    with pytest.raises(HeadraceError) as gone:
        tenants.find("a")
    assert gone.value.code is Code.NOT_FOUND


def test_a_generation_outlives_its_tenant() -> None:
    assert Tenants().of("gone") == Tenant(name="gone")


def test_targets_are_told_in_milliseconds_and_used_in_seconds() -> None:
    tenant = Tenant(name="a", ttft_ms=250)
    assert (tenant.ttft_s, tenant.tpot_s) == (0.25, None)
