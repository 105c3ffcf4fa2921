"""The states of a job, and which may follow which."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from headrace.domain.job import Job, State

FOLLOWING: Mapping[State, frozenset[State]] = {
    "validating": frozenset(("in_progress", "failed", "cancelling")),
    "in_progress": frozenset(("finalizing", "cancelling")),
    "finalizing": frozenset(("completed", "expired", "failed")),
    "cancelling": frozenset(("cancelled",)),
    "completed": frozenset(),
    "expired": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""``finalizing`` and ``cancelling`` end as ``Job.ends_as`` says: what they leave is put in its place before."""


def moved(job: Job, state: State, now: float, **changes: Any) -> Job:
    """The job in its next state. ``now``: Unix seconds. Raises ``ValueError`` where that cannot follow."""
    if state not in FOLLOWING[job.state]:
        raise ValueError(f"a job that is {job.state} cannot be {state} next")
    return msgspec.structs.replace(job, state=state, at={**job.at, state: now}, **changes)
