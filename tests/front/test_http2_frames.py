"""Header blocks and frames that are made here, as others read them."""

from __future__ import annotations

import sys

import h2.config
import h2.connection
import h2.events
import hpack
import pytest

from headrace.front.http2_frames import FRAME_BYTES, Frames, block, status_field
from headrace.front.limits import Limits

LENGTHS = (0, 1, 126, 127, 128, 254, 255, 300, 20_000)


def decoded(data):
    decoder = hpack.Decoder()
    decoder.max_allowed_table_size = 0
    decoder.header_table_size = 0
    decoder.max_header_list_size = 1 << 20
    return [tuple(field) for field in decoder.decode(data, raw=True)]


@pytest.mark.parametrize("status", [100, 200, 204, 404, 503])
def test_a_status_is_read_back(status):
    assert decoded(status_field(status)) == [(b":status", b"%d" % status)]


@pytest.mark.parametrize(
    "name", [b"content-type", b"server", b"vary", b"x-request-id", b"grpc-status"]
)
@pytest.mark.parametrize("length", LENGTHS)
def test_a_field_is_read_back(name, length):
    fields = [(name, b"v" * length), (b"x-next", b"\xff")]
    assert decoded(block(fields)) == fields


def test_every_name_with_a_place_of_its_own_has_the_right_one():
    for name in (
        *(b"content-length", b"content-type", b"cache-control", b"date"),
        *(b"location", b"retry-after", b"server", b"vary"),
    ):
        assert decoded(block([(name, b"a")])) == [(name, b"a")]


def test_a_large_head_comes_in_several_frames(wire):
    large = [(b"x-%d" % number, b"v" * 1000) for number in range(50)]

    async def main():
        def handler(exchange):
            exchange.respond(200, large, b"body")

        async with wire.serve(handler) as front:
            raw = await wire.Client.open(front)
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
            client.initiate_connection()
            fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
            client.send_headers(1, fields, end_stream=True)
            raw.send(client.data_to_send())
            events = []
            while not any(isinstance(event, h2.events.StreamEnded) for event in events):
                events += client.receive_data(await wire.within(raw.reader.read(65_536)))
            (head,) = [e for e in events if isinstance(e, h2.events.ResponseReceived)]
            assert [field for field in head.headers if field[0].startswith(b"x-")] == large
            assert sum(len(name) + len(value) for name, value in large) > 3 * FRAME_BYTES
            await raw.close()

    wire.run(main())


def test_a_client_without_a_table_is_answered(wire):
    """Whose first SETTINGS say that nothing may be kept: the first block has to say that nothing is."""

    async def main():
        async with wire.serve(wire.Recorder()) as front:
            raw = await wire.Client.open(front)
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
            client.local_settings[h2.settings.SettingCodes.HEADER_TABLE_SIZE] = 0
            client.initiate_connection()
            client.decoder.max_allowed_table_size = 0
            fields = [(":method", "GET"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
            for stream in (1, 3):
                client.send_headers(stream, fields, end_stream=True)
            raw.send(client.data_to_send())
            ended = 0
            while ended < 2:
                events = client.receive_data(await wire.within(raw.reader.read(65_536)))
                ended += sum(isinstance(event, h2.events.StreamEnded) for event in events)
            await raw.close()

    wire.run(main())


def test_heads_that_are_alike_are_shared_and_bounded(wire):
    async def main():
        handler = wire.Recorder()
        async with wire.serve(handler, limits={"streams": Limits().streams}) as front:
            raw = await wire.Client.open(front)
            client = h2.connection.H2Connection(h2.config.H2Configuration(header_encoding=None))
            client.initiate_connection()
            fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a")]
            paths = ["/same", "/same", *(f"/{number}" for number in range(600))]
            for number, path in enumerate(paths):
                client.send_headers(2 * number + 1, [*fields, (":path", path)], end_stream=True)
                raw.send(client.data_to_send())
                ended = False
                while not ended:
                    events = client.receive_data(await wire.within(raw.reader.read(65_536)))
                    ended = any(isinstance(event, h2.events.StreamEnded) for event in events)
            assert handler.seen[0].head is handler.seen[1].head
            assert [exchange.head.path for exchange in handler.seen] == paths
            assert len(front._connections.http2_heads) <= 256
            await raw.close()

    wire.run(main())


def test_what_is_in_a_frame_is_not_described_for_a_log_that_is_not_kept():
    """The library would write each DATA frame again, and all of it in hexadecimal."""
    client = h2.connection.H2Connection()
    client.initiate_connection()
    fields = [(":method", "POST"), (":path", "/"), (":scheme", "http"), (":authority", "a")]
    client.send_headers(1, fields)
    client.send_data(1, bytes(10_000))
    frames = Frames(Limits())
    frames.begin()
    called = set()
    sys.setprofile(lambda frame, event, function: called.add(getattr(function, "__name__", "")))
    try:
        events = frames.receive_data(client.data_to_send())
    finally:
        sys.setprofile(None)
    (data,) = [event for event in events if isinstance(event, h2.events.DataReceived)]
    assert data.data == bytes(10_000)
    assert "hexlify" not in called
