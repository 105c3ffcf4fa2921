"""Whether a generation whose run broke goes on: by another run, here or on another replica, or not at all."""

from __future__ import annotations

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.engine import Engine
from headrace.flow import Flow
from headrace.routing.model import LONGEST_REST_S, Replica
from headrace.streams.generation import Generation

MAX_FRUITLESS = 5
"""Runs that broke since the newest token, the one that brought it too; the last one's error is the end."""

NEVER_BEGAN = frozenset((Code.ENGINE_UNAVAILABLE, Code.MODEL_LOADING))
"""What an engine says that computed nothing: its process is gone, its server is being restarted."""

BUSY = frozenset((Code.RATE_LIMITED, Code.QUEUE_FULL))
"""What an upstream says that has no room for it now."""


def may_go_on(
    generation: Generation, error: HeadraceError, replica: Replica[Engine], flow: Flow
) -> bool:
    """Decide after a look at the replicas. What has tokens or outlives its client waits for an engine that
    comes back; what has none is told at once, so that its client may ask elsewhere. Where an upstream is busy, all
    wait: as long as it works for others of ours there will be room."""
    fruitless = _fruitless(generation)
    room = error.code in BUSY and replica.in_use > 0
    if not error.meaning.retryable or (generation.last_token_at and generation.said is None):
        return False
    patient = generation.durable or generation.last_token_at > 0
    if not room and not (patient and error.code in NEVER_BEGAN):
        generation.fruitless = fruitless + 1
        if generation.fruitless >= MAX_FRUITLESS:
            return False
    if any(other.up for other in flow.model.replicas if other is not replica):
        return True
    state = replica.engine.health()[0]
    if state == "unreachable":
        return patient
    if state not in ("starting", "ready"):
        return generation.durable
    if error.code in BUSY:
        return patient or (error.retry_after_s or 0.0) <= LONGEST_REST_S
    return True


def may_pause(generation: Generation, flow: Flow) -> bool:
    """Whether a generation that runs can be ended at its engine and go on later without losing anything: its raw
    output is kept, and it has a middle to go on from; and whether another would have its place then."""
    request = generation.request
    return (
        generation.said is not None
        and flow.keeps_raw
        and generation.cancel_run is not None
        and generation.place.replica.takes_another
        and not generation.closing
        and request.sampling.n == 1
        and not (request.response_format or request.tools or request.extra)
    )


def _fruitless(generation: Generation) -> int:
    """How often it broke since its newest token."""
    if generation.last_token_at != generation.broke_after:
        generation.broke_after = generation.last_token_at
        generation.fruitless = 0
        generation.waits_since = 0.0
    return generation.fruitless
