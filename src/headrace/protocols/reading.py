"""Reading on in a log from a cursor: every stream of a ``GET``, and a ``POST`` that resumes."""

from __future__ import annotations

from typing import Any

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.call import Call
from headrace.protocols.encoder import Encoder, Framing, Rest
from headrace.protocols.errors import named
from headrace.protocols.formats import ENCODERS
from headrace.protocols.port import Generation
from headrace.protocols.stream import ClientStream, OpenStreams


def read_on(
    call: Call,
    generation: Generation,
    wire: str,
    options: dict[str, Any],
    framing: Framing,
    streams: OpenStreams,
    after: int,
) -> None:
    """Answer with the events after a cursor; 204 if there will be none. Raises ``CURSOR_AHEAD``."""
    ended = generation.state in ("finished", "failed")
    if after > generation.last_seq:
        raise HeadraceError(
            Code.CURSOR_AHEAD,
            f"There is no event {after} yet; the newest of {generation.id} is"
            f" {generation.last_seq}.",
            param="after",
        )
    if ended and after == generation.last_seq:
        call.respond(204, named(generation), b"")
        return
    encoder: Encoder = ENCODERS[wire](generation, options, framing)
    if after:
        encoder = Rest(encoder, after)
    ClientStream(call, generation, encoder, framing, streams, reading=True).attach()
