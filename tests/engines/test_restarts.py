from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from headrace.engines.restarts import GiveUp, Restart, RestartPolicy, RestartRules

RULES = RestartRules(first_s=1, factor=2, longest_s=8, limit=5, window_s=100, forget_s=60)


def test_pauses_grow_up_to_the_longest():
    policy = RestartPolicy(RestartRules(first_s=1, factor=2, longest_s=8, limit=9, window_s=100))
    assert [policy.died(at, 0) for at in range(6)] == [Restart(s) for s in (1, 2, 4, 8, 8, 8)]


def test_a_process_that_dies_too_often_is_given_up():
    policy = RestartPolicy(RULES)
    decisions = [policy.died(at, 0) for at in range(6)]
    assert all(isinstance(one, Restart) for one in decisions[:5])
    assert isinstance(decisions[5], GiveUp)
    assert "6 times within 100 s" in decisions[5].reason


def test_deaths_long_ago_are_forgotten():
    policy = RestartPolicy(RULES)
    assert all(isinstance(policy.died(at * 30.0, 1), Restart) for at in range(40))


def test_a_long_life_starts_the_pauses_anew():
    policy = RestartPolicy(RULES)
    policy.died(0, 0)
    policy.died(1, 0)
    assert policy.died(200, 60) == Restart(1)


@given(st.lists(st.tuples(st.floats(0, 50), st.floats(0, 100)), max_size=50))
def test_it_never_pauses_longer_than_it_may_and_gives_up_only_in_a_loop(deaths):
    policy = RestartPolicy(RULES)
    now, times = 0.0, []
    for after, lived in deaths:
        now += after
        times.append(now)
        decision = policy.died(now, lived)
        recent = sum(now - at < RULES.window_s for at in times)
        assert isinstance(decision, GiveUp) == (recent > RULES.limit)
        assert isinstance(decision, GiveUp) or RULES.first_s <= decision.after_s <= RULES.longest_s
