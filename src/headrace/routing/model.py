"""A model that clients can name, and its replicas.

Which replica is next is decided here: the ready one with the smallest share of its slots in use.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Generic, Protocol, TypeVar

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.request import Request


class Info(Protocol):
    """The facts of a loaded engine that placement needs."""

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


FIRST_PAUSE_S = 0.1
LONGEST_PAUSE_S = 2.0
FORGET_S = 10.0
"""A replica that says it is ready and computes nothing is left alone for so long, twice as long each time
that this happens within ``FORGET_S``."""


class Replica(Generic[E]):
    """One engine and how many of its slots are taken. ``slots`` is read once the engine is ready, and
    ``places`` with it: slots, and what the engine wants before one of them is free."""

    __slots__ = ("_back_at", "_pause_s", "engine", "in_use", "name", "places", "ready", "slots")

    def __init__(self, name: str, engine: E) -> None:
        self.name = name
        self.engine = engine
        self.slots = self.places = 0
        self.in_use = 0
        self.ready = False
        self._back_at = 0.0
        self._pause_s = FIRST_PAUSE_S

    @property
    def early(self) -> int:
        """Runs that it has beside those in its slots."""
        return max(0, self.in_use - self.slots)

    def look(self, now: float) -> bool:
        """Ask the engine how it is; whether it went up or down since. ``now``: monotonic seconds."""
        healthy = self.engine.health()[0] == "ready"
        if not healthy:
            self._back_at, self._pause_s = now, FIRST_PAUSE_S
        ready = healthy and now >= self._back_at
        if ready is self.ready:
            return False
        self.ready = ready
        if ready:
            info: Info = self.engine.info()
            self.slots = info.slots
            self.places = info.slots + info.early
        return True

    def lost(self, now: float) -> None:
        """It computed nothing of what it was given; its engine may not have noticed yet why."""
        if self.ready:
            if now - self._back_at > FORGET_S:
                self._pause_s = FIRST_PAUSE_S
            self.ready = False
            self._back_at = now + self._pause_s
            self._pause_s = min(2 * self._pause_s, LONGEST_PAUSE_S)


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

    def readiness(self) -> tuple[bool, str]:
        """Whether a replica is ready; if none, what the first one says."""
        if any(replica.ready for replica in self.replicas):
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
