from __future__ import annotations

import pytest

from headrace.domain.event import Usage
from headrace.telemetry.attainment import OTHER
from headrace.telemetry.metrics import MODEL_LABELS, Metrics


def test_a_model_has_one_set_of_counters() -> None:
    metrics = Metrics()
    metrics.model("a").of("chat").admitted_count += 1
    metrics.model("a").of("chat").admitted_count += 1
    metrics.model("b").of("chat").admitted_count += 1
    assert (metrics.model("a").admitted_count, metrics.model("b").admitted_count) == (2, 1)


def test_models_beyond_the_label_cap_count_as_other() -> None:
    metrics = Metrics()
    for number in range(MODEL_LABELS + 50):
        metrics.model(f"m{number}").of("chat").admitted_count += 1
    assert len(metrics.models) == MODEL_LABELS + 1
    assert metrics.model(OTHER).admitted_count == 50
    assert metrics.model("m0").admitted_count == 1


def test_tokens_that_come_together_share_the_gap_before_them() -> None:
    chat = Metrics().model("a").of("chat")
    chat.tokens(4, 0.2)
    assert chat.gap.count == 4
    assert chat.gap.total_s == pytest.approx(0.2)
    assert chat.gap.quantile(1.0) == 0.05


def test_usage_is_counted_when_a_generation_ends_well() -> None:
    model = Metrics().model("a")
    model.of("chat").finished("stop", 1.5, Usage(10, 20, 4))
    model.of("text_completion").finished("length", 0.5, Usage(1, 2))
    assert (model.prompt_tokens, model.generation_tokens, model.cached_tokens) == (11, 22, 4)
    assert model.reasons == {"stop": 1, "length": 1}
    assert model.e2e.count == 2


def test_a_failed_generation_counts_its_code_and_its_tokens() -> None:
    metrics = Metrics(now=lambda: 17.5)
    metrics.model("a").of("chat").failed("engine_failed", "it died", 7)
    metrics.refused("invalid_json", "line 1")
    assert metrics.errors == {("a", "engine_failed"): 1, ("", "invalid_json"): 1}
    assert metrics.model("a").generation_tokens == 7
    assert metrics.last_error == ("invalid_json", "line 1", 17.5)


def test_a_number_nobody_defined_cannot_be_watched() -> None:
    metrics = Metrics()
    with pytest.raises(KeyError):
        metrics.watch("wishes", lambda: 1)
    with pytest.raises(KeyError):
        metrics.model("a").watch("readers", lambda: 1)
    with pytest.raises(KeyError):
        metrics.model("a").watch_replica("running", "r", lambda: 1)
