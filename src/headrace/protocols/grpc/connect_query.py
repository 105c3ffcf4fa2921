"""What the query of a Connect call by ``GET`` says. https://connectrpc.com/docs/protocol#unary-get-request"""

from __future__ import annotations

from base64 import b64decode
from binascii import Error as NotBase64
from collections.abc import Mapping
from typing import NamedTuple
from urllib.parse import parse_qsl

from headrace.domain.errors import Code
from headrace.protocols.body import refuse
from headrace.protocols.call import MAX_QUERY_FIELDS
from headrace.protocols.grpc.codec import CODECS


class Said(NamedTuple):
    """``fields``: what the headers of a ``POST`` would say."""

    codec: str
    message: bytes
    fields: Mapping[bytes, bytes]


def read_query(query: str) -> Said:
    """Raises ``INVALID_REQUEST`` and ``UNSUPPORTED_MEDIA_TYPE``, naming the field."""
    try:  # a message may be any bytes
        pairs = parse_qsl(query, True, encoding="latin-1", max_num_fields=MAX_QUERY_FIELDS)
    except ValueError:
        raise refuse("query", f"has more than {MAX_QUERY_FIELDS} fields") from None
    said = dict(pairs)
    if said.get("connect", "v1") != "v1":
        raise refuse("connect", "must be v1")
    codec = said.get("encoding", "")
    if codec not in CODECS:
        raise refuse("encoding", f"must be {' or '.join(CODECS)}", Code.UNSUPPORTED_MEDIA_TYPE)
    if "message" not in said:
        raise refuse("message", "is required")
    message = said["message"].encode("latin-1")
    if said.get("base64") == "1":
        try:
            padded = message + b"=" * (-len(message) % 4)
            message = b64decode(padded, b"-_", validate=True)
        except NotBase64:
            raise refuse("message", "is not base64") from None
    coding = said.get("compression") or "identity"
    return Said(codec, message, {b"content-encoding": coding.encode("latin-1")})
