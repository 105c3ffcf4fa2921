"""The server's own log lines: text or JSON, one record one line, written by a thread of its own.

Rule: the event loop never waits for whoever reads stderr. A line goes into a bounded queue; a full
queue drops it and counts the drop. Lines name their request and generation through ``extra=``:
``logger.info("cancelled", extra={"generation": id, "request_id": rid})``.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from logging import LogRecord
from queue import Empty, Full, Queue
from typing import Any, Literal, TextIO

import msgspec

Format = Literal["text", "json"]

QUEUE_LINES = 10_000
"""Lines that may wait for the writer; more are dropped and counted."""
BATCH_LINES = 100
"""Lines that one write takes."""
CLOSE_S = 2.0
"""How long :meth:`LogWriter.close` waits for a reader of stderr that does not read."""
FIELDS = (
    "request_id",
    "generation",
    "trace_id",
    "span_id",
    "model",
    "code",
    "tenant",
    "method",
    "path",
    "status",
    "duration_ms",
)
"""What a line may carry through ``extra``, besides its message."""
ROOT = "headrace"
ACCESS = "headrace.access"

GUESTS = ("grpc", "opentelemetry")
"""Libraries whose warnings are written like ours."""
Ids = Callable[[str, str], tuple[str, str] | None]
"""From a generation's id and a request's, either of them may be empty, to trace id and span id in hex."""

_GENERATION = re.compile(r"\bgen_[0-9A-Z]{26}\b")
_REQUEST = re.compile(r"\breq_[0-9a-f]{24}\b")
_CONTROL = re.compile(r"[\x00-\x1f\x7f\x85\u2028\u2029]")


class LogWriter:
    """The handler's queue and the thread that empties it. ``dropped``: lines that found it full."""

    def __init__(self, stream: TextIO, format: Format, capacity: int = QUEUE_LINES) -> None:
        self.dropped = 0
        self._stream = stream
        self._formatter: logging.Formatter = JsonLines() if format == "json" else TextLines()
        self._queue: Queue[LogRecord | None] = Queue(capacity)
        self._thread = threading.Thread(target=self._drain, name="headrace-log", daemon=True)
        self._thread.start()

    def put(self, record: LogRecord) -> None:
        """Take a record; never waits."""
        try:
            self._queue.put_nowait(record)
        except Full:
            self.dropped += 1

    def close(self) -> None:
        """Write what is queued, then stop; gives up after ``CLOSE_S``. Idempotent."""
        if self._thread.is_alive():
            try:
                self._queue.put(None, timeout=CLOSE_S)
            except Full:
                return
            self._thread.join(CLOSE_S)

    def _drain(self) -> None:
        going = True
        while going:
            records = self._next()
            going = None not in records
            self._write([self._formatter.format(record) for record in records if record])

    def _next(self) -> list[LogRecord | None]:
        """Waits for one record and takes what is ready behind it, at most ``BATCH_LINES``."""
        records = [self._queue.get()]
        while len(records) < BATCH_LINES and records[-1] is not None:
            try:
                records.append(self._queue.get_nowait())
            except Empty:
                break
        return records

    def _write(self, lines: list[str]) -> None:
        if not lines:
            return
        try:
            self._stream.write("\n".join(lines) + "\n")
            self._stream.flush()
        except (OSError, ValueError):
            self.dropped += len(lines)


class QueuedHandler(logging.Handler):
    """Hands records to a :class:`LogWriter`, the message built: its arguments may change later. A generation
    or a request that only the message names is a field, too; ``ids`` adds those of its trace."""

    def __init__(self, writer: LogWriter, ids: Ids | None = None) -> None:
        super().__init__()
        self._writer = writer
        self._ids = ids

    def emit(self, record: LogRecord) -> None:
        record.msg = record.getMessage()
        record.args = None
        self._add_ids(record)
        if record.exc_info and not record.exc_text:
            record.exc_text = logging.Formatter().formatException(record.exc_info)
        record.exc_info = None
        self._writer.put(record)

    def _add_ids(self, record: LogRecord) -> None:
        fields = record.__dict__
        for field, pattern in (("generation", _GENERATION), ("request_id", _REQUEST)):
            if field not in fields and (found := pattern.search(record.msg)):
                fields[field] = found.group()
        if self._ids is not None:
            known = self._ids(fields.get("generation", ""), fields.get("request_id", ""))
            if known is not None:
                record.trace_id, record.span_id = known


class TextLines(logging.Formatter):
    """``2026-11-22T15:42:01.123Z INFO engines started model=smollm2-135m``; a traceback below it."""

    def format(self, record: LogRecord) -> str:
        line = (
            f"{_when(record)} {record.levelname} {_where(record)} {_one_line(record.getMessage())}"
        )
        line += "".join(f" {name}={_one_line(str(value))}" for name, value in _fields(record))
        if record.exc_text:
            line += "\n    " + record.exc_text.replace("\n", "\n    ")
        return line


class JsonLines(logging.Formatter):
    """One JSON object a line: time, level, logger, message, the fields, traceback."""

    def format(self, record: LogRecord) -> str:
        line: dict[str, Any] = {
            "time": _when(record),
            "level": record.levelname.lower(),
            "logger": _where(record),
            "message": record.getMessage(),
            **dict(_fields(record)),
        }
        if record.exc_text:
            line["traceback"] = record.exc_text
        return msgspec.json.encode(line).decode()


def configure(
    stream: TextIO,
    format: Format = "text",
    level: int = logging.INFO,
    access: bool = False,
    ids: Ids | None = None,
) -> LogWriter:
    """Send the package's lines to ``stream``; called once, by the app. ``access``: a line a request. ``ids``:
    of traces, where there are any.

    Access lines are off by default: thousands a second cost more than the requests themselves.
    """
    writer = LogWriter(stream, format)
    handler = QueuedHandler(writer, ids)
    for name in (ROOT, *GUESTS):
        logger = logging.getLogger(name)
        for old in list(logger.handlers):
            logger.removeHandler(old)
        logger.addHandler(handler)
        logger.propagate = False
    logging.getLogger(ROOT).setLevel(level)
    logging.getLogger(ACCESS).setLevel(logging.INFO if access else logging.WARNING)
    return writer


class AccessLog:
    """One line a request. Ask ``enabled`` first: a disabled log then costs one test."""

    __slots__ = ("_logger", "enabled")

    def __init__(self) -> None:
        self._logger = logging.getLogger(ACCESS)
        self.enabled = self._logger.isEnabledFor(logging.INFO)

    def line(
        self,
        method: str,
        path: str,
        status: int,
        duration_s: float,
        request_id: str,
        generation: str,
    ) -> None:
        """``path`` without its query: a query may carry a token."""
        extra = {
            "method": method,
            "path": path,
            "status": status,
            "duration_ms": round(duration_s * 1000, 2),
            "request_id": request_id,
            "generation": generation,
        }
        self._logger.info("answered", extra=extra)


def _fields(record: LogRecord) -> list[tuple[str, Any]]:
    values = record.__dict__
    return [(name, values[name]) for name in FIELDS if values.get(name) not in (None, "")]


def _where(record: LogRecord) -> str:
    return record.name.removeprefix(ROOT + ".")


def _when(record: LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(text: str) -> str:
    return _CONTROL.sub(lambda match: match.group().encode("unicode_escape").decode(), text)
