"""How full llama.cpp's key-value cache is, from its own ``/slots``."""

from __future__ import annotations

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.engines.llama_client import LlamaClient


class Slot(msgspec.Struct, gc=False):
    """One slot. ``n_prompt_tokens``: tokens of it in the cache, those of the answer too; a slot at rest
    still tells those of its last run, which any new run may replace."""

    n_ctx: int = 0
    is_processing: bool = False
    n_prompt_tokens: int = 0


_slots = msgspec.json.Decoder(list[Slot])


def share_in_use(body: bytes) -> float:
    """The share of all slots' room that those at work occupy, 0 to 1, from an answer of ``/slots``.

    As vLLM counts it: what is only kept in case that it helps a later prompt is free."""
    slots = _slots.decode(body)
    room = sum(slot.n_ctx for slot in slots)
    used = sum(slot.n_prompt_tokens for slot in slots if slot.is_processing)
    return min(1.0, used / room) if room else 0.0


async def cache_usage(client: LlamaClient) -> float:
    """Of a living llama.cpp process, which answers between two of its steps. Raises
    :class:`HeadraceError` if it does not answer, or not with its slots."""
    body = await client.get("/slots")
    try:
        return share_in_use(body)
    except msgspec.MsgspecError as error:
        raise HeadraceError(Code.ENGINE_FAILED, f"The engine's /slots: {error}") from error
