"""Which form a client gets: RFC 9110's Accept."""

from __future__ import annotations

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.accept import require_json, stream_form


@pytest.mark.parametrize(
    ("accept", "form"),
    [
        (None, "sse"),
        ("*/*", "sse"),
        ("text/event-stream", "sse"),
        ("text/*", "sse"),
        ("application/json", "sse"),
        ("application/json, text/plain;q=0.5", "sse"),
        ("application/x-ndjson", "ndjson"),
        ("Application/X-NDJSON", "ndjson"),
        ("application/jsonl", "ndjson"),
        ("application/*", "ndjson"),
        ("text/event-stream;q=0.5, application/x-ndjson", "ndjson"),
        ("text/event-stream, application/x-ndjson;q=0.9", "sse"),
        ("text/event-stream, application/x-ndjson", "sse"),
        ("text/event-stream;q=0, */*", "ndjson"),
        ("application/x-ndjson;q=0, */*;q=0.1", "sse"),
        ("text/html, */*;q=0.1", "sse"),
        ("application/x-ndjson ; charset=utf-8 ; q=1.0", "ndjson"),
    ],
)
def test_a_stream_takes_the_form_that_the_client_likes_best(accept: str | None, form: str) -> None:
    assert stream_form(accept) == form


@pytest.mark.parametrize(
    "accept", ["text/html", "image/*", "text/event-stream;q=0", "*/*;q=0", "", ";q=1", "x"]
)
def test_a_stream_that_the_client_cannot_read_is_refused(accept: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        stream_form(accept)
    assert caught.value.code is Code.NOT_ACCEPTABLE


@pytest.mark.parametrize(
    "accept", [None, "*/*", "application/json", "text/html, application/*;q=0.1"]
)
def test_json_is_given_to_who_takes_it(accept: str | None) -> None:
    require_json(accept)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/json;q=0", "text/html"])
def test_json_is_not_given_to_who_does_not(accept: str) -> None:
    with pytest.raises(HeadraceError) as caught:
        require_json(accept)
    assert caught.value.code is Code.NOT_ACCEPTABLE
