"""What the tests of jobs share: somebody who answers rows by script, and a folder of jobs."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.event import Usage
from headrace.domain.job import Job, Order, RowAnswer, RowAsked
from headrace.jobs.jobs import Jobs
from headrace.jobs.limits import Limits

CHAT = "/v1/chat/completions"
Say = Callable[[RowAsked], Any]
"""What a row is answered with: text, an error that is raised, or an awaitable of one of them."""


def line(name: str, text: str = "hi", model: str = "m", url: str = CHAT, **body: Any) -> bytes:
    messages = [{"role": "user", "content": text}]
    row = {"custom_id": name, "method": "POST", "url": url}
    return json.dumps({**row, "body": {"model": model, "messages": messages, **body}}).encode()


def text_of(asked: RowAsked) -> str:
    text: str = json.loads(asked.body)["messages"][-1]["content"]
    return text


class ScriptedAnswers:
    """Answers at once, or as ``say`` says. ``asked``: how often each key was. While it is ``behind``, ``kept`` says
    that waiting for it fails."""

    def __init__(self, say: Say = lambda asked: "yes", slots: int = 4) -> None:
        self.say = say
        self.places = slots
        self.asked: Counter[str] = Counter()
        self.order: list[str] = []
        self.inside = self.most_inside = 0
        self.aborted: list[str] = []
        self.behind = False
        self.kept = asyncio.Event()

    def slots(self, model: str, endpoint: str) -> tuple[str, int]:
        if model not in ("m", "other"):
            raise HeadraceError(Code.MODEL_NOT_FOUND, f"There is no model {model!r}.")
        return model, self.places

    async def caught_up(self) -> None:
        if self.behind:
            await self.kept.wait()
        if self.behind:
            raise HeadraceError(Code.STORE_FAILED, "The database is full.")

    async def ask(self, asked: RowAsked) -> RowAnswer:
        self.asked[asked.key] += 1
        self.order.append(text_of(asked))
        self.inside += 1
        self.most_inside = max(self.inside, self.most_inside)
        try:
            said = self.say(asked)
            if asyncio.iscoroutine(said) or isinstance(said, asyncio.Future):
                said = await said
        finally:
            self.inside -= 1
        if isinstance(said, Exception):
            raise said
        body = {"text": said, "usage": {"prompt_tokens": 3, "completion_tokens": 2}}
        return RowAnswer(200, "req_1", json.dumps(body).encode(), Usage(3, 2))

    def refusal(self, error: HeadraceError) -> RowAnswer:
        body = {"error": {"message": error.message, "code": error.code.value}}
        return RowAnswer(error.meaning.http, "req_1", json.dumps(body).encode())

    def abort(self, tenant: str, group: str) -> None:
        del tenant
        self.aborted.append(group)


class Yard:
    """Jobs in a folder. ``lines``: what is sent."""

    def __init__(self, folder: Path, answers: ScriptedAnswers, limits: Limits) -> None:
        self.folder = folder
        self.answers = answers
        self.jobs = Jobs(folder, answers, limits, pause_s=0.01)

    async def send(self, lines: Sequence[bytes], tenant: str = "default") -> str:
        upload = await self.jobs.files.draft(tenant)
        await upload.write(b"\n".join(lines))
        return (await upload.keep("in.jsonl", "batch", None)).id

    async def begin(self, lines: Sequence[bytes], **order: Any) -> Job:
        tenant = order.get("tenant", "default")
        fields = {"tenant": tenant, "key_id": "", "endpoint": CHAT, "window": "24h"}
        fields |= {"window_s": 86_400.0, **order}
        if "input_file" not in fields:
            fields["input_file"] = await self.send(lines, tenant)
        return await self.jobs.create(Order(**fields))

    async def until(self, job: Job, wanted: Callable[[Job], bool] = lambda job: job.over) -> Job:
        """The job, as soon as it is as ``wanted``."""
        async with asyncio.timeout(20):
            while not wanted(now := await self.jobs.find(job.id, job.order.tenant)):  # noqa: ASYNC110 - as a client polls
                await asyncio.sleep(0.002)
        return now

    async def rows(self, job: Job) -> tuple[list[Any], list[Any]]:
        """What an ended job has left: rows with an answer, and with an error."""
        found = []
        for id in (job.output_file, job.error_file):
            data = b""
            if id in job.left:
                file = await self.jobs.files.find(id, job.order.tenant)
                data = b"".join([piece async for piece in self.jobs.files.content(file)])
            found.append([json.loads(row) for row in data.splitlines()])
        return found[0], found[1]


@asynccontextmanager
async def yard(
    folder: Path, answers: ScriptedAnswers | None = None, limits: Limits | None = None
) -> AsyncIterator[Yard]:
    """Open, and left as a stopped server leaves it."""
    here = Yard(folder, answers or ScriptedAnswers(), limits or Limits())
    await here.jobs.open()
    try:
        yield here
    finally:
        await here.jobs.close()
