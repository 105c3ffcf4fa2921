"""The child process that fetches: ``python -m headrace.models CACHE_FOLDER``.

One JSON line in says what is wanted; JSON lines out say how far it is, and the last what came of it.
When the parent goes, the closing of stdin ends this process, and its ``finally`` blocks clean up.
Stdin is read unbuffered: a thread that waits in a buffered reader would upset the interpreter's end.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from io import FileIO
from pathlib import Path
from typing import BinaryIO, NoReturn

import msgspec

from headrace.domain.errors import HeadraceError
from headrace.models.cache import ModelCache
from headrace.models.prepare import prepare
from headrace.models.report import Failed, Line, Ready, Stepped
from headrace.models.wanted import Step, Wanted


def main(root: Path, orders: FileIO, answers: BinaryIO) -> int:
    """Do one order. The exit status is 0 whenever the last line says what came of it."""
    wanted = msgspec.json.decode(orders.readline(), type=Wanted)
    signal.signal(signal.SIGTERM, _stop)
    threading.Thread(target=_stop_with_parent, args=(orders,), daemon=True).start()

    def say(line: Line) -> None:
        answers.write(msgspec.json.encode(line) + b"\n")
        answers.flush()

    def report(step: Step) -> None:
        say(Stepped(step))

    try:
        say(Ready(prepare(ModelCache(root), wanted, report)))
    except HeadraceError as error:
        say(Failed(error.code, error.message))
    return 0


def _stop(number: int, frame: object) -> NoReturn:
    raise SystemExit(128 + number)


def _stop_with_parent(orders: FileIO) -> None:
    orders.read(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), FileIO(0, closefd=False), sys.stdout.buffer))
