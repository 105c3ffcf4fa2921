"""Kills at exact moments inside the server, by an order that the campaign leaves in a file.

Two places watch for the order: a hook that stands before all others and sees what the engine says
(``decode``, ``utf8``, ``redaction``), and the place between an append and its readers (``append``). Who
is killed is the server itself, its engine process, or the client whose process id the order names.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from headrace.domain.delta import Delta
from headrace.streams.hook import HookContext
from headrace.streams.hooks import BaseHook
from headrace.streams.log import Log

ORDER = "order.json"
CARRIED_OUT = "carried-out.json"
HELD = re.compile(r"[0-9](?: ?[0-9]){1,13} ?$")
"""The end of a text of which ``redact`` holds something back: the beginning of a card number."""
STEPS = 1.6
"""Steps of the engine after which it is in the middle of a character that takes it three or four."""


class Order(NamedTuple):
    """Kill ``kind`` in the ``after``-th moment of ``state`` that this generation has from now on."""

    kind: str
    state: str
    generation: str
    after: int
    victim: int
    pause_ms: float

    @classmethod
    def read(cls, file: Path) -> Order | None:
        try:
            return cls(**json.loads(file.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def write(self, file: Path) -> None:
        new = file.with_suffix(".new")
        new.write_text(json.dumps(self._asdict()), encoding="utf-8")
        new.rename(file)


class Orders:
    """The one order that a folder may hold."""

    def __init__(self, folder: Path) -> None:
        self._file = folder / ORDER
        self._done = folder / CARRIED_OUT
        self._left: dict[Order, int] = {}

    def due(self, generation: str, state: str) -> Order | None:
        """The order, once it has seen as many such moments as it asks for."""
        order = Order.read(self._file)
        if order is None or (order.generation, order.state) != (generation, state):
            return None
        left = self._left[order] = self._left.get(order, order.after) - 1
        return order if left <= 0 else None

    def carry_out(self, order: Order) -> None:
        """Say so and kill; returns where somebody else was killed."""
        try:
            self._file.rename(self._done)
        except FileNotFoundError:
            return  # taken back
        victim = {"server": os.getpid(), "client": order.victim}.get(order.kind)
        if victim is None:
            victim = engine_of(os.getpid())
        if victim:
            os.kill(victim, signal.SIGKILL)


def engine_of(server: int) -> int:
    """The engine process of a server: its child of that name. 0 while there is none."""
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            parent = int(entry.read_text().rpartition(")")[2].split()[1])
            command = (entry.parent / "cmdline").read_bytes()
        except OSError:
            continue
        if parent == server and b"headrace.engines.llama_child" in command:
            return int(entry.parent.name)
    return 0


class Moments(BaseHook):
    """``orders``: the folder. Changes nothing of what passes."""

    def __init__(self, orders: str) -> None:
        self._orders = Orders(Path(orders))

    def on_token(self, context: HookContext, deltas: Sequence[Delta]) -> Sequence[Delta]:
        said: dict[str, Any] = context.state.setdefault("moments", {"text": "", "at": 0.0})
        tokens = sum(len(delta.token_ids) for delta in deltas)
        now = time.monotonic()
        step_s = (now - said["at"]) / max(1, tokens)
        half = deltas[-1].text == "" and tokens > 0
        said["text"] += "".join(delta.text for delta in deltas)
        said["at"] = now
        if not context.replaying:
            self._look(context.generation, said, half, step_s)
        return deltas

    def _look(self, generation: str, said: dict[str, Any], half: bool, step_s: float) -> None:
        text = said["text"]
        if HELD.search(text):
            self._maybe(generation, "redaction")
        elif not half and not text.endswith("語"):
            self._maybe(generation, "decode")
        if half:  # so say engines that report each token, also those that end no character
            order = self._orders.due(generation, "utf8")
            if order is not None:
                loop = asyncio.get_running_loop()
                loop.call_later(order.pause_ms / 1000, self._orders.carry_out, order)
        elif text.endswith("語"):  # llama.cpp says nothing before the next character is whole
            order = self._orders.due(generation, "utf8")
            if order is not None:
                wait_s = min(step_s, 0.2) * STEPS
                asyncio.get_running_loop().call_later(wait_s, self._if_still, order, said, text)

    def _maybe(self, generation: str, state: str) -> None:
        order = self._orders.due(generation, state)
        if order is not None:
            self._orders.carry_out(order)

    def _if_still(self, order: Order, said: dict[str, Any], text: str) -> None:
        if said["text"] == text:
            self._orders.carry_out(order)


class Shown:
    """``Log.visible_seq``, but for one thing: before it changes an order is looked for. Events have then
    reached the operating system, and no reader yet."""

    def __init__(self, slot: Any, orders: Orders) -> None:
        self._slot = slot
        self._orders = orders

    def __get__(self, log: Log | None, owner: type[Log]) -> Any:
        return self if log is None else self._slot.__get__(log, owner)

    def __set__(self, log: Log, seq: int) -> None:
        order = self._orders.due(log.id, "append")
        if order is not None:
            self._orders.carry_out(order)
        self._slot.__set__(log, seq)


def watch_appends(folder: Path) -> None:
    """Look for orders between append and send."""
    slot = vars(Log)["visible_seq"]
    setattr(Log, "visible_seq", Shown(slot, Orders(folder)))  # noqa: B010 - no instance's attribute
