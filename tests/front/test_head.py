"""What a parser remembers of earlier heads changes nothing that it says of a head."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from headrace.front.head import _HEADS, HeadParser
from headrace.front.limits import Limits
from headrace.front.refusal import Refusal

FIELDS = [
    b"Host: a",
    b"host: a",
    b"Content-Length: 5",
    b"Content-Length: 123",
    b"content-length: 123",
    b"content-length:  7",
    b"CONTENT-LENGTH: 8",
    b"Content-Length:9",
    b"Content-Length: ",
    b"Content-Length: 0",
    b"Content-Length: 5, 5",
    b"Content-Length: +5",
    b"Content-Length: 99999999999999",
    b"X-Note: 5\r\n Content-Length: 6",
    b"X-Content-Length: 5",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Transfer-Encoding: chunked",
    b"Transfer-Encoding: gzip",
    b"Expect: 100-continue",
    b"X-A: 1",
]
heads = st.builds(
    lambda line, fields: b"\r\n".join([line, *fields, b"", b""]),
    st.sampled_from([b"POST / HTTP/1.1", b"GET /?a HTTP/1.1", b"GET / HTTP/1.0"]),
    st.lists(st.sampled_from(FIELDS), max_size=4).map(lambda rest: [b"Host: b", *rest])
    | st.lists(st.sampled_from(FIELDS), max_size=4),
)


def said(parser: HeadParser, head: bytes) -> object:
    try:
        line = parser.parse(head)
    except Refusal as refusal:
        return refusal.status, refusal.message
    return line, parser.headers, parser.length, parser.keep_alive, parser.expects_continue


@settings(deadline=None, max_examples=300)
@given(st.lists(heads, max_size=12))
def test_a_head_means_the_same_whatever_was_parsed_before_it(seen: list[bytes]) -> None:
    parser = HeadParser(Limits())
    for head in [*seen, *seen]:
        assert said(parser, head) == said(HeadParser(Limits()), head)


def test_every_length_of_one_head_is_its_own() -> None:
    parser = HeadParser(Limits())
    for length in (5, 0, 123_456, 5):
        parser.parse(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-A: 1\r\n\r\n" % length)
        assert parser.length == length
        assert parser.headers[1] == (b"content-length", b"%d" % length)


def test_what_becomes_of_one_requests_headers_is_not_seen_by_the_next() -> None:
    parser = HeadParser(Limits())
    for _ in range(3):
        parser.parse(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        assert parser.headers == [(b"host", b"a")]
        parser.headers.clear()


def test_what_is_remembered_is_bounded() -> None:
    parser = HeadParser(Limits())
    for number in range(3 * _HEADS):
        parser.parse(b"GET / HTTP/1.1\r\nHost: a%d\r\n\r\n" % number)
        assert len(parser._heads) <= _HEADS
    parser.parse(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 4096))
    assert all(len(head) < 4096 for head in parser._heads)
