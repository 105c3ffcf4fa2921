"""Events as bytes: a *run* is consecutive events as msgpack, one after the other, without an array header.

Runs of one log can be joined by joining their bytes. The memory tail, the journal and the stored
segments all hold runs, so that an event is encoded the same way everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from headrace.domain.delta import Delta
from headrace.domain.event import Event

encode = msgspec.msgpack.Encoder().encode
"""A single event so encoded is a run."""
_EVENTS = msgspec.msgpack.Decoder(list[Event])
_DELTAS = msgspec.msgpack.Decoder(list[Delta])


def encode_run(items: Sequence[Event] | Sequence[Delta]) -> bytes:
    """The run of these items; their count has to be kept beside it."""
    encoded = encode(items)
    count = len(items)
    # Size of a msgpack array header: https://github.com/msgpack/msgpack/blob/master/spec.md#array-format-family
    return encoded[1 if count < 16 else 3 if count < 65536 else 5 :]


def decode_events(run: bytes | bytearray, count: int) -> list[Event]:
    """The ``count`` events of a run. Raises ``msgspec.MsgspecError`` if it is damaged."""
    return _EVENTS.decode(b"".join((b"\xdd", count.to_bytes(4, "big"), run)))


def decode_deltas(run: bytes, count: int) -> list[Delta]:
    """The ``count`` raw deltas of a run. Raises ``msgspec.MsgspecError`` if it is damaged."""
    return _DELTAS.decode(b"".join((b"\xdd", count.to_bytes(4, "big"), run)))
