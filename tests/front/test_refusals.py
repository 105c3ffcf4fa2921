"""What is not HTTP, or could be read in two ways, is answered 4xx or 5xx and the connection is closed."""

from __future__ import annotations

import pytest

POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
SMUGGLED = b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"

CASES = {
    # Two ways to tell the length.
    "length and chunks": (400, POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n"),
    "chunks and length": (400, POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n"),
    "two lengths": (400, POST + b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabc"),
    "one length twice": (400, POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc"),
    "a list of lengths": (400, POST + b"Content-Length: 3, 3\r\n\r\nabc"),
    "a signed length": (400, POST + b"Content-Length: +3\r\n\r\nabc"),
    "a negative length": (400, POST + b"Content-Length: -3\r\n\r\nabc"),
    "a hexadecimal length": (400, POST + b"Content-Length: 0x3\r\n\r\nabc"),
    "a length with underscore": (400, POST + b"Content-Length: 1_0\r\n\r\nabc"),
    "an empty length": (400, POST + b"Content-Length: \r\n\r\n"),
    "a huge length": (400, POST + b"Content-Length: 99999999999999999999\r\n\r\n"),
    "a length in words": (400, POST + b"Content-Length: three\r\n\r\nabc"),
    "space in a length": (400, POST + b"Content-Length: 3 3\r\n\r\nabc"),
    "an unknown coding": (400, POST + b"Transfer-Encoding: xchunked\r\n\r\n"),
    "identity": (400, POST + b"Transfer-Encoding: identity\r\n\r\n"),
    "chunked not last": (400, POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n"),
    "gzip in chunks": (501, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n"),
    "chunked twice": (
        400,
        POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    ),
    "chunked after a tab": (400, POST + b"Transfer-Encoding:\x0bchunked\r\n\r\n"),
    "chunks in HTTP/1.0": (400, b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"),
    # Lines.
    "bare LF everywhere": (400, b"GET / HTTP/1.1\nHost: a\n\n"),
    "bare LF after a header": (400, b"GET / HTTP/1.1\r\nHost: a\nX: y\r\n\r\n"),
    "bare CR in a header": (400, b"GET / HTTP/1.1\r\nHost: a\rX: y\r\n\r\n"),
    "bare LF at the end": (400, b"GET / HTTP/1.1\r\nHost: a\r\n\nX"),
    "a leading LF": (400, b"\nGET / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a folded header": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n"),
    "a folded first header": (400, b"GET / HTTP/1.1\r\n Host: a\r\n\r\n"),
    # Names and values.
    "space before the colon": (400, b"GET / HTTP/1.1\r\nHost : a\r\n\r\n"),
    "coding with space before the colon": (400, POST + b"Transfer-Encoding : chunked\r\n\r\n"),
    "no name": (400, b"GET / HTTP/1.1\r\nHost: a\r\n: x\r\n\r\n"),
    "no colon": (400, b"GET / HTTP/1.1\r\nHost: a\r\nfoo\r\n\r\n"),
    "NUL in a name": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX\0: y\r\n\r\n"),
    "NUL in a value": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: a\0b\r\n\r\n"),
    "a control character in a value": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x01\r\n\r\n"),
    "DEL in a value": (400, b"GET / HTTP/1.1\r\nHost: a\r\nX: \x7f\r\n\r\n"),
    "no host": (400, b"GET / HTTP/1.1\r\n\r\n"),
    "two hosts": (400, b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"),
    "an unknown expectation": (417, POST + b"Expect: the-unexpected\r\nContent-Length: 1\r\n\r\na"),
    # The request line.
    "an unknown method": (501, b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a method of another protocol": (501, b"DESCRIBE / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "connect": (501, b"CONNECT a:80 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a lower-case method": (400, b"get / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a bad method": (400, b"G@T / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "NUL in the target": (400, b"GET /a\0b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a control character in the target": (400, b"GET /\x01 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a tab in the target": (400, b"GET /a\tb HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a space in the target": (400, b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "raw bytes in the target": (400, b"GET /\xc3\xa9 HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a fragment": (400, b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n"),
    "a target without slash": (400, b"GET a HTTP/1.1\r\nHost: a\r\n\r\n"),
    "two spaces": (400, b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n"),
    "space after the version": (400, b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n"),
    "HTTP/0.9": (400, b"GET /\r\n\r\n"),
    "HTTP/1.2": (505, b"GET / HTTP/1.2\r\nHost: a\r\n\r\n"),
    "HTTP/2.0 in text": (505, b"GET / HTTP/2.0\r\nHost: a\r\n\r\n"),
    "another protocol": (400, b"GET / RTSP/1.0\r\nHost: a\r\n\r\n"),
    "a star with GET": (400, b"GET * HTTP/1.1\r\nHost: a\r\n\r\n"),
    "half a preface": (505, b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n"),
    "TLS on a plain port": (400, b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"),
    "an SSH client": (400, b"SSH-2.0-OpenSSH_9.2\r\n"),
    # Chunks.
    "a chunk size that is none": (400, CHUNKED + b"x\r\n"),
    "an empty chunk size": (400, CHUNKED + b"\r\n"),
    "a signed chunk size": (400, CHUNKED + b"+3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size with 0x": (400, CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size after a space": (400, CHUNKED + b" 3\r\nabc\r\n0\r\n\r\n"),
    "a chunk size before a space": (400, CHUNKED + b"3 \r\nabc\r\n0\r\n\r\n"),
    "a chunk size of 17 digits": (400, CHUNKED + b"00000000000000003\r\nabc\r\n0\r\n\r\n"),
    "a chunk size that overflows": (413, CHUNKED + b"ffffffffffffffff\r\nabc"),
    "bare LF after a chunk size": (400, CHUNKED + b"3\nabc\r\n0\r\n\r\n"),
    "bare CR in an extension": (400, CHUNKED + b"3;a\rb\r\nabc\r\n0\r\n\r\n"),
    "bare LF in an extension": (400, CHUNKED + b"3;a\nb\r\nabc\r\n0\r\n\r\n"),
    "an endless extension": (400, CHUNKED + b"3;" + b"a" * 5000),
    "a chunk longer than its size": (400, CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n"),
    "bare LF after a chunk": (400, CHUNKED + b"3\r\nabc\n0\r\n\r\n"),
    "a malformed trailer": (400, CHUNKED + b"0\r\nno colon\r\n\r\n"),
    "too many trailers": (400, CHUNKED + b"0\r\n" + b"a: b\r\n" * 100 + b"\r\n"),
    "thousands of tiny chunks": (400, CHUNKED + b"1\r\na\r\n" * 20_000 + b"0\r\n\r\n"),
}


@pytest.mark.parametrize("name", CASES)
def test_what_can_be_misread_is_refused(wire, name):
    status, sent = CASES[name]

    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler) as front:
            client = await wire.Client.open(front)
            client.send(sent + (SMUGGLED if b"\r\n\r\n" in sent else b""))
            answer = await wire.within(client.answer())
            assert (answer.status, answer.header(b"connection")) == (status, b"close")
            assert answer.body
            client.half_close()
            assert await wire.within(client.rest()) == b""
            await client.close()
            other = await wire.Client.open(front)  # the shared parser is none the worse for it
            assert (await other.ask(SMUGGLED)).status == 200
            await other.close()
        assert len(handler.seen) == 1

    wire.run(main())
