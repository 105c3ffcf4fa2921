"""``headrace batch --ray``: the same job on Ray Data, for where one machine is too small.

This process reads the input and writes the output, each row once, as the server does that runs a job alone. In between
pieces of the input go through Ray Data to workers, and each has its piece answered as a batch: by a server of its own,
with its own engine, or by one at a URL. A worker reads its piece from the job's folder, which all workers must see.
What a worker that dies had of a piece is computed again by another; what is in the output never is.
"""

from __future__ import annotations

import asyncio
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from headrace.cli.batch_bar import Seen
from headrace.cli.batch_job import Job
from headrace.cli.batch_rows import Wishes
from headrace.cli.connection import Server
from headrace.cli.errors import Mistake
from headrace.cli.own_server import OwnServer
from headrace.domain.ids import Ulids
from headrace.jobs.done import Done
from headrace.jobs.lines import BadInput, Lines
from headrace.jobs.results import Results
from headrace.jobs.rows import RowBody
from headrace.jobs.validation import look_through

PIECE_ROWS = 1024
"""At most: what a worker that dies loses."""
PIECES = 4
"""For each worker, where there are few rows: none is done long before the others."""
MOST_ROWS = 10**9
TRIES = 5
"""Of a piece, by a worker whose own server dies."""


class Cluster(NamedTuple):
    """``address``: of Ray's head, or `local` for this machine. ``workers``: None for one on each machine. ``url``,
    ``key``: the server that all ask; without, each has its own, as ``config`` says."""

    address: str
    workers: int | None
    url: str | None
    key: str | None
    config: str | None


class Piece(msgspec.Struct):
    """Lines of the input, from byte ``offset`` on. ``numbers``: of the lines that are still to be answered."""

    path: str
    job: str
    offset: int
    first: int
    lines: int
    numbers: list[int]


class _Answered(msgspec.Struct):
    """A line of a batch's results. ``custom_id``: a line's number here."""

    custom_id: str
    response: msgspec.Raw
    error: msgspec.Raw


