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


def said(parser: HeadParser, raw: bytes) -> object:
    try:
        head = parser.parse(raw)
    except Refusal as refusal:
        return refusal.status, refusal.message
    meaning = (head.method, head.path, head.query, head.headers, head.http10, head.keep_alive)
    return meaning, head.before, head.after, parser.length, parser.expects_continue


@settings(deadline=None, max_examples=300)
@given(st.lists(heads, max_size=12))
def test_a_head_means_the_same_whatever_was_parsed_before_it(seen: list[bytes]) -> None:
    parser = HeadParser(Limits())
    for head in [*seen, *seen]:
        assert said(parser, head) == said(HeadParser(Limits()), head)


def test_heads_that_differ_in_their_length_are_one_and_every_length_is_its_own() -> None:
    parser = HeadParser(Limits())
    heads = []
    for length in (5, 0, 123_456, 5):
        raw = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nX-A: 1\r\n\r\n" % length
        heads.append(parser.parse(raw))
        assert parser.length == length
        assert heads[0].before + b"%d" % length + heads[0].after == raw
    assert heads == [heads[0]] * 4
    assert heads[0].headers == ((b"host", b"a"), (b"x-a", b"1"))


def test_what_was_concluded_of_a_head_comes_back_with_it_and_with_no_other() -> None:
    parser = HeadParser(Limits())
    raw = b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n"
    parser.parse(raw % b"a").known = "concluded"
    assert parser.parse(raw % b"b").known is None
    assert parser.parse(raw % b"a").known == "concluded"
    for number in range(_HEADS):
        parser.parse(raw % b"%d" % number)
    assert parser.parse(raw % b"a").known is None


def test_what_is_remembered_is_bounded() -> None:
    parser = HeadParser(Limits())
    for number in range(3 * _HEADS):
        parser.parse(b"GET / HTTP/1.1\r\nHost: a%d\r\n\r\n" % number)
        assert len(parser._heads) <= _HEADS
    parser.parse(b"GET / HTTP/1.1\r\nHost: %b\r\n\r\n" % (b"a" * 4096))
    assert all(len(head) < 4096 for head in parser._heads)
