"""How full an engine's key-value cache is, asked now and then: the number behind a gauge."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from headrace.domain.errors import HeadraceError

LOOK_S = 2.0
"""How often an engine at work is asked. llama.cpp answers between two of its steps, in about a millisecond."""

Ask = Callable[[], Awaitable[float | None]]
"""The share in use, 0 to 1; None: this engine never says. Raises what says why it does not answer now."""


class CacheLook:
    """Keeps what the last look found. ``busy``: whether the engine has runs; one at rest uses nothing and is
    left in peace. ``known`` is called once, when the engine has said its share for the first time."""

    def __init__(self, ask: Ask, busy: Callable[[], bool], known: Callable[[], None]) -> None:
        self._ask = ask
        self._busy = busy
        self._known = known
        self._says: bool | None = None
        self.usage = 0.0
        """0 to 1; of an engine that does not answer 0, since nothing runs there."""

    @property
    def goes_on(self) -> bool:
        """Whether another look can find anything."""
        return self._says is not False

    async def look(self) -> None:
        """Ask, unless the answer is known without. Never raises for an engine that is down."""
        if self._says and not self._busy():
            self.usage = 0.0
            return
        try:
            usage = await self._ask()
        except HeadraceError:
            self.usage = 0.0
            return
        if usage is not None:
            self.usage = usage
        if self._says is None:
            self._says = usage is not None
            if self._says:
                self._known()
