"""``pull``: the asynchronous door to the model cache. What is not there a child process brings.

The child keeps numpy and downloads out of the server; it ends when the caller does, however it ends.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from pathlib import Path

import msgspec

from headrace.domain.errors import Code, HeadraceError
from headrace.models.cache import ModelCache
from headrace.models.report import Failed, Line, Ready, Stepped
from headrace.models.wanted import ModelFile, Report, Wanted

_LONGEST_LINE_BYTES = 64 * 1024 * 1024
"""The result carries a vocabulary's partial tokens."""

_STOP_S = 5.0
_LINES: msgspec.json.Decoder[Line] = msgspec.json.Decoder(Line)


async def pull(root: Path, wanted: Wanted, report: Report) -> ModelFile:
    """The wanted file from the cache in ``root``; fetched first if need be.

    ``report`` is called on the event loop. Cancelling ends the fetch and leaves nothing half-made.
    Raises :class:`HeadraceError`: ``ENGINE_UNAVAILABLE`` (no network, wrong checksum, disk full …) or
    ``INVALID_REQUEST`` (no such kind of source), each with one line for the user.
    """
    found = ModelCache(root).find(wanted)
    if found:
        return found
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "headrace.models", str(root)),
        stdin=PIPE,
        stdout=PIPE,
        stderr=PIPE,
        limit=_LONGEST_LINE_BYTES,
        start_new_session=True,  # Ctrl-C is ours to handle; the child would print a traceback
    )
    complaints = asyncio.ensure_future(_text(child.stderr))
    try:
        await _order(child, wanted)
        file = await _result(child, report)
    finally:
        await _end(child)
        last = (await complaints).strip().rpartition("\n")[2]
    if file is None:
        text = f"fetching {wanted.source} failed: {last or 'its process was killed'}"
        raise HeadraceError(Code.ENGINE_UNAVAILABLE, text)
    return file


async def _order(child: Process, wanted: Wanted) -> None:
    assert child.stdin
    child.stdin.write(msgspec.json.encode(wanted) + b"\n")
    with suppress(ConnectionError):
        await child.stdin.drain()


async def _result(child: Process, report: Report) -> ModelFile | None:
    """What the child's last line says; None if it ended without one."""
    assert child.stdout
    while text := await child.stdout.readline():
        line: Line = _LINES.decode(text)
        match line:
            case Stepped(step):
                report(step)
            case Ready(file):
                return file
            case Failed(code, message):
                raise HeadraceError(code, message)
    return None


async def _text(stream: asyncio.StreamReader | None) -> str:
    return (await stream.read()).decode(errors="replace") if stream else ""


async def _end(child: Process) -> None:
    """Its stdin closes, so it cleans up and ends; only if it does not, it is killed."""
    assert child.stdin
    child.stdin.close()
    try:
        await asyncio.wait_for(child.wait(), _STOP_S)
    except TimeoutError:
        with suppress(ProcessLookupError):
            child.kill()
        await child.wait()
