from __future__ import annotations

from headrace.telemetry.attainment import OTHER, TENANT_LABELS, Attainment
from headrace.telemetry.metrics import Metrics


def test_tenants_beyond_the_label_cap_count_as_other() -> None:
    attainment = Attainment()
    for _ in range(2):
        for number in range(TENANT_LABELS + 50):
            attainment.count(f"t{number}", "ttft", met=number % 2 == 0)
    assert len({tenant for tenant, _, _ in attainment.counts}) == TENANT_LABELS + 1
    assert attainment.counts[OTHER, "ttft", True] == 50
    assert attainment.counts["t0", "ttft", True] == 2


def test_a_models_attainment_is_that_of_all_its_operations() -> None:
    model = Metrics().model("m")
    model.of("chat").target("a", "ttft", True)
    model.of("text_completion").target("a", "ttft", True)
    model.of("chat").target("a", "tpot", False)
    assert model.attainment == {("a", "ttft", True): 2, ("a", "tpot", False): 1}
