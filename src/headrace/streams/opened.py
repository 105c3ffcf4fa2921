"""``OpenedLogs``: ended logs at hand for who asks again.

A log's header has its whole request, and that may be long; so they are bounded by what they hold, not only by
how many they are.
"""

from __future__ import annotations

from collections import OrderedDict

from headrace.streams.encoded import encode
from headrace.streams.log import Log

OPENED_LOGS = 256
OPENED_BYTES = 8 * 1024 * 1024
"""Of encoded headers: texts take about as much, prompts of token numbers some ten times that."""


class OpenedLogs:
    """The last few that were asked for: ``most`` of them, ``most_bytes`` of their headers. The one asked for
    longest ago goes first; one that is larger than that does not stay."""

    def __init__(self, most: int = OPENED_LOGS, most_bytes: int = OPENED_BYTES) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self._logs: OrderedDict[str, tuple[Log, int]] = OrderedDict()
        self._bytes = 0

    def get(self, id: str) -> Log | None:
        """The log, if it is at hand."""
        found = self._logs.get(id)
        if found is None:
            return None
        self._logs.move_to_end(id)
        return found[0]

    def put(self, log: Log) -> None:
        """Keep it at hand; others may have to go."""
        self.drop(log.id)
        size = len(encode(log.header))
        self._logs[log.id] = log, size
        self._bytes += size
        while len(self._logs) > self._most or self._bytes > self._most_bytes:
            self.drop(next(iter(self._logs)))

    def drop(self, id: str) -> None:
        """It is not at hand any more. Without effect where it was not."""
        found = self._logs.pop(id, None)
        if found is not None:
            self._bytes -= found[1]