class RayJob:
    """A job whose rows are answered by a cluster."""

    def __init__(self, job: Job, cluster: Cluster) -> None:
        self._job = job
        self._cluster = cluster
        self._done = Done()

    def run(self) -> dict[str, Any]:
        """To its end, from wherever a run before left it; a batch as a server would tell of it. Raises
        :class:`Mistake`."""
        job = self._job
        job.prepare()
        total = asyncio.run(_rows(job.input))
        name = job.spread_as(Ulids().new)
        output, errors = Results(job.kept_at(job.output)), Results(job.kept_at(job.errors))
        try:
            for results in (output, errors):
                results.load(self._done)
            for number, line, failed in self._answers(name, total):
                if number not in self._done:
                    (errors if failed else output).add(line, self._done)
                job.show(
                    "on Ray", Seen(total, output.count, errors.count, output.completion_tokens)
                )
            output.sync()
            errors.sync()
        finally:
            output.close()
            errors.close()
        job.put_in_place()
        counts = {"total": total, "completed": output.count, "failed": errors.count}
        tokens = {
            "input_tokens": output.prompt_tokens,
            "output_tokens": output.completion_tokens,
        }
        return {"request_counts": counts, "usage": tokens}

    def _answers(self, name: str, total: int) -> Iterator[tuple[int, bytes, bool]]:
        """Number, line, and whether it is an error, of each row that is not done, in the order of their ends."""
        try:
            import ray
            from ray import data
        except ImportError:
            raise Mistake("--ray needs Ray: pip install 'headrace[ray]'") from None
        cluster = self._cluster
        where = None if cluster.address == "local" else cluster.address
        ray.init(
            address=where, log_to_driver=False, logging_level="warning", ignore_reinit_error=True
        )
        try:
            workers = cluster.workers or len([node for node in ray.nodes() if node["Alive"]])
            size = max(1, min(PIECE_ROWS, -(-total // (PIECES * workers))))
            pieces = list(_pieces(self._job.input, name, size, self._done))
            if not pieces:
                return
            asked = [{"piece": msgspec.json.encode(piece)} for piece in pieces]
            answered = data.from_items(asked, override_num_blocks=len(asked)).map_batches(
                Worker,
                fn_constructor_args=(cluster,),
                batch_size=1,
                concurrency=workers,
                num_cpus=0,
                scheduling_strategy="SPREAD",
            )
            for row in answered.iter_rows():
                yield int(row["number"]), bytes(row["line"]), bool(row["failed"])
        finally:
            ray.shutdown()


class Worker:
    """Has pieces answered, in a process of Ray's."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._own: OwnServer | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
        found: dict[str, list[Any]] = {"number": [], "line": [], "failed": []}
        for encoded in batch["piece"]:
            piece = msgspec.json.decode(bytes(encoded), type=Piece)
            with tempfile.TemporaryDirectory(prefix="headrace-piece-") as folder:
                for number, line, failed in self._answer(piece, Path(folder)):
                    found["number"].append(number)
                    found["line"].append(line)
                    found["failed"].append(failed)
        return found

    def _answer(self, piece: Piece, folder: Path) -> Iterator[tuple[int, bytes, bool]]:
        source = folder / "rows.jsonl"
        names = _write(piece, source)
        job = Job(source, folder / "answers.jsonl", Wishes(), _nothing)
        self._run(job)
        for path, failed in ((job.output, False), (job.errors, True)):
            if path.exists():
                with path.open("rb") as file:
                    for line in file:
                        row = msgspec.json.decode(line, type=_Answered)
                        number = int(row.custom_id)
                        yield number, _line(piece.job, number, names[number], row), failed

    def _run(self, job: Job) -> None:
        """What a server has done of it when it dies is lost with it, and done again by the next."""
        for left in reversed(range(TRIES)):
            try:
                job.run(self._server())
            except OSError:
                if not left:
                    raise
            else:
                return

    def _server(self) -> Server:
        if self._cluster.url is not None:
            return Server(self._cluster.url, self._cluster.key)
        if self._own is None or not self._own.runs:
            self._own = OwnServer(self._cluster.config)
        return self._own.server


async def _rows(path: Path) -> int:
    """How many rows the input has. Raises :class:`Mistake` that names the lines that are none."""
    with path.open("rb") as file:
        endpoint = json.loads(file.readline() or b"{}").get("url", "")
    try:
        with Lines(path) as lines:
            found = await look_through(lines, endpoint, MOST_ROWS)
    except BadInput as bad:
        raise Mistake(bad.error.message) from None
    if found.errors:
        raise Mistake("; ".join(error.message for error in found.errors[:10]))
    return found.rows


def _pieces(path: Path, job: str, size: int, done: Done) -> Iterator[Piece]:
    """The input in pieces of so many lines, without those that have none to answer."""
    with path.open("rb") as file:
        number = offset = 0
        while True:
            first, start, left = number + 1, offset, []
            for line in file:
                number += 1
                offset += len(line)
                if number not in done:
                    left.append(number)
                if number - first + 1 == size:
                    break
            if number < first:
                return
            if left:
                yield Piece(str(path.resolve()), job, start, first, number - first + 1, left)


def _write(piece: Piece, target: Path) -> dict[int, str]:
    """The piece's rows, named by their numbers; returns what they were named."""
    names: dict[int, str] = {}
    wanted = set(piece.numbers)
    with open(piece.path, "rb") as file, target.open("wb") as rows:
        file.seek(piece.offset)
        for number in range(piece.first, piece.first + piece.lines):
            line = file.readline()
            if number in wanted:
                row = msgspec.json.decode(line, type=RowBody)
                names[number] = row.custom_id
                rows.write(msgspec.json.encode(msgspec.structs.replace(row, custom_id=str(number))))
                rows.write(b"\n")
    return names


def _line(job: str, number: int, name: str, row: _Answered) -> bytes:
    """As a job writes it."""
    head = b'{"id":"batch_req_%b_%d","custom_id":%b,"response":%b,"error":%b}\n'
    encoded = msgspec.json.encode(name)
    return head % (job.encode(), number, encoded, bytes(row.response), bytes(row.error))


def _nothing(what: str, seen: Seen) -> None:
    """Nobody watches a piece."""
