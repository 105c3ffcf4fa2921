from __future__ import annotations

from headrace.engines import child_log
from headrace.engines.child_log import ChildLog


def test_lines_are_put_together_and_the_last_are_kept(tmp_path):
    log = ChildLog(None)
    log.feed(b"one\ntw")
    log.feed(b"o\nthree")
    assert log.last(2) == ["two", "three"]
    for at in range(1000):
        log.feed(b"%d\n" % at)
    assert len(log.last(10_000)) == child_log.KEPT_LINES
    assert log.last(1) == ["999"]


def test_an_endless_line_is_bounded():
    log = ChildLog(None)
    for _ in range(100):
        log.feed(b"x" * 1000)
    log.feed(b"\xff\n")
    assert len(log.last(1)[0]) <= child_log.MAX_LINE_BYTES


def test_the_file_is_bounded_and_keeps_the_one_before(tmp_path):
    path = tmp_path / "engines" / "m.log"
    log = ChildLog(path)
    log.open()
    piece = b"x" * 99_999 + b"\n"
    for _ in range(100):
        log.feed(piece)
    log.note("the end")
    log.close()
    log.close()
    assert path.stat().st_size <= child_log.MAX_FILE_BYTES
    assert path.with_name("m.log.1").stat().st_size <= child_log.MAX_FILE_BYTES
    assert path.read_bytes().endswith(b"headrace: the end\n")


def test_a_later_start_appends(tmp_path):
    path = tmp_path / "m.log"
    for word in (b"first\n", b"second\n"):
        log = ChildLog(path)
        log.open()
        log.feed(word)
        log.close()
    assert path.read_bytes() == b"first\nsecond\n"


def test_a_file_that_cannot_be_written_costs_only_the_file(tmp_path):
    (tmp_path / "file").write_text("")
    troubles = []
    log = ChildLog(tmp_path / "file" / "m.log", troubles.append)
    log.open()
    log.feed(b"line\n")
    assert log.last(1) == ["line"]
    assert len(troubles) == 1
    assert "m.log" in troubles[0]
