"""Lines in the log about generations that fail, or go on."""

from __future__ import annotations

import logging
from typing import Any

from headrace.domain.errors import MEANINGS, Code
from headrace.streams.generation import Generation

_logger = logging.getLogger("headrace.service")
_LEVELS = logging.getLevelNamesMapping()


def report(generation: Generation, what: str, code: str, message: str) -> None:
    """Log what went wrong by our fault or an engine's; of clients' mistakes there would be too many."""
    level = MEANINGS[Code(code)].log_level
    if level != "info":
        caller = generation.caller
        trace_id, span_id = caller.trace.ids if caller.trace is not None else ("", "")
        extra: dict[str, Any] = {
            "generation": generation.id,
            "request_id": caller.request_id,
            "trace_id": trace_id,
            "span_id": span_id,
            "model": generation.model,
            "tenant": caller.tenant,
            "code": code,
        }
        _logger.log(_LEVELS[level.upper()], what, code, message, extra=extra)
