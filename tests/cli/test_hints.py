"""Lines typed while an answer comes."""

from __future__ import annotations

import os
import threading

from headrace.cli.hints import Hints


def test_lines_of_a_terminal_are_taken_and_those_refused_are_left() -> None:
    terminal, inside = os.openpty()
    seen: list[str] = []
    both = threading.Event()

    def take(line: str) -> bool:
        seen.append(line)
        if len(seen) == 2:
            both.set()
        return line == "one"

    with Hints(take, inside) as hints:
        os.write(terminal, b"one\n\n two \n")
        assert both.wait(30)
    assert (seen, hints.left) == (["one", "two"], ["two"])
    os.write(terminal, b"three\n")
    assert os.read(inside, 99) == b"three\n"  # nobody else has read it
    os.close(terminal)
    os.close(inside)


def test_what_is_no_terminal_keeps_its_lines() -> None:
    reading, writing = os.pipe()
    with Hints(lambda line: True, reading):
        os.write(writing, b"question\n")
    assert os.read(reading, 99) == b"question\n"
    os.close(reading)
    os.close(writing)
