"""A model that clients can name, and its replicas.

Which replica is next is decided here: the ready one with the smallest share of its slots in use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request


class Info(Protocol):
    """The facts of a loaded engine that placement needs. ``slots``: 0 if it does not say."""

    @property
    def slots(self) -> int: ...
    @property
    def continues(self) -> bool: ...
    @property
    def early(self) -> int: ...


class Placeable(Protocol):
    """What placement asks of an engine."""

    def info(self) -> Any: ...
    def health(self) -> tuple[str, str]: ...
    def check(self, request: Request) -> None: ...
    def check_prompt(self, request: Request) -> None: ...


E = TypeVar("E", bound=Placeable)


class Limit(Protocol):
    """How many an engine may have that does not say its slots: found by what it takes and refuses."""

    @property
    def limit(self) -> int: ...
    def took(self, prompt_tokens: float, took_s: float, in_flight: int) -> None: ...
    def refused(self, in_flight: int) -> None: ...


FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
FORGET_S = 10.0
"""A replica that says it is ready and computes nothing is left alone for so long, twice as long each time
that this happens within ``FORGET_S``."""
LONGEST_REST_S = 60.0
"""What an upstream asks for beyond is not waited for: it may have room sooner."""


def _nobody() -> None:
    """Hears of more room until somebody wants to."""


class Replica(Generic[E]):
    """One engine and how many of its slots are taken. ``slots`` is read once the engine is ready, and
    ``places`` with it: slots, and what the engine wants before one of them is free. Where the engine does not say,
    ``limit`` finds both. ``full``: it is up, and rests since it had no room. ``refusals``: runs that it had no room
    for. ``on_room`` is called when a limit has grown."""

    __slots__ = (
        *("_back_at", "_grows_at", "_limit", "_most", "_pause_s", "engine", "full", "in_use"),
        *("name", "on_room", "places", "ready", "refusals", "slots"),
    )

    def __init__(self, name: str, engine: E, limit: Limit | None = None) -> None:
        self.name = name
        self.engine = engine
        self.slots = self.places = self._most = 0
        self.in_use = self.refusals = 0
        self.ready = self.full = False
        self.on_room: Callable[[], None] = _nobody
        self._limit = limit
        self._back_at = self._grows_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    @property
    def early(self) -> int:
        """Runs that it has beside those in its slots."""
        return max(0, min(self.in_use, self.places) - self.slots)

    @property
    def up(self) -> bool:
        """Whether its engine serves, though it may have no room now."""
        return self.ready or self.full

    @property
    def takes_another(self) -> bool:
        """Whether one that leaves makes room: not while it rests, nor while it has more than it may have by now."""
        return self.ready and self.in_use <= self.places

    def look(self, now: float) -> bool:
        """Ask the engine how it is; whether it went up or down since. ``now``: monotonic seconds."""
        healthy = self.engine.health()[0] == "ready"
        if not healthy:
            self._back_at, self._pause_s = now, FIRST_PAUSE_S
        if self.places < self._most and now >= self._grows_at:
            self.places = min(self.places + 1 + self.places // 8, self._most)
        ready = healthy and now >= self._back_at
        if ready is self.ready and not self.full:
            return False
        was_up = self.up
        self.ready = ready
        self.full = self.full and healthy and not ready
        if self.up is was_up:
            return False
        if ready:
            self._read()
        return True

    def took(self, prompt_tokens: float, took_s: float, in_flight: int) -> None:
        """A first token came, ``in_flight`` runs being there when its run began; see :class:`Limit`."""
        if self._limit is not None:
            self._limit.took(prompt_tokens, took_s, in_flight)
            self._resize(self._limit.limit)

    def lost(self, now: float) -> None:
        """It computed nothing of what it was given; its engine may not have noticed yet why."""
        if self.ready:
            self.ready = False
            self._back_at = now + self._pause(now, self._back_at)

    def refused(self, now: float, retry_after_s: float | None = None) -> None:
        """Its upstream had no room for one: it gets no more than it has, and more only bit by bit. For as long as the
        upstream says, and a while where it has nothing of ours, it gets nothing."""
        self.refusals += 1
        if self._limit is not None:
            self._limit.refused(self.in_use)
            self._resize(self._limit.limit)
        else:
            self.places = min(self.places, max(self.in_use, 1))
        if now >= self._grows_at:  # else it is one of many refused together
            self._grows_at = now + self._pause(now, self._grows_at)
        if retry_after_s is not None:
            self._rest(max(self._grows_at, now + min(retry_after_s, LONGEST_REST_S)))
        elif not self.in_use:
            self._rest(self._grows_at)

    def _rest(self, until: float) -> None:
        self._back_at = max(self._back_at, until)
        self.full = self.full or self.ready
        self.ready = False

    def _pause(self, now: float, since: float) -> float:
        """The next one, ``since`` the end of the last."""
        if now - since > FORGET_S:
            self._pause_s = FIRST_PAUSE_S
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
        return pause_s

    def _read(self) -> None:
        """What the engine says of itself."""
        info: Info = self.engine.info()
        if info.slots:
            self._limit = None
            self.slots = info.slots
            self.places = self._most = info.slots + info.early
        elif self._limit is not None:
            self._resize(self._limit.limit)

    def _resize(self, slots: int) -> None:
        grows = slots > self.places
        self.slots = self.places = self._most = slots
        if grows:
            self.on_room()


class Place(msgspec.Struct, Generic[E]):
    """``taken`` slots held on a replica; :meth:`free` gives them back once. ``early``: its position among
    those that the engine has before a slot of its is free for them, from 1; 0: it has a slot. ``seq``: the newest event
    of its generation when it was taken."""

    replica: Replica[E]
    taken: int
    early: int = 0
    seq: int = 0

    def free(self) -> None:
        self.replica.in_use -= self.taken
        self.taken = 0


class Model(Generic[E]):
    """A name, its aliases, its replicas. ``created``: Unix seconds, when it was configured."""

    __slots__ = ("aliases", "created", "name", "replicas")

    def __init__(
        self, name: str, aliases: Sequence[str], replicas: Sequence[Replica[E]], created: int
    ) -> None:
        self.name = name
        self.aliases = tuple(aliases)
        self.replicas = list(replicas)
        self.created = created

    def place(self, weight: int) -> Place[E] | None:
        """``weight`` slots (one a choice) on the least busy ready replica; None when none has room. A request
        that wants more than there are gets a replica to itself."""
        best: Replica[E] | None = None
        for replica in self.replicas:
            in_use = replica.in_use
            if not replica.ready or (in_use and in_use + weight > replica.places):
                continue
            if best is None or in_use * best.slots < best.in_use * replica.slots:
                best = replica
        if best is None:
            return None
        taken = weight if weight < best.slots else best.slots
        best.in_use = in_use = best.in_use + taken
        return Place(best, taken, in_use - best.slots if in_use > best.slots else 0)

    def has_room(self, weight: int) -> bool:
        """Whether :meth:`place` would find some."""
        return any(
            one.ready and (not one.in_use or one.in_use + weight <= one.places)
            for one in self.replicas
        )

    def least_busy(self) -> Sequence[Replica[E]]:
        """All that are ready, those first that have fewer: for what takes no slot."""
        return sorted([one for one in self.replicas if one.ready], key=_in_use)

    def readiness(self) -> tuple[bool, str]:
        """Whether a replica is ready; if none, what the first one says."""
        if any(replica.up for replica in self.replicas):
            return True, ""
        if not self.replicas:
            return False, f"model {self.name} has no replica configured"
        state, reason = self.replicas[0].engine.health()
        return False, f"model {self.name} is {state}" + (f": {reason}" if reason else "")

    def check(self, request: Request) -> None:
        """Raise ``UNSUPPORTED`` for an option that this model's engine lacks."""
        if self.replicas:
            self.replicas[0].engine.check(request)

    def check_prompt(self, request: Request) -> None:
        """Raise ``UNSUPPORTED`` for a request that one of the replicas could not add a message to: its run
        may move there."""
        for replica in self.replicas:
            replica.engine.check_prompt(request)


class Models(Generic[E]):
    """All models by name and alias."""

    __slots__ = ("_by_name", "all")

    def __init__(self, models: Sequence[Model[E]]) -> None:
        self.all = list(models)
        self._by_name = {name: model for model in models for name in (model.name, *model.aliases)}

    def find(self, name: str) -> Model[E]:
        """By name or alias. Raises ``MODEL_NOT_FOUND`` naming what there is."""
        model = self._by_name.get(name)
        if model is None:
            known = ", ".join(model.name for model in self.all) or "none"
            raise HeadraceError(
                Code.MODEL_NOT_FOUND,
                f"The model {name[:200]!r} does not exist here. Models: {known}.",
                param="model",
            )
        return model


def _in_use(replica: Replica[Any]) -> int:
    return replica.in_use
