"""Runs a job of so many rows, answered at once, in a process of its own, and prints its peak memory in KiB.

usage: python -m tests.jobs.large ROWS FOLDER
"""

from __future__ import annotations

import asyncio
import resource
import sys
from pathlib import Path

from headrace.jobs.limits import Limits
from tests.jobs.parts import ScriptedAnswers, Yard, line

CHUNK = 1000


class Forgetful(ScriptedAnswers):
    """Does not remember what it was asked."""

    async def ask(self, asked):  # type: ignore[no-untyped-def]
        answer = await super().ask(asked)
        self.asked.clear()
        self.order.clear()
        return answer


async def main(rows: int, folder: Path) -> None:
    here = Yard(folder, Forgetful(), Limits())
    await here.jobs.open()
    upload = await here.jobs.files.draft("default")
    for start in range(0, rows, CHUNK):
        count = min(CHUNK, rows - start)
        lines = [line(f"row-{start + n}", f"question {start + n}") for n in range(count)]
        await upload.write(b"\n".join([*lines, b""]))
    file = await upload.keep("in.jsonl", "batch", None)
    job = await here.begin([], input_file=file.id)
    while not (now := await here.jobs.find(job.id, "default")).over:  # noqa: ASYNC110 - as a client polls
        await asyncio.sleep(0.05)
    assert now.counts.completed == rows, now
    await here.jobs.close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2])))
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
