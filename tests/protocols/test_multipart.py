"""Upload forms, in pieces of any size."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headrace.domain.errors import Code, HeadraceError
from headrace.protocols.multipart import Event, Multipart, Part, PartEnd, Piece, boundary_of

HEAD = 'Content-Disposition: form-data; name="{}"'


def form(parts: list[tuple[str, bytes]], boundary: bytes = b"edge") -> bytes:
    body = b""
    for head, content in parts:
        body += b"--" + boundary + b"\r\n" + head.encode() + b"\r\n\r\n" + content + b"\r\n"
    return body + b"--" + boundary + b"--\r\n"


def read(body: bytes, cuts: list[int] | None = None) -> list[tuple[str, str | None, bytes]]:
    """Name, filename and content of each part."""
    multipart = Multipart(b"edge")
    events: list[Event] = []
    edges = [0, *sorted(at % (len(body) + 1) for at in cuts or []), len(body)]
    for start, end in pairwise(edges):
        events += multipart.feed(body[start:end])
    assert multipart.over
    found: list[tuple[str, str | None, bytes]] = []
    for event in events:
        if isinstance(event, Part):
            found.append((event.name, event.filename, b""))
        elif isinstance(event, Piece):
            name, file, content = found[-1]
            found[-1] = name, file, content + event.data
    assert sum(isinstance(event, PartEnd) for event in events) == len(found)
    return found


NEARLY = st.lists(st.sampled_from([b"x", b"\r", b"\n", b"-", b"\r\n--", b"edg", b"--edge"]))


@given(st.lists(NEARLY.map(b"".join), min_size=1, max_size=3), st.lists(st.integers(0, 10**6)))
def test_contents_come_whole_however_they_are_cut(contents: list[bytes], cuts: list[int]) -> None:
    contents = [content for content in contents if b"\r\n--edge" not in b"\r\n" + content]
    if not contents:
        return
    body = form([(HEAD.format(n), content) for n, content in enumerate(contents)])
    assert read(body, cuts) == [(str(n), None, content) for n, content in enumerate(contents)]


def test_names_of_files_are_as_forms_write_them() -> None:
    head = 'Content-Type: text/plain\r\nCONTENT-disposition: form-data; name="file"; filename="a %22b%22 \\"c\\".jsonl"'
    assert read(form([(head, b"x")])) == [("file", 'a "b" "c".jsonl', b"x")]


@pytest.mark.parametrize(
    "body",
    [
        b"no boundary at all, and long enough",
        b"--edge, and no line break",
        b"--edge\r\nContent-Type: text/plain\r\n\r\nno name\r\n--edge--",
        b"--edge\r\n" + b"X-Long: x" * 1000 + b"\r\n\r\n",
        form([(HEAD.format(n), b"") for n in range(17)]),
    ],
)
def test_what_is_no_form_is_refused(body: bytes) -> None:
    with pytest.raises(HeadraceError) as refused:
        list(Multipart(b"edge").feed(body))
    assert refused.value.code is Code.INVALID_REQUEST


def test_the_boundary_is_in_the_content_type() -> None:
    assert boundary_of('multipart/form-data; boundary="a b"; x=y') == b"a b"
    assert boundary_of("Multipart/Form-Data; boundary=edge") == b"edge"
    for other in ("application/json", "multipart/form-data", "text/plain; boundary=x", ""):
        with pytest.raises(HeadraceError) as refused:
            boundary_of(other)
        assert refused.value.code is Code.UNSUPPORTED_MEDIA_TYPE
