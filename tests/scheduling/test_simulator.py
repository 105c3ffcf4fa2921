"""The simulator of benchmarks/scheduling: its engine model serves everything once, within its memory."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip(
    "benchmarks.scheduling", reason="benchmarks are not part of a source distribution"
)

from benchmarks.scheduling import a10g
from benchmarks.scheduling.arrival import Arrival
from benchmarks.scheduling.contenders import CONTENDERS, Contender
from benchmarks.scheduling.engine import Engine, Simulation
from benchmarks.scheduling.load import at_load, capacity_s
from benchmarks.scheduling.outcome import outcome
from benchmarks.scheduling.prefix_cache import PrefixCache

from headrace.scheduling.fcfs import Fcfs
from headrace.scheduling.policies import policy
from headrace.scheduling.policy import Ticket

DATA = Path(__file__).parents[3] / "shared/data"

ENGINE = Engine(
    name="small",
    pool_tokens=1_000,
    prefill_tokens=200,
    admit_every=2,
    prefill_s=0.01,
    prefill_token_s=0.001,
    step_s=0.1,
    step_sequence_s=0.0,
    step_held_s=0.0,
)


def arrivals(count: int) -> list[Arrival]:
    return [
        Arrival(
            at=0.05 * number,
            tenant=str(number % 5),
            prompt_tokens=10 + 37 * number % 150,
            output_tokens=1 + 13 * number % 90,
            target_s=5.0,
        )
        for number in range(count)
    ]


class Watched(Fcfs):
    """Knows how many tokens are held, as far as it was told."""

    def __init__(self) -> None:
        super().__init__()
        self.held: dict[str, int] = {}
        self.most = 0

    def began(self, ticket: Ticket, now: float) -> None:
        self.held[ticket.id] = ticket.prompt_tokens
        super().began(ticket, now)

    def produced(self, ticket: Ticket, tokens: int, now: float) -> None:
        self.held[ticket.id] += tokens
        self.most = max(self.most, sum(self.held.values()))
        super().produced(ticket, tokens, now)

    def ended(self, ticket: Ticket, now: float) -> None:
        del self.held[ticket.id]
        super().ended(ticket, now)


@pytest.mark.parametrize("contender", CONTENDERS, ids=lambda contender: contender.name)
def test_every_policy_serves_every_request_once(contender: Contender) -> None:
    given = arrivals(200)
    served = contender.run(ENGINE, given)
    assert [one.arrival for one in served] == given
    assert all(one.arrival.at < one.first_token_at <= one.ended_at for one in served)


def test_a_request_alone_takes_its_prefill_and_one_step_per_further_token() -> None:
    alone = Arrival(at=3.0, tenant="a", prompt_tokens=100, output_tokens=11)
    (served,) = Simulation(ENGINE, policy("fcfs")).run([alone])
    assert served.first_token_s == pytest.approx(0.01 + 100 * 0.001)
    assert served.ended_at - served.first_token_at == pytest.approx(10 * 0.1)


def test_requests_that_would_not_fit_together_to_their_ends_run_one_after_the_other() -> None:
    large = Arrival(at=0.0, tenant="a", prompt_tokens=450, output_tokens=100)
    early, late = Simulation(ENGINE, policy("fcfs")).run([large, large])
    assert late.first_token_at > early.ended_at


def test_memory_is_used_and_never_more_than_there_is() -> None:
    watched = Watched()
    Simulation(ENGINE, watched).run(arrivals(200))
    assert 0.8 * ENGINE.pool_tokens < watched.most <= ENGINE.pool_tokens
    assert not watched.held


def test_a_cached_prefix_needs_no_prefill() -> None:
    cache = PrefixCache(limit=3)
    assert cache.cached_tokens((1, 2), 1_000) == 0
    cache.use((1, 2))
    assert cache.cached_tokens((1, 2, 3), 1_500) == 1_024
    assert cache.cached_tokens((1, 2), 1_024) == 1_023
    assert cache.cached_tokens((2,), 512) == 511
    cache.use((7, 8))
    assert cache.cached_tokens((1, 2), 1_024) == 512


def test_load_is_measured_in_what_the_engine_can_serve() -> None:
    given = arrivals(200)
    needed_s = capacity_s(given, ENGINE)
    assert at_load(given, needed_s, 2.0)[-1].at == pytest.approx(needed_s / 2)


def test_the_model_agrees_with_the_gpu() -> None:
    if not DATA.exists():
        pytest.skip("the traces are not here")
    assert a10g.check(DATA)


def test_fair_headroom_keeps_more_promises_than_its_peers() -> None:
    if not DATA.exists():
        pytest.skip("the traces are not here")
    trace = a10g.trace(DATA)
    ours, vtc, las = (
        outcome(contender.run(a10g.A10G, trace))
        for name in ("fair-headroom", "fair", "las")
        for contender in CONTENDERS
        if contender.name == name
    )
    assert ours.attainment >= max(vtc.attainment, las.attainment) + 0.10
    assert ours.tenants_mean >= max(vtc.tenants_mean, las.tenants_mean)
    assert ours.longest_s <= 1.25 * vtc.longest_s
    assert ours.throughput >= 0.99 * vtc.throughput
