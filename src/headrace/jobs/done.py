"""Which lines of an input have their row in the output or among the errors: a bit each."""

from __future__ import annotations


class Done:
    """Grows with the numbers that come. ``count``: how many there are."""

    def __init__(self) -> None:
        self._bits = bytearray()
        self.count = 0

    def __contains__(self, number: int) -> bool:
        at = number >> 3
        return at < len(self._bits) and bool(self._bits[at] >> (number & 7) & 1)

    def add(self, number: int) -> None:
        if number in self:
            return
        at = number >> 3
        if at >= len(self._bits):
            self._bits += bytes(max(at + 1 - len(self._bits), 4096))
        self._bits[at] |= 1 << (number & 7)
        self.count += 1
