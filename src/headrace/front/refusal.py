"""Why a request is not taken: the one exception of the front's parsers."""

from __future__ import annotations


class Refusal(Exception):
    """Answer ``status`` with ``message`` (which says what the client can do) and close."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message
