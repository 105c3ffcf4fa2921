"""Who is let in, with how much, and what those who are not are told."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.admission.day import DAY_S, DayBudgets
from headrace.admission.limiter import MAX_PLANS, Limiter, Rules
from headrace.admission.plan import Plan, Reservation
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.limits import Limits
from headrace.domain.request import Cap

NOON = 20_000 * DAY_S + 43_200
NOW = 1000.0


def limiter(tenant: Limits | None = None, **rules: Any) -> Limiter:
    tenants = {"a": tenant} if tenant is not None else {}
    made = Limiter(DayBudgets())
    made.replace(Rules(tenants=tenants, **rules))
    return made


def plan(of: Limiter, tenant: str = "a", key_id: str = "", model: str = "m") -> Plan:
    found = of.plan(tenant, key_id, model, NOW)
    assert found is not None
    return found


def enter(
    of: Limiter | Plan,
    prompt: int = 10,
    output: int = 100,
    *,
    choices: int = 1,
    now: float = NOW,
    wall: float = NOON,
    id: str = "gen_1",
) -> Reservation:
    one = plan(of) if isinstance(of, Limiter) else of
    return one.reserve(id, None, prompt, output, choices, now, wall)


def refusal(of: Limiter | Plan, prompt: int = 10, output: int = 100, **more: Any) -> HeadraceError:
    with pytest.raises(HeadraceError) as refused:
        enter(of, prompt, output, **more)
    return refused.value


def test_who_has_no_limits_has_no_plan() -> None:
    assert limiter(Limits(tokens_per_minute=5)).plan("b", "", "m", NOW) is None
    assert limiter(Limits()).plan("a", "", "m", NOW) is None


def test_a_request_without_an_answer_counts_as_one_and_needs_no_tokens() -> None:
    one = limiter(Limits(requests_per_minute=3, tokens_per_minute=60, concurrent=1))
    enter(one, prompt=10, output=50).settle(100, NOW)
    assert refusal(one).code is Code.RATE_LIMITED, "tokens are owed"
    for _ in range(2):
        plan(one).take_request(NOW, NOON)
    with pytest.raises(HeadraceError) as refused:
        plan(one).take_request(NOW, NOON)
    assert refused.value.code is Code.RATE_LIMITED
    assert refused.value.retry_after_s == pytest.approx(20.0)
    allowance = refused.value.allowance
    assert allowance is not None
    assert allowance.requests is not None
    assert allowance.requests.remaining == 0


def test_requests_are_counted_and_the_next_one_is_told_when() -> None:
    one = limiter(Limits(requests_per_minute=3))
    for _ in range(3):
        enter(one)
    error = refusal(one)
    assert error.code is Code.RATE_LIMITED
    assert error.retry_after_s == pytest.approx(20.0)
    assert "requests_per_minute of tenant a (3)" in error.message
    enter(one, now=NOW + 20.001)
    assert refusal(one, now=NOW + 20.001).retry_after_s == pytest.approx(20, abs=0.01)


def test_a_refusal_says_what_is_left_and_never_counts_seconds_in_powers_of_ten() -> None:
    one = limiter(Limits(tokens_per_day=1000))
    enter(one, prompt=10, output=490)
    some = refusal(one, prompt=100, output=600).message
    assert "tokens_per_day of tenant a (1000) has 500 left, and this may need 612;" in some
    assert "in 43200 s." in some
    enter(one, prompt=10, output=490, id="gen_2")
    assert "tokens_per_day of tenant a (1000) is used up; " in refusal(one).message
    many = limiter(Limits(concurrent=2))
    enter(many)
    enter(many)
    assert refusal(many).message.startswith("2 generations run or wait for tenant a already")


def test_a_refused_request_costs_nothing() -> None:
    one = limiter(Limits(requests_per_minute=100, tokens_per_minute=200, concurrent=100))
    enter(one, 10, 190)
    for _ in range(20):
        refusal(one)
    allowance = plan(one).allowance(NOW, NOON)
    assert allowance.requests is not None
    assert allowance.requests.remaining == 99


def test_tokens_are_reserved_and_what_is_not_used_comes_back() -> None:
    one = limiter(Limits(tokens_per_minute=1000))
    reservation = enter(one, 100, 500)
    assert (reservation.prompt, reservation.output, reservation.cap) == (100, 500, None)
    allowance = reservation.allowance(NOW, NOON)
    assert allowance.tokens is not None
    assert (allowance.tokens.limit, allowance.tokens.remaining) == (1000, 400)
    assert allowance.tokens.reset_s == pytest.approx(36.0)
    reservation.settle(130, NOW)
    reservation.settle(0, NOW)  # only once
    again = plan(one).allowance(NOW, NOON).tokens
    assert again is not None
    assert again.remaining == 870


def test_who_finds_less_than_it_asked_for_gets_what_there_is() -> None:
    one = limiter(Limits(tokens_per_minute=3000))
    enter(one, 100, 1400)
    reservation = enter(one, 100, 2000, choices=2)
    assert reservation.output == 1400
    assert reservation.cap == Cap(700, "tenant.tokens_per_minute")


def test_an_answer_of_less_than_the_usual_length_is_not_begun() -> None:
    one = limiter(Limits(tokens_per_minute=3000))
    enter(one, 100, 2800)
    error = refusal(one, 10, 2000)  # 100 are left
    usual = plan(one).estimates.likely
    assert error.retry_after_s == pytest.approx((10 + usual - 100) / 50, abs=0.001)
    assert enter(one, 10, 90).cap is None  # who wants no more than that may begin


def test_a_budget_that_cannot_have_that_must_be_full() -> None:
    one = limiter(Limits(tokens_per_minute=300))
    assert enter(one, 10, 4000).output == 290
    assert refusal(one, 10, 4000).retry_after_s == pytest.approx(60.0, abs=0.001)


def test_a_request_that_no_waiting_helps_is_told_so() -> None:
    one = limiter(Limits(tokens_per_minute=300))
    error = refusal(one, 300, 10)
    assert error.code is Code.REQUEST_TOO_LARGE
    assert error.retry_after_s is None
    assert not error.meaning.retryable
    assert enter(one, 299, 10).output == 1


def test_the_burst_is_what_may_be_used_at_once() -> None:
    one = limiter(Limits(requests_per_minute=60, burst_s=5.0))
    for _ in range(5):
        enter(one)
    assert refusal(one).retry_after_s == pytest.approx(1.0)


def test_so_many_run_at_once() -> None:
    one = limiter(Limits(concurrent=2))
    first, _ = enter(one), enter(one)
    error = refusal(one)
    assert error.code is Code.CONCURRENCY_LIMIT
    assert error.retry_after_s is not None
    assert error.retry_after_s > 0
    first.settle(0, NOW + 3)
    enter(one)


def test_a_day_is_counted_to_its_end() -> None:
    one = limiter(Limits(tokens_per_day=1000))
    enter(one, 100, 900)
    error = refusal(one)
    assert error.retry_after_s == pytest.approx(43_200)
    enter(one, wall=NOON + 43_200)


def test_all_limits_hold_and_the_tightest_is_told() -> None:
    one = limiter(
        Limits(tokens_per_minute=10_000, requests_per_minute=50),
        keys={"k": Limits(tokens_per_minute=5000, requests_per_minute=100)},
        models={"m": Limits(tokens_per_minute=4000)},
        tenant_models={("a", "m"): Limits(tokens_per_day=3000)},
    )
    mine = plan(one, key_id="k")
    reservation = enter(mine, 100, 9000)
    assert reservation.output == 2900
    assert reservation.cap is not None
    assert reservation.cap.by == "tenant_model.tokens_per_day"
    left = reservation.allowance(NOW, NOON)
    assert left.tokens is not None
    assert left.requests is not None
    assert left.tokens.limit == 3000
    assert left.requests.limit == 50
    # What it took is gone for all others whom the same limits hold for, and for them alone.
    for other, remaining in ((plan(one), 0), (plan(one, tenant="b"), 1000)):
        tokens = other.allowance(NOW, NOON).tokens
        assert tokens is not None
        assert tokens.remaining == remaining


def test_the_slowest_pace_counts() -> None:
    one = limiter(Limits(pace=20.0), keys={"k": Limits(pace=5.0)})
    assert plan(one).pace == 20.0
    assert plan(one, key_id="k").pace == 5.0


def test_other_limits_hold_at_once_for_who_comes_and_whoever_is_in_settles_as_before() -> None:
    one = limiter(Limits(tokens_per_minute=1000, concurrent=1))
    running = enter(one, 100, 500)
    one.replace(Rules(tenants={"a": Limits(tokens_per_minute=2000, concurrent=2)}))
    another = enter(one, 100, 1300)
    assert another.cap is None  # 1,000 more, and 600 used
    assert refusal(one).code is Code.CONCURRENCY_LIMIT
    running.settle(150, NOW)
    another.settle(50, NOW)
    tokens = plan(one).allowance(NOW, NOON).tokens
    assert tokens is not None
    assert tokens.remaining == 1800
    one.replace(Rules())
    assert one.plan("a", "", "m", NOW) is None
    one.replace(Rules(tenants={"a": Limits(tokens_per_minute=500)}))
    tokens = plan(one).allowance(NOW, NOON).tokens
    assert tokens is not None
    assert tokens.remaining == 500


def test_a_prompt_in_mid_stream_is_taken_too() -> None:
    one = limiter(Limits(tokens_per_minute=1000, tokens_per_day=5000))
    reservation = enter(one, 100, 500)
    reservation.add_prompt(300, NOW, NOON)
    with pytest.raises(HeadraceError) as refused:
        reservation.add_prompt(200, NOW, NOON)
    assert refused.value.code is Code.RATE_LIMITED
    with pytest.raises(HeadraceError) as refused:
        reservation.add_prompt(1001, NOW, NOON)
    assert refused.value.code is Code.REQUEST_TOO_LARGE
    reservation.settle(450, NOW)
    tokens = plan(one).allowance(NOW, NOON).tokens
    assert tokens is not None
    assert tokens.remaining == 550


def test_buckets_and_plans_are_bounded() -> None:
    limits = Limits(requests_per_minute=60, tokens_per_day=1000, concurrent=5)
    keys = {f"k{number}": limits for number in range(MAX_PLANS + 100)}
    one = limiter(keys=keys)
    used = [plan(one, key_id=f"k{number}") for number in range(100)]
    for number, each in enumerate(used):
        enter(each, id=f"gen_{number}")
    for number in range(100, MAX_PLANS + 100):
        one.plan("a", f"k{number}", "m", NOW + 0.5)
        known = len(one._buckets), len(one._gates), len(one._days), len(one._plans)
        assert sum(known) < 4096
    left = plan(one, key_id="k7").allowance(NOW + 0.5, NOON)
    assert left.requests is not None
    assert left.tokens is not None
    # None that was used is forgotten before it is as new.
    assert (left.requests.remaining, left.tokens.remaining) == (59, 890)


@given(
    st.builds(
        Limits,
        requests_per_minute=st.none() | st.integers(1, 10_000),
        tokens_per_minute=st.none() | st.integers(60, 10**7),
        tokens_per_day=st.none() | st.integers(60, 10**9),
    ),
    st.lists(st.tuples(st.integers(0, 10_000), st.integers(1, 10_000)), max_size=60),
    st.integers(0, 2000),
    st.integers(1, 5000),
)
def test_a_retry_at_the_time_that_was_told_passes_and_one_percent_earlier_does_not(
    limits: Limits, before: list[tuple[int, int]], prompt: int, output: int
) -> None:
    one = limiter(limits)
    if one.plan("a", "", "m", NOW) is None:
        return
    for at, (asked, wanted) in enumerate(before):
        try:
            enter(one, asked, wanted, id=f"gen_{at}")
        except HeadraceError:
            break
    try:
        enter(one, prompt, output)
    except HeadraceError as error:
        if error.code is Code.REQUEST_TOO_LARGE:
            return
        wait_s = error.retry_after_s
        assert wait_s is not None
    else:
        return
    if wait_s > 0.01:
        early = wait_s * 0.99
        refusal(one, prompt, output, now=NOW + early, wall=NOON + early)
    enter(one, prompt, output, now=NOW + wait_s, wall=NOON + wait_s)
