"""A job of ``headrace batch``: from a person's file to a server, and back; each step is begun again where it was.

Everything that is known of it is in a folder beside the output, until that is there.
"""

from __future__ import annotations

import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import Any

import msgspec

from headrace.cli.batch_bar import Seen
from headrace.cli.batch_rows import Wishes, rows
from headrace.cli.connection import Server
from headrace.cli.errors import Mistake
from headrace.domain.errors import Code, HeadraceError
from headrace.domain.job import OVER

POLL_S = 0.5
RETRY_S = 2.0
PIECE_BYTES = 256 * 1024
BOUNDARY = "headrace-batch-7Kq2"
Show = Callable[[str, Seen], None]


class Known(msgspec.Struct):
    """What is known of a job so far. ``input``: which file it was made of, and how. ``spread``: what its rows are
    called where no server has given it a name; ``settling``: what it leaves is being put in its place."""

    input: str
    prepared: bool = False
    file: str | None = None
    batch: str | None = None
    taken: bool = False
    spread: str | None = None
    settling: bool = False


class Job:
    """``source`` to ``output``; rows with an error go beside it, if there are any."""

    def __init__(self, source: Path, output: Path, wishes: Wishes, show: Show) -> None:
        self._source = source
        self.output = output
        self.errors = output.with_name(f"{output.stem}.errors.jsonl")
        self.folder = output.with_name(f"{output.name}.headrace")
        self._wishes = wishes
        self.show = show
        self._known = self._look()

    def run(self, server: Server) -> dict[str, Any]:
        """Follow it to its end; the batch as it ended. Raises :class:`Mistake`, and ``OSError`` where the server is
        not there."""
        self.prepare()
        known = self._known
        if known.batch is None:
            known.batch = self._found(server) or self._begin(server)
            self._keep()
        batch = self._follow(server, known.batch)
        if batch["status"] == "failed":
            self._remove()
            raise Mistake("; ".join(self._complaints(batch)))
        if not known.taken:
            self._take(server, batch)
        self._leave_nothing(server, batch)
        return batch

    def prepare(self) -> None:
        """The input as the server takes it."""
        if self._known.prepared:
            return
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._keep()
        with self.input.open("wb") as file:
            for count, row in enumerate(rows(self._source, self._wishes), 1):
                file.write(json.dumps(row, ensure_ascii=False, default=str).encode() + b"\n")
                if count % 1000 == 0:
                    self.show(f"reading, {count:,} rows so far", Seen())
            file.flush()
            os.fsync(file.fileno())
        self._known.prepared = True
        self._keep()

    def clear(self) -> None:
        """What is left of it when it is over."""
        shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def input(self) -> Path:
        """As the server takes it."""
        return self.folder / "input.jsonl"

    # Its steps where there is no one server.

    def spread_as(self, new: Callable[[float], str]) -> str:
        """A name for its rows, made by ``new`` of the time; the same in each run of it."""
        known = self._known
        if known.spread is None:
            known.spread = new(time.time())
            self._keep()
        return known.spread

    def kept_at(self, path: Path) -> Path:
        """Where the results are that will be at ``path``."""
        draft = self.folder / path.name
        return path if self._known.settling and not draft.exists() else draft

    def put_in_place(self) -> None:
        """What is complete; no errors are no file."""
        self._known.settling = True
        self._keep()
        for path in (self.errors, self.output):
            draft = self.folder / path.name
            if draft.exists() and (draft.stat().st_size or path is self.output):
                draft.replace(path)

    # Its steps at the server.

    def _found(self, server: Server) -> str | None:
        """The batch, if a run before began it and could not say so any more."""
        if self._known.file is None:
            return None
        for batch in _json(server, "GET", "/v1/batches?limit=100")["data"]:
            if batch["input_file_id"] == self._known.file:
                return str(batch["id"])
        return None

    def _begin(self, server: Server) -> str:
        known = self._known
        if known.file is None:
            known.file = self._send(server)
            self._keep()
        with self.input.open("rb") as file:
            endpoint = json.loads(file.readline() or b"{}").get("url", "")
        asked = {
            "input_file_id": known.file,
            "endpoint": endpoint,
            "completion_window": "30d",
            "metadata": {"source": self._source.name[:512]},
        }
        return str(_json(server, "POST", "/v1/batches", asked)["id"])

    def _send(self, server: Server) -> str:
        self.show("sending", Seen())
        part = '--{}\r\nContent-Disposition: form-data; name="{}"{}\r\n\r\n'
        before = part.format(BOUNDARY, "purpose", "") + "batch\r\n"
        before += part.format(BOUNDARY, "file", f'; filename="{self.input.name}"')
        after = f"\r\n--{BOUNDARY}--\r\n"
        size = self.input.stat().st_size + len(before) + len(after)

        def pieces() -> Iterator[bytes]:
            yield before.encode()
            with self.input.open("rb") as file:
                while piece := file.read(PIECE_BYTES):
                    yield piece
            yield after.encode()

        headers = {
            "content-type": f"multipart/form-data; boundary={BOUNDARY}",
            "content-length": str(size),
        }
        with server.send("/v1/files", pieces(), headers) as response:
            return str(json.loads(response.read())["id"])

    def _follow(self, server: Server, id: str) -> dict[str, Any]:
        while True:
            try:
                batch: dict[str, Any] = _json(server, "GET", f"/v1/batches/{id}")
            except (OSError, HTTPException) as error:
                self.show(f"waiting for the server ({error})", Seen())
                time.sleep(RETRY_S)
                continue
            counts, usage = batch["request_counts"], batch.get("usage") or {}
            seen = Seen(
                counts["total"],
                counts["completed"],
                counts["failed"],
                usage.get("output_tokens", 0),
                batch.get("paused"),
            )
            self.show(batch["status"].replace("_", " "), seen)
            if batch["status"] in OVER:
                return batch
            time.sleep(POLL_S)

    def _take(self, server: Server, batch: dict[str, Any]) -> None:
        """The results, each as a whole or not at all."""
        for id, path in (
            (batch["output_file_id"], self.output),
            (batch["error_file_id"], self.errors),
        ):
            if id is None:
                if path is self.output:
                    path.touch()
                continue
            draft = self.folder / "draft"
            with (
                server.request("GET", f"/v1/files/{id}/content") as response,
                draft.open("wb") as file,
            ):
                shutil.copyfileobj(response, file, PIECE_BYTES)
                file.flush()
                os.fsync(file.fileno())
            draft.replace(path)
        self._known.taken = True
        self._keep()

    def _leave_nothing(self, server: Server, batch: dict[str, Any]) -> None:
        for id in (batch["input_file_id"], batch["output_file_id"], batch["error_file_id"]):
            if id is not None:
                try:
                    server.request("DELETE", f"/v1/files/{id}").close()
                except HeadraceError as error:
                    if error.code is not Code.NOT_FOUND:
                        raise

    def _complaints(self, batch: dict[str, Any]) -> list[str]:
        said = [str(error["message"]) for error in (batch["errors"] or {}).get("data", [])]
        return [*said[:10], *(["…"] if len(said) > 10 else [])]

    def _remove(self) -> None:
        """So that the next run begins with what the input is then."""
        self._known = Known(self._known.input)
        self._keep()

    # What is known.

    def _look(self) -> Known:
        found = self._source.stat()
        said = [self._source.name, found.st_size, found.st_mtime_ns, *self._wishes]
        now = json.dumps(said)
        try:
            known = msgspec.json.decode((self.folder / "job.json").read_bytes(), type=Known)
        except FileNotFoundError:
            if self.output.exists():
                raise Mistake(
                    f"{self.output} is there already; remove it, or choose another"
                ) from None
            return Known(now)
        if known.input != now:
            raise Mistake(
                f"{self._source}, or what is asked of it, has changed since this job was begun;"
                f" remove {self.folder} to begin anew"
            )
        return known

    def _keep(self) -> None:
        draft = self.folder / "job.json.new"
        draft.write_bytes(msgspec.json.encode(self._known))
        draft.replace(self.folder / "job.json")


def _json(server: Server, method: str, path: str, body: Any = None) -> Any:
    with server.request(method, path, body) as response:
        return json.loads(response.read())
