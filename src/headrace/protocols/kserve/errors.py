"""How errors are said to clients of KServe V2: ``{"error": "…"}``."""

from __future__ import annotations

import msgspec

from headrace.domain.allowance import Allowance
from headrace.domain.errors import HeadraceError
from headrace.protocols.allowances import Named, openai_allowance
from headrace.protocols.errors import Manner

_encode = msgspec.json.Encoder().encode


class V2Manner:
    """Implements :class:`headrace.protocols.errors.Manner`."""

    id_header: bytes | None = None

    def failure(self, error: HeadraceError, request_id: str) -> tuple[int, bytes]:
        return error.meaning.http, _encode({"error": error.message})

    def allowance(self, allowance: Allowance) -> list[Named]:
        return openai_allowance(allowance)


V2: Manner = V2Manner()
