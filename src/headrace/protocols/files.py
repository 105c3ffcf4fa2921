"""``/v1/files``: what jobs are to run, and what they have left. Files are streamed both ways, never held whole.

https://platform.openai.com/docs/api-reference/files
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Literal, NoReturn

import msgspec
from msgspec import UNSET, UnsetType

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.job import StoredFile
from headrace.protocols.arriving import Arriving
from headrace.protocols.body import refuse
from headrace.protocols.call import Call
from headrace.protocols.exchange import Head
from headrace.protocols.jobs_port import Files, Jobs, Upload
from headrace.protocols.listing import asked_limit, asked_order, page
from headrace.protocols.multipart import Multipart, Part, PartEnd, Piece, boundary_of
from headrace.protocols.pending import Pending
from headrace.protocols.router import Route

PATH = "/v1/files"
WRITE_BYTES = 1024 * 1024
"""Collected before they are written."""
FIELD_BYTES = 1024
"""Of a field that is not the file."""
MAX_LISTED = 10_000
PURPOSES = ("batch", "user_data")
"""What may be sent: the rest of OpenAI's purposes is for what this server does not do."""
LEAST_S, MOST_S = 3600, 2_592_000
"""Of ``expires_after``, as OpenAI has it."""


class FileObject(msgspec.Struct, frozen=True, gc=False):
    """A file as OpenAI shows it. ``created_at``, ``expires_at``: Unix seconds."""

    id: str
    object: Literal["file"]
    bytes: int
    created_at: int
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"
    expires_at: int | None | UnsetType = UNSET


class FileList(msgspec.Struct, frozen=True, gc=False):
    """A page of them."""

    data: list[FileObject]
    first_id: str | None
    last_id: str | None
    has_more: bool
    object: Literal["list"] = "list"


class FileDeleted(msgspec.Struct, frozen=True, gc=False):
    id: str
    object: Literal["file"] = "file"
    deleted: bool = True


class FileEndpoints:
    """``jobs``: None where nothing is kept, and there are no files."""

    def __init__(self, jobs: Jobs | None) -> None:
        self._jobs = jobs

    def routes(self) -> Sequence[Route]:
        return (
            Route("POST", PATH, self.create),
            Route("GET", PATH, self.list),
            Route("GET", PATH + "/{file}", self.state),
            Route("DELETE", PATH + "/{file}", self.delete),
            Route("GET", PATH + "/{file}/content", self.content),
        )

    def create(self, call: Call, _: str) -> Pending:
        """Take a file while it comes; what is answered is on the disk."""
        files = self._files()
        multipart = Multipart(boundary_of(call.header(b"content-type") or ""))
        arriving = Arriving(call.exchange)  # now: the body does not wait until a task begins
        return self._take(call, arriving, multipart, _Form(files, call.tenant))

    @staticmethod
    async def _take(call: Call, arriving: Arriving, multipart: Multipart, form: _Form) -> None:
        try:
            while data := await arriving.following():
                for event in multipart.feed(data):
                    await form.take(event)
                arriving.taken(len(data))
            if not multipart.over:
                raise HeadraceError(Code.INVALID_REQUEST, "The body ends in the middle of a part.")
            call.json(file_object(await form.kept()))
        finally:
            arriving.close()
            form.close()

    async def list(self, call: Call, _: str) -> None:
        query = call.query()
        limit = asked_limit(query, MAX_LISTED, MAX_LISTED)
        order = asked_order(query)
        purpose = query.get("purpose")
        found = await self._files().list(call.tenant, purpose, query.get("after"), limit + 1, order)
        files = [file_object(file) for file in found]
        call.json(FileList(*page(files, [file.id for file in found], limit)))

    async def state(self, call: Call, id: str) -> None:
        call.json(file_object(await self._files().find(id, call.tenant)))

    async def delete(self, call: Call, id: str) -> None:
        file = await self._files().delete(id, call.tenant)
        call.json(FileDeleted(file.id))

    async def content(self, call: Call, id: str) -> None:
        files = self._files()
        file = await files.find(id, call.tenant)
        await _send(call, files, file)

    def _files(self) -> Files:
        return require(self._jobs).files


def require(jobs: Jobs | None) -> Jobs:
    """Raises ``NOT_FOUND`` where there are no jobs."""
    if jobs is None:
        said = "This server keeps nothing on a disk (store.url is memory:), and so it has no files and no batches."
        raise HeadraceError(Code.NOT_FOUND, said)
    return jobs


