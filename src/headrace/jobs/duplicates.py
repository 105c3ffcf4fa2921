"""Whether a name comes twice among millions, in bounded memory.

A first pass marks two bits for each name; a name that finds both marked may be one that was there before. Those few
are looked at in a second pass, which knows.
"""

from __future__ import annotations

MOST_BYTES = 32 * 1024 * 1024
LEAST_BYTES = 4096


class Suspects:
    """The first pass. ``size``: bytes of the input, of which a row has some dozens at least."""

    def __init__(self, size: int) -> None:
        room = 1 << max(size // 8, 1).bit_length()
        self._bits = bytearray(min(max(room, LEAST_BYTES), MOST_BYTES))
        self._mask = 8 * len(self._bits) - 1
        self.names: set[str] = set()

    def add(self, name: str) -> None:
        bits, mask = self._bits, self._mask
        mixed = hash(name)
        one, other = mixed & mask, mixed >> 32 & mask
        here, there = 1 << (one & 7), 1 << (other & 7)
        if bits[one >> 3] & here and bits[other >> 3] & there:
            self.names.add(name)
        else:
            bits[one >> 3] |= here
            bits[other >> 3] |= there
