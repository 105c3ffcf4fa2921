from __future__ import annotations

import io
import json
import logging
import os
import threading
from collections.abc import Iterator

import pytest

from headrace.telemetry.logs import ACCESS, GUESTS, ROOT, AccessLog, Format, LogWriter, configure


@pytest.fixture(autouse=True)
def _loggers_left_as_found() -> Iterator[None]:
    root, access = logging.getLogger(ROOT), logging.getLogger(ACCESS)
    before = (list(root.handlers), root.level, root.propagate, access.level)
    guests = [logging.getLogger(name) for name in GUESTS]
    yield
    for guest in guests:
        guest.handlers, guest.propagate = [], True
    root.handlers, root.propagate = before[0], before[2]
    root.setLevel(before[1])
    access.setLevel(before[3])


def written(format: Format, access: bool, *calls: tuple[int, str, dict[str, object]]) -> list[str]:
    stream = io.StringIO()
    writer = configure(stream, format, access=access)
    for level, message, extra in calls:
        logging.getLogger("headrace.engines.child").log(level, message, extra=extra)
    writer.close()
    return stream.getvalue().splitlines()


def test_a_json_line_carries_request_and_generation() -> None:
    extra: dict[str, object] = {"request_id": "r1", "generation": "gen_1", "model": "m"}
    (line,) = written("json", False, (logging.WARNING, "the engine died", extra))
    said = json.loads(line)
    assert said.pop("time").endswith("Z")
    assert said == {
        "level": "warning",
        "logger": "engines.child",
        "message": "the engine died",
        "request_id": "r1",
        "generation": "gen_1",
        "model": "m",
    }


def test_a_text_line_stays_one_line_whatever_a_client_sent() -> None:
    forged = "x\n2026-01-01T00:00:00Z INFO forged\x1b[2J"
    (line,) = written("text", False, (logging.INFO, "hello\r", {"request_id": forged}))
    assert "hello\\r" in line
    assert line.endswith("request_id=x\\n2026-01-01T00:00:00Z INFO forged\\x1b[2J")


def test_what_is_below_the_level_is_not_written() -> None:
    assert written("text", False, (logging.DEBUG, "detail", {})) == []


@pytest.mark.parametrize("format", ["text", "json"])
def test_a_traceback_comes_with_its_line(format: Format) -> None:
    stream = io.StringIO()
    writer = configure(stream, format)
    try:
        raise ValueError("broken inside")
    except ValueError:
        logging.getLogger("headrace.app").exception("ours")
    writer.close()
    assert "Traceback" in stream.getvalue()
    assert "broken inside" in stream.getvalue()


def test_a_reader_that_does_not_read_costs_dropped_lines_and_no_waiting() -> None:
    reading, writing = os.pipe()
    stuck = os.fdopen(writing, "w")
    writer = LogWriter(stuck, "text", capacity=10)
    record = logging.makeLogRecord({"msg": "x" * 4096, "levelno": logging.INFO, "name": ROOT})

    def flood() -> None:
        while writer.dropped < 100:
            writer.put(record)

    flooding = threading.Thread(target=flood, daemon=True)
    flooding.start()
    flooding.join(timeout=30)
    assert writer.dropped >= 100
    os.close(reading)


def test_access_lines_are_off_unless_asked_for() -> None:
    configure(io.StringIO())
    assert not AccessLog().enabled


def test_an_access_line_names_the_request_and_its_cost() -> None:
    stream = io.StringIO()
    writer = configure(stream, "json", access=True)
    access = AccessLog()
    assert access.enabled
    access.line("POST", "/v1/chat/completions", 200, 0.0123, "r1", "gen_1")
    writer.close()
    said = json.loads(stream.getvalue())
    assert (said["method"], said["path"], said["status"]) == ("POST", "/v1/chat/completions", 200)
    assert (said["duration_ms"], said["generation"]) == (12.3, "gen_1")


def test_configuring_again_replaces_the_stream() -> None:
    old, new = io.StringIO(), io.StringIO()
    first = configure(old)
    second = configure(new)
    logging.getLogger("headrace.app").info("once")
    first.close()
    second.close()
    assert old.getvalue() == ""
    assert new.getvalue().count("once") == 1


def test_a_line_carries_the_ids_of_its_trace() -> None:
    known = {"gen_01KAYYZ3Q8V1N2M3P4R5S6T7V8": ("aa", "bb")}
    stream = io.StringIO()
    writer = configure(stream, "json", ids=lambda generation, request: known.get(generation))
    logger = logging.getLogger("headrace.streams")
    logger.error("%s cannot be stored", "gen_01KAYYZ3Q8V1N2M3P4R5S6T7V8")
    logger.error("request %s failed in the server", "req_" + "0" * 24)
    logger.error("nothing of that")
    writer.close()
    first, second, third = map(json.loads, stream.getvalue().splitlines())
    assert (first["trace_id"], first["span_id"]) == ("aa", "bb")
    assert first["generation"] == "gen_01KAYYZ3Q8V1N2M3P4R5S6T7V8"
    assert second["request_id"] == "req_" + "0" * 24
    assert "trace_id" not in second
    assert "generation" not in third


def test_what_the_exporter_complains_of_is_a_line_too() -> None:
    stream = io.StringIO()
    writer = configure(stream, "text")
    logging.getLogger("opentelemetry.exporter").warning("cannot be reached")
    writer.close()
    assert "WARNING opentelemetry.exporter cannot be reached" in stream.getvalue()
