"""Who gives way to one that is pressed, and who stands in an engine's own line."""

from __future__ import annotations

from math import inf

from headrace.engines.engine import Engine
from headrace.flow import Flow
from headrace.going_on import may_pause
from headrace.routing.model import Replica
from headrace.streams.generation import Generation


def who_gives_way(generation: Generation, flow: Flow, now: float) -> Generation | None:
    """One that runs, for this one, which waits or stands in an engine's own line. Those that have begun nothing yet
    lose nothing by it, and come first. Nobody, where a slot is likely to become free in time."""
    eta_s = flow.queue.eta_s(1, now)
    if eta_s is not None and now + eta_s < generation.ticket.start_by < inf:
        return None
    if generation.request.choices > 1:  # one that gives way would not be enough
        return None
    express = None if flow.express is None else flow.express.replica
    running = [
        one
        for one in flow.running.values()
        if one.place.replica is not express and may_pause(one, flow)
    ]
    if generation.place is None:
        first = [one.ticket for one in running if in_line(one)]
    else:
        replica = generation.place.replica
        line = line_at(replica, flow)
        before = line[: line.index(generation)]
        first = [one.ticket for one in before if one in running]
        running = [one for one in running if one.place.replica is replica and one not in line]
    victim = None
    for tickets in (first, [one.ticket for one in running]):
        victim = victim or flow.queue.policy.victim(generation.ticket, tickets, now)
    if victim is None:
        return None
    victim.pauses += 1
    return flow.running[victim.id]


def line_at(replica: Replica[Engine], flow: Flow) -> list[Generation]:
    """Those that stand in an engine's own line, in its order: of those it has said nothing of yet, the last."""
    line = [one for one in flow.running.values() if one.place.replica is replica and in_line(one)]
    beyond = sum(one.place.taken for one in line) - replica.early
    while line and beyond >= line[0].place.taken:
        beyond -= line.pop(0).place.taken
    return line


def stand_last(generation: Generation, flow: Flow) -> None:
    """It is about to begin again in its place: at its engine that is behind all who stand in line there, of whom the
    first has the slot that this one had."""
    del flow.running[generation.id]  # and so is last of them when it begins
    place = generation.place
    if place.replica.early:
        line = line_at(place.replica, flow)
        standing = sum(one.place.taken for one in line)
        if standing >= place.replica.early:  # else it stood there itself
            line[0].place.early = 0
        place.early = place.replica.early


def in_line(generation: Generation) -> bool:
    """Whether its engine has it, and maybe no slot for it yet: it said nothing since. Not one that is about to end."""
    place = generation.place
    if generation.seq != place.seq or generation.closing:
        return False
    return bool(place.early and place.replica.early)
