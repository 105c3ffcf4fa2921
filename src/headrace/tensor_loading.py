"""Brings versions of tensor models into memory when they are needed, and out of it again.

Which leaves is decided by :mod:`headrace.routing.residency`. Files are fetched beside each other, loaded one after the
other: what one needs must be free before it comes.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from time import monotonic
from typing import Any, Literal

from headrace.domain.errors import Code, HeadraceError
from headrace.routing.residency import Residency
from headrace.tensor_version import HELD, Loaded, TensorVersion

ROOM_S = 10.0
"""How long models in use are waited for that leave no room."""

logger = logging.getLogger("headrace.tensors")

News = Callable[[TensorVersion, Literal["loaded", "unloaded"]], None]


class TensorLoading:
    """``budget_bytes`` of all loaded versions together, by the size of their files; None: no limit."""

    def __init__(self, budget_bytes: int | None, news: News) -> None:
        self._residency: Residency[TensorVersion] = Residency(budget_bytes)
        self._news = news
        self._one_loads = asyncio.Lock()
        self._freed = asyncio.Event()
        self._loads: dict[TensorVersion, asyncio.Task[None]] = {}
        self._tasks: set[asyncio.Task[None]] = set()  # bounded by the versions

    async def ready(self, version: TensorVersion) -> None:
        """Load it if it is not, together with whoever else waits for it. Raises ``ENGINE_UNAVAILABLE``."""
        if version.loaded is not None and not version.held:
            return
        load = self._loads.get(version)
        if load is None:
            version.check_may_load(monotonic())
            load = self._loads[version] = self._spawn(self._load(version))
            load.add_done_callback(lambda _: self._loads.pop(version, None))
        await asyncio.wait((load,))  # who leaves meanwhile does not end it for others
        if version.loaded is None:
            raise version.unavailable(monotonic())

    def began(self, version: TensorVersion) -> None:
        """Somebody uses it, and tells :meth:`ended`."""
        self._residency.began(version, monotonic())

    def ended(self, version: TensorVersion) -> None:
        self._residency.ended(version, monotonic())
        self._freed.set()

    def tick(self, now: float) -> None:
        """Unload what rests too long. ``now``: monotonic seconds."""
        for version in self._residency.resting(now):
            self._spawn(self._take_out(version, f"nobody asked for {version.plan.idle_s:g} s"))

    async def unload(self, version: TensorVersion) -> None:
        """Free its memory once nobody uses it. It is ``held``, so that nobody new does."""
        load = self._loads.get(version)
        if load is not None:
            await asyncio.wait((load,))
        while self._residency.in_use(version):
            self._freed.clear()
            await self._freed.wait()
        if version.held:
            await self._take_out(version, HELD)

    async def close(self) -> None:
        """Unload all; who waits is refused, what runs ends."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._take_all_out(self._residency.residents, "the server is shutting down")

    async def drained(self) -> None:
        """Wait until nobody uses any."""
        while any(self._residency.in_use(version) for version in self._residency.residents):
            self._freed.clear()
            await self._freed.wait()

    async def _load(self, version: TensorVersion) -> None:
        version.state, version.reason = "loading", "its file is being fetched"
        try:
            file = await version.plan.fetch()
            async with self._one_loads:
                version.reason = "it is being loaded"
                await self._make_room(version, file.size_bytes)
                self._residency.came(version, file.size_bytes, monotonic(), version.plan.idle_s)
                self._residency.began(version, monotonic())  # or it would be a candidate to leave
                try:
                    await version.open(file)
                finally:
                    self.ended(version)
        except HeadraceError as error:
            self._failed(version, error)
        except asyncio.CancelledError:
            self._residency.left(version)
            version.leave("its loading was stopped")
            raise
        except Exception:
            logger.exception("%s cannot be loaded", version.plan.name)
            text = "the server failed to load it; its log says why"
            self._failed(version, HeadraceError(Code.ENGINE_UNAVAILABLE, text))
        else:
            logger.info("%s is loaded", version.plan.name)
            self._news(version, "loaded")

    def _failed(self, version: TensorVersion, error: HeadraceError) -> None:
        logger.error("%s cannot be loaded: %s", version.plan.name, error.message)
        self._residency.left(version)
        version.failed(error, monotonic())

    async def _make_room(self, version: TensorVersion, size_bytes: int) -> None:
        residency = self._residency
        if not residency.fits(size_bytes):
            text = f"it is larger than {_mib(residency.budget_bytes)}, which server.tensor_memory_mib leaves it"
            raise HeadraceError(Code.ENGINE_UNAVAILABLE, text)
        until = asyncio.get_running_loop().time() + ROOM_S
        while (leaving := residency.make_room(size_bytes)) is None:
            self._freed.clear()
            try:
                async with asyncio.timeout_at(until):
                    await self._freed.wait()
            except TimeoutError:
                text = "models in use leave no memory for it (server.tensor_memory_mib)"
                raise HeadraceError(Code.ENGINE_UNAVAILABLE, text, retry_after_s=1.0) from None
        await self._take_all_out(leaving, f"{version.plan.name} needed its memory")

    async def _take_all_out(self, versions: Sequence[TensorVersion], reason: str) -> None:
        """All of them at once: none is used any more when the first one is closed."""
        await asyncio.gather(*[self._take_out(version, reason) for version in versions])

    def _take_out(self, version: TensorVersion, reason: str) -> Coroutine[Any, Any, None]:
        """Nobody gets it any more; what is returned frees its memory."""
        self._residency.left(version)
        return self._free(version, version.leave(reason), reason)

    async def _free(self, version: TensorVersion, loaded: Loaded | None, reason: str) -> None:
        if loaded is not None:
            await loaded.close()
            logger.info("%s is unloaded: %s", version.plan.name, reason)
            self._news(version, "unloaded")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _mib(size_bytes: int | None) -> str:
    return f"{(size_bytes or 0) / 2**20:.0f} MiB"
