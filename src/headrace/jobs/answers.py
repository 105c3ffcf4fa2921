"""What jobs need of the rest: somebody who has a row computed."""

from __future__ import annotations

from typing import Protocol

from headrace.domain.errors import HeadraceError
from headrace.domain.job import RowAnswer, RowAsked


class Answers(Protocol):
    """The way of a row: a request like any other."""

    def slots(self, model: str, endpoint: str) -> tuple[str, int]:
        """A name of what computes it, whichever of the model's names that was, and how many that can run at once.
        Raises ``MODEL_NOT_FOUND``."""

    async def caught_up(self) -> None:
        """Wait until answers are kept as fast as they come: of what was answered, little waits in memory. Raises
        ``STORE_FAILED``."""

    async def ask(self, asked: RowAsked) -> RowAnswer:
        """The answer; the same one, if it was asked before. Cancelled, it leaves the generation to who asks again.
        Raises :class:`HeadraceError`."""

    def refusal(self, error: HeadraceError) -> RowAnswer:
        """An error in the form of an answer."""

    def abort(self, tenant: str, group: str) -> None:
        """End all generations of a job."""