def takes_as_it_comes(head: Head) -> bool:
    """Whether the body of such a request is streamed, however long it is."""
    return head.path == PATH and head.method == "POST"


def file_object(file: StoredFile) -> FileObject:
    return FileObject(
        file.id,
        "file",
        file.bytes,
        int(file.created_at),
        file.filename,
        file.purpose,
        expires_at=UNSET if file.expires_at is None else int(file.expires_at),
    )


async def _send(call: Call, files: Files, file: StoredFile) -> None:
    """The whole file, no faster than its client takes it."""
    exchange = call.exchange
    drained = asyncio.Event()
    exchange.on_drain = drained.set
    headers = [
        (b"content-type", b"application/octet-stream"),
        (b"x-request-id", call.request_id.encode()),
        *call.terms.common,
    ]
    async with aclosing(files.content(file)) as pieces:
        first = await anext(pieces, b"")
        call.streams = True
        exchange.start(200, headers)
        room = exchange.send(first)
        async for piece in pieces:
            if not room:
                await drained.wait()
            drained.clear()
            room = exchange.send(piece)
    exchange.end()


class _Form:
    """The fields of an upload as they come. The file is written at once, wherever it stands among them."""

    def __init__(self, files: Files, tenant: str) -> None:
        self._files = files
        self._tenant = tenant
        self._part: Part | None = None
        self._fields: dict[str, bytes] = {}  # bounded by the parts, and each by FIELD_BYTES
        self._upload: Upload | None = None
        self._filename = ""
        self._unwritten = bytearray()

    async def take(self, event: Part | Piece | PartEnd) -> None:
        """Raises ``INVALID_REQUEST``, ``BODY_TOO_LARGE``, ``CONFLICT``, ``STORE_FAILED``."""
        match event:
            case Part():
                self._part = event
                if event.name == "file":
                    await self._begin_file(event)
                else:
                    self._fields[event.name] = b""
            case Piece(data):
                await self._more(data)
            case PartEnd():
                await self._write()
                self._part = None

    async def kept(self) -> StoredFile:
        """The whole form as a file."""
        if self._upload is None:
            raise refuse("file", "is required")
        purpose = self._fields.get("purpose", b"").decode("utf-8", "replace")
        if not purpose:
            raise refuse("purpose", "is required")
        if purpose not in PURPOSES:
            raise refuse("purpose", f"must be one of {', '.join(PURPOSES)}")
        return await self._upload.keep(self._filename, purpose, self._expires_s())

    def close(self) -> None:
        if self._upload is not None:
            self._upload.discard()

    async def _begin_file(self, part: Part) -> None:
        if self._upload is not None:
            raise refuse("file", "is there twice")
        self._filename = (part.filename or "file")[:256]
        self._upload = await self._files.draft(self._tenant)

    async def _more(self, data: bytes) -> None:
        part = self._part
        assert part is not None
        if part.name == "file":
            self._unwritten += data
            if len(self._unwritten) >= WRITE_BYTES:
                await self._write()
            return
        value = self._fields[part.name] + data
        if len(value) > FIELD_BYTES:
            raise refuse(part.name[:80], f"is longer than {FIELD_BYTES} bytes")
        self._fields[part.name] = value

    async def _write(self) -> None:
        if self._unwritten and self._upload is not None:
            data, self._unwritten = bytes(self._unwritten), bytearray()
            await self._upload.write(data)

    def _expires_s(self) -> float | None:
        seconds = self._fields.get("expires_after[seconds]")
        anchor = self._fields.get("expires_after[anchor]")
        if seconds is None and anchor is None:
            return None
        if anchor != b"created_at":
            raise refuse("expires_after.anchor", "must be created_at")
        digits = (seconds or b"").decode("latin-1")
        if not digits.isdigit() or len(digits) > 9:
            bad_seconds()
        return expires_s(int(digits))


def expires_s(seconds: int) -> float:
    """Raises ``INVALID_REQUEST``."""
    if not LEAST_S <= seconds <= MOST_S:
        bad_seconds()
    return float(seconds)


def bad_seconds() -> NoReturn:
    raise refuse("expires_after.seconds", f"must be {LEAST_S} to {MOST_S}")
