"""What operations take beside their bodies: headers, parts of the path, fields of the query."""

from __future__ import annotations

from headrace.domain.tenant import NAME
from headrace.protocols.files import MAX_LISTED as MOST_FILES
from headrace.protocols.formats import ENCODERS
from headrace.protocols.openapi.operation import TEXT, Json

_TOKEN: Json = {"type": "string", "minLength": 1, "maxLength": 256}
CALLER = ("X-Request-ID", "X-On-Disconnect", "X-Abort-Token", "X-Session-ID", "X-Continue-Mode")
BEGIN = (*CALLER, "X-Stream-Events", "Idempotency-Key", "Last-Event-ID", "X-Generation-Id")

PARAMETERS: dict[str, Json] = {
    "X-Request-ID": {
        "in": "header",
        "description": "Comes back in the answer and is in the logs; one that cannot be is replaced.",
        "schema": TEXT,
    },
    "X-On-Disconnect": {
        "in": "header",
        "description": "What becomes of the generation when its client leaves.",
        "schema": {"type": "string", "pattern": r"^(cancel|continue|grace=[0-9]{1,4})$"},
    },
    "X-Abort-Token": {
        "in": "header",
        "description": "POST /v1/abort with the same token ends the generation.",
        "schema": _TOKEN,
    },
    "X-Session-ID": {
        "in": "header",
        "description": "Generations are found again by it.",
        "schema": _TOKEN,
    },
    "X-Stream-Events": {
        "in": "header",
        "description": "Events that a stream shows: token, progress, prompt.",
        "schema": {
            "type": "string",
            "pattern": "^(token|progress|prompt)(,(token|progress|prompt))*$",
        },
    },
    "X-Continue-Mode": {
        "in": "header",
        "description": "How a generation goes on after its engine was lost.",
        "schema": {"enum": ["fast", "exact"]},
    },
    "Idempotency-Key": {
        "in": "header",
        "description": "Says that the client wants to come back: the generation then outlives it by 30 s, unless"
        " X-On-Disconnect says otherwise. A repeat joins the generation, or gets what it said.",
        "schema": _TOKEN,
    },
    "Last-Event-ID": {
        "in": "header",
        "description": "The cursor of the last event seen; wins over `after`. On a POST it needs X-Generation-Id.",
        "schema": {"type": "string", "pattern": "^[0-9]{0,15}$"},
    },
    "X-Generation-Id": {
        "in": "header",
        "description": "The generation to resume.",
        "schema": TEXT,
    },
    "id": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "after": {
        "in": "query",
        "description": "Show the events after this one.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
    },
    "format": {
        "in": "query",
        "description": "The form of the events; openai is the one that the generation was first sent in.",
        "schema": {"enum": ["openai", *ENCODERS]},
    },
    "stream": {
        "in": "query",
        "description": "`true`: as a stream of what was said and will be.",
        "schema": {"type": "boolean"},
    },
    "starting_after": {
        "in": "query",
        "description": "Show the messages after this number.",
        "schema": {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
    },
    "order": {"in": "query", "schema": {"enum": ["asc", "desc"]}},
    "item": {
        "name": "after",
        "in": "query",
        "description": "Show the items after the one with this id.",
        "schema": TEXT,
    },
    "token": {
        "in": "query",
        "description": "A token of POST /v1/generations/{id}/token, for who cannot send a key.",
        "schema": TEXT,
    },
    "files": {
        "name": "limit",
        "in": "query",
        "schema": {"type": "integer", "minimum": 1, "maximum": MOST_FILES},
    },
    "purpose": {"in": "query", "description": "Those sent for this.", "schema": TEXT},
    "file": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "batch": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "key_id": {"in": "path", "required": True, "schema": {"type": "string", "minLength": 1}},
    "tenant": {"in": "path", "required": True, "schema": {"type": "string", "pattern": NAME}},
    "limited_model": {
        "name": "model",
        "in": "path",
        "required": True,
        "description": "Its name, or an alias.",
        "schema": {"type": "string", "minLength": 1},
    },
    "limit": {"in": "query", "schema": {"type": "integer", "minimum": 1, "maximum": 100}},
    "session_id": {"in": "query", "schema": TEXT},
    "model": {"in": "query", "schema": TEXT},
}
