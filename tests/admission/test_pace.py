"""A pace: when the next tokens may be shown."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.admission.pace import MAX_HELD, SLACK_S, Pace, Paced
from headrace.domain.delta import Delta, Outcome
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage

OUTCOME = Outcome(("stop",), Usage(1, 10))


class Shown:
    """A sink that keeps what it gets."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.outcome: Outcome | None = None
        self.error: HeadraceError | None = None

    def deltas(self, deltas: list[Delta]) -> None:
        self.texts += [delta.text for delta in deltas]

    def prefill(self, done: int, total: int) -> None:
        self.texts.append(f"{done}/{total}")

    def finished(self, outcome: Outcome, deltas: Sequence[Delta] = ()) -> None:
        self.deltas(list(deltas))
        self.outcome = outcome

    def failed(self, error: HeadraceError) -> None:
        self.error = error


class Run:
    def __init__(self) -> None:
        self.cancelled = 0

    def cancel(self) -> None:
        self.cancelled += 1


@given(
    st.floats(0.1, 1000),
    st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=60),
)
def test_in_no_time_more_is_shown_than_the_pace_allows(
    per_s: float, steps: list[tuple[float, int]]
) -> None:
    pace = Pace(per_s, 100.0)
    now = 100.0
    shown: list[tuple[float, int]] = []
    for seconds, tokens in steps:
        now += seconds + pace.wait_s(tokens, now + seconds)
        pace.shown(tokens, now, SLACK_S)
        shown.append((now, tokens))
    for first in range(len(shown)):
        total = sum(tokens for _, tokens in shown[first:])
        # Of the first tokens of a time, their own number was waited for before it.
        waited = shown[first][1] - 1
        allowed = 1 + waited + per_s * (shown[-1][0] - shown[first][0] + SLACK_S)
        assert total <= allowed * (1 + 1e-9) + 1e-6


def test_a_stream_at_its_pace_is_not_held_up() -> None:
    pace = Pace(10.0, 0.0)
    for number in range(100):
        assert pace.wait_s(1, number * 0.1) == pytest.approx(0.0, abs=1e-9)
        pace.shown(1, number * 0.1, SLACK_S)


def test_what_a_slow_stream_saved_it_does_not_get_at_once() -> None:
    pace = Pace(10.0, 0.0)
    pace.shown(1, 60.0, SLACK_S)
    assert pace.wait_s(1, 60.0) == pytest.approx(0.0, abs=1e-9)
    pace.shown(1, 60.0, SLACK_S)
    assert pace.wait_s(1, 60.0) == pytest.approx(0.1)


def held(count: int, pace: float = 0.001) -> tuple[Shown, Paced, Run]:
    """A run of which the first delta is shown and ``count`` are held back."""
    shown, run = Shown(), Run()
    paced = Paced(Pace(pace, 0.0), shown, True, lambda: None)
    paced.of(run)
    return shown, paced, run


def test_a_failure_lets_everything_through_that_came_before_it(run) -> None:
    async def main() -> None:
        shown, paced, inner = held(3)
        paced.prefill(1, 2)
        paced.deltas([Delta("a"), Delta("b"), Delta("c")])
        assert shown.texts == ["1/2", "a"]
        error = HeadraceError(Code.ENGINE_FAILED, "It died.")
        paced.failed(error)
        assert shown.texts == ["1/2", "a", "b", "c"]
        assert shown.error is error
        paced.cancel()
        assert not inner.cancelled  # it is over

    run(main())


def test_who_is_cancelled_gets_nothing_more(run) -> None:
    async def main() -> None:
        shown, paced, inner = held(2)
        paced.deltas([Delta("a"), Delta("b"), Delta("c", token_ids=(1, 2, 3))])
        paced.cancel()
        paced.cancel()
        assert shown.texts == ["a"]
        assert inner.cancelled == 1
        assert paced.pace.unshown == 4

    run(main())


def test_a_run_that_was_cancelled_before_it_was_known_is_cancelled() -> None:
    shown, inner = Shown(), Run()
    paced = Paced(Pace(1.0, 0.0), shown, True, lambda: None)
    paced.cancel()
    paced.of(inner)
    assert inner.cancelled == 1


def test_an_engine_that_is_done_is_told_of_once(run) -> None:
    async def main() -> None:
        done: list[bool] = []
        shown = Shown()
        paced = Paced(Pace(0.001, 0.0), shown, True, lambda: done.append(True))
        paced.of(Run())
        paced.deltas([Delta("a"), Delta("b")])
        paced.finished(OUTCOME)
        assert done == [True]
        assert shown.outcome is None
        paced.cancel()

        quick = Paced(Pace(1000.0, 0.0), shown, True, lambda: done.append(False))
        quick.finished(OUTCOME, [Delta("x")])
        assert shown.texts[-1] == "x"
        assert shown.outcome is OUTCOME
        assert done == [True]

    run(main())


def test_what_is_held_back_is_bounded(run) -> None:
    async def main() -> None:
        shown, paced, _ = held(0)
        for number in range(MAX_HELD + 100):
            paced.deltas([Delta(str(number))])
        assert shown.texts == [str(number) for number in range(100)]
        paced.cancel()

    run(main())
