"""Jobs over scripted answers: every row once, in the output or among the errors, whatever happens."""

from __future__ import annotations

import asyncio
import errno
import os
from pathlib import Path
from typing import Any

import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.job import RowAsked
from headrace.jobs import results, retrying
from headrace.jobs.limits import Limits
from tests.jobs.parts import ScriptedAnswers, line, text_of, yard


def names(rows: list[Any]) -> list[str]:
    return sorted(row["custom_id"] for row in rows)


def numbered(count: int) -> list[bytes]:
    return [line(f"row-{n}", f"text {n}") for n in range(1, count + 1)]


def modes_below(folder: Path) -> dict[str, int]:
    return {one.name: one.stat().st_mode for one in folder.rglob("*") if one.is_file()}


def test_every_row_is_answered_once(tmp_path: Path) -> None:
    async def main() -> None:
        async with yard(tmp_path) as here:
            job = await here.until(await here.begin(numbered(50)))
            output, errors = await here.rows(job)
            assert (job.state, job.counts.total, job.counts.completed) == ("completed", 50, 50)
            assert names(output) == names([{"custom_id": f"row-{n}"} for n in range(1, 51)])
            assert not errors
            assert job.error_file not in job.left
            assert output[0]["response"]["status_code"] == 200
            assert output[0]["error"] is None
            assert set(here.answers.asked.values()) == {1}
            assert (job.usage.prompt_tokens, job.usage.completion_tokens) == (150, 100)
            assert list(job.at) == ["validating", "in_progress", "finalizing", "completed"]

    asyncio.run(main())


def test_what_others_asked_is_for_nobody_else_on_the_machine_to_read(tmp_path: Path) -> None:
    async def main() -> None:
        async with yard(tmp_path) as here:
            await here.until(await here.begin(numbered(3)))
            modes = modes_below(tmp_path)
            assert {"jobs.db", "jobs.db-wal"} <= modes.keys()
            assert {name for name, mode in modes.items() if mode & 0o077} == set()

    before = os.umask(0o022)
    try:
        asyncio.run(main())
    finally:
        os.umask(before)


def test_no_more_rows_are_under_way_than_there_is_room_for(tmp_path: Path) -> None:
    async def slowly(asked: RowAsked) -> str:
        await asyncio.sleep(0)
        return "yes"

    answers = ScriptedAnswers(slowly, slots=8)

    async def main() -> None:
        async with yard(tmp_path, answers) as here:
            first, second = await here.begin(numbered(60)), await here.begin(numbered(60))
            await here.until(first)
            await here.until(second)
            assert answers.most_inside == 8

    asyncio.run(main())


def test_rows_whose_prompts_begin_alike_run_one_after_the_other(tmp_path: Path) -> None:
    answers = ScriptedAnswers(slots=1)
    texts = [f"{kind}: {n}" for n in range(20) for kind in ("summarize", "translate")]

    async def main() -> None:
        async with yard(tmp_path, answers) as here:
            rows = [line(f"row-{n}", text) for n, text in enumerate(texts)]
            await here.until(await here.begin(rows))
            kinds = [text.partition(":")[0] for text in answers.order]
            assert kinds == ["summarize"] * 20 + ["translate"] * 20

    asyncio.run(main())


def test_a_poison_row_is_a_row_among_the_errors(tmp_path: Path) -> None:
    def say(asked: RowAsked) -> Any:
        if text_of(asked) == "text 2":
            return HeadraceError(Code.CONTEXT_LENGTH, "It is too long.")
        if text_of(asked) == "text 3":
            return RuntimeError("a bug of ours")
        return "yes"

    async def main() -> None:
        async with yard(tmp_path, ScriptedAnswers(say)) as here:
            rows = [*numbered(5), line("row-6", model="nobody's")]
            job = await here.until(await here.begin(rows))
            output, errors = await here.rows(job)
            assert job.state == "completed"
            assert names(output) == ["row-1", "row-4", "row-5"]
            assert names(errors) == ["row-2", "row-3", "row-6"]
            statuses = {row["custom_id"]: row["response"]["status_code"] for row in errors}
            assert statuses == {"row-2": 400, "row-3": 500, "row-6": 404}
            assert (job.counts.completed, job.counts.failed) == (3, 3)

    asyncio.run(main())


def test_what_passes_is_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retrying, "FIRST_S", 0.001)
    left = {"text 1": 3, "text 2": 99}

    def say(asked: RowAsked) -> Any:
        text = text_of(asked)
        if left.get(text, 0) > 0:
            left[text] -= 1
            return HeadraceError(Code.ENGINE_FAILED, "It died.")
        return "yes"

    async def main() -> None:
        async with yard(tmp_path, ScriptedAnswers(say)) as here:
            job = await here.until(await here.begin(numbered(3)))
            output, errors = await here.rows(job)
            assert names(output) == ["row-1", "row-3"]
            assert names(errors) == ["row-2"]
            assert sorted(here.answers.asked.values()) == [1, 4, retrying.MOST_TRIES]

    asyncio.run(main())


@pytest.mark.parametrize(
    ("bad", "code", "number", "said"),
    [
        (b"{nonsense", "invalid_json_line", 2, "Line 2 is not JSON"),
        (b'{"custom_id": "x"}', "invalid_line", 2, "Line 2"),
        (line("row-1"), "duplicate_custom_id", 2, "that of line 1"),
        (line("x", url="/v1/completions"), "mismatched_endpoint", 2, "this batch is for"),
        (b'{"custom_id":"x","url":"/v1/chat/completions","body":3}', "invalid_line", 2, "`body`"),
    ],
)
def test_a_malformed_line_is_named_by_its_number(
    tmp_path: Path, bad: bytes, code: str, number: int, said: str
) -> None:
    async def main() -> None:
        async with yard(tmp_path) as here:
            rows = [line("row-1"), bad, *[line(f"row-{n}") for n in range(3, 6)]]
            job = await here.until(await here.begin(rows))
            assert job.state == "failed"
            assert [(error.code, error.line) for error in job.errors] == [(code, number)]
            assert said in job.errors[0].message
            assert not here.answers.asked

    asyncio.run(main())


def test_an_empty_file_and_one_with_too_many_rows_are_refused(tmp_path: Path) -> None:
    async def main() -> None:
        async with yard(tmp_path, limits=Limits(rows=3)) as here:
            empty = await here.until(await here.begin([b"", b"  "]))
            assert [error.code for error in empty.errors] == ["empty_file"]
            many = await here.until(await here.begin(numbered(4)))
            assert [error.code for error in many.errors] == ["too_many_requests"]

    asyncio.run(main())


class Gate:
    """Lets the first ``count`` rows through; the others wait for ever."""

    def __init__(self, count: int) -> None:
        self.left = count
        self.full = asyncio.Event()

    async def __call__(self, asked: RowAsked) -> str:
        if self.left <= 0:
            self.full.set()
            await asyncio.Event().wait()
        self.left -= 1
        return "yes"


def test_a_stopped_job_goes_on_where_it_was(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(20)
        first, second = ScriptedAnswers(gate), ScriptedAnswers()
        async with yard(tmp_path, first) as here:
            job = await here.begin(numbered(50))
            await gate.full.wait()
        async with yard(tmp_path, second) as here:
            done = await here.until(job)
            output, errors = await here.rows(done)
        assert names(output) == names([{"custom_id": f"row-{n}"} for n in range(1, 51)])
        assert not errors
        assert sum(second.asked.values()) == 30
        waiting = [key for key in first.asked if key in second.asked]
        assert len(waiting) == 4  # the slots
        assert list(second.asked)[: len(waiting)] == waiting  # what was under way comes first
        assert done.counts.completed == 50
        assert done.usage.completion_tokens == 100

    asyncio.run(main())


@pytest.mark.parametrize("cut", [1, 40, 120])
def test_a_torn_last_line_is_cut_and_its_row_asked_again(tmp_path: Path, cut: int) -> None:
    async def main() -> None:
        gate = Gate(20)
        async with yard(tmp_path, ScriptedAnswers(gate)) as here:
            job = await here.begin(numbered(30))
            await gate.full.wait()
        written = tmp_path / "jobs" / "work" / job.output_file
        os.truncate(written, written.stat().st_size - cut)
        again = ScriptedAnswers()
        async with yard(tmp_path, again) as here:
            output, errors = await here.rows(await here.until(job))
        assert names(output) == names([{"custom_id": f"row-{n}"} for n in range(1, 31)])
        assert not errors
        assert sum(again.asked.values()) == 11

    asyncio.run(main())


def test_a_cancelled_job_leaves_what_it_has(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(10)
        async with yard(tmp_path, ScriptedAnswers(gate)) as here:
            job = await here.begin(numbered(30))
            await gate.full.wait()
            assert (await here.jobs.cancel(job.id, "default")).state == "cancelling"
            done = await here.until(job)
            output, errors = await here.rows(done)
            assert done.state == "cancelled"
            assert (len(output), len(errors)) == (10, 20)
            assert {row["error"]["code"] for row in errors} == {"batch_cancelled"}
            assert here.answers.aborted == ["\2" + job.id.removeprefix("batch_")]
            with pytest.raises(HeadraceError, match="cancelled already"):
                await here.jobs.cancel(job.id, "default")

    asyncio.run(main())


def test_what_was_not_run_in_time_says_so(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(10)
        async with yard(tmp_path, ScriptedAnswers(gate)) as here:
            job = await here.until(await here.begin(numbered(30), window_s=0.3))
            output, errors = await here.rows(job)
            assert job.state == "expired"
            assert (len(output), len(errors)) == (10, 20)
            assert {row["error"]["code"] for row in errors} == {"batch_expired"}

    asyncio.run(main())


def test_an_input_that_changes_fails_the_job_and_what_is_there_stays(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(10)
        async with yard(tmp_path, ScriptedAnswers(gate)) as here:
            job = await here.begin(numbered(30))
            await gate.full.wait()
        with (tmp_path / "jobs" / "files" / job.order.input_file).open("ab") as file:
            file.write(b"\n" + line("one more"))
        async with yard(tmp_path) as here:
            done = await here.until(job)
            output, errors = await here.rows(done)
            assert done.state == "failed"
            assert [error.code for error in done.errors] == ["input_file_changed"]
            assert (len(output), len(errors)) == (10, 0)

    asyncio.run(main())


def test_no_row_begins_while_what_was_answered_is_not_kept(tmp_path: Path) -> None:
    answers = ScriptedAnswers()

    def fall_behind(asked: RowAsked) -> str:
        answers.behind = answers.behind or text_of(asked) == "text 20"
        return "yes"

    answers.say = fall_behind

    async def main() -> None:
        async with yard(tmp_path, answers) as here:
            job = await here.begin(numbered(50))
            held = await here.until(job, lambda job: answers.behind and not answers.inside)
            for _ in range(50):
                await asyncio.sleep(0)
            assert len(answers.asked) <= 20 + answers.places
            answers.kept.set()  # and it fails
            held = await here.until(job, lambda job: job.paused is not None)
            assert held.paused == "The database is full."
            assert len(answers.asked) <= 20 + answers.places
            answers.behind = False
            output, errors = await here.rows(await here.until(job))
            assert len(names(output)) == 50
            assert not errors
            assert set(answers.asked.values()) == {1}

    asyncio.run(main())


def test_a_full_disk_pauses_the_job(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk takes half of a row, and then nothing for a while."""
    full = True
    real = results.write_all

    def write_all(file: int, data: bytes) -> None:
        if full:
            os.write(file, data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(file, data)

    monkeypatch.setattr(results, "write_all", write_all)

    async def main() -> None:
        nonlocal full
        async with yard(tmp_path) as here:
            job = await here.begin(numbered(20))
            paused = await here.until(job, lambda job: job.paused is not None)
            assert "No space left" in (paused.paused or "")
            assert paused.state == "in_progress"
            full = False
            output, errors = await here.rows(await here.until(job))
            assert len(names(output)) == len(set(names(output))) == 20
            assert not errors
            assert set(here.answers.asked.values()) == {1}

    asyncio.run(main())


def test_a_crash_in_the_middle_of_settling_loses_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The results are in their place, and the database does not know it yet."""

    async def main() -> None:
        async with yard(tmp_path) as here:
            stop = asyncio.Event()

            def put_job(job: Any, left: Any = ()) -> None:
                if job.over:
                    here_loop.call_soon_threadsafe(stop.set)
                    raise HeadraceError(Code.STORE_FAILED, "The disk is full.")
                real(job, left)

            here_loop = asyncio.get_running_loop()
            real = here.jobs._database.put_job
            monkeypatch.setattr(here.jobs._database, "put_job", put_job)
            job = await here.begin(numbered(20))
            await stop.wait()
        async with yard(tmp_path) as here:
            done = await here.until(job)
            output, _ = await here.rows(done)
            assert done.state == "completed"
            assert len(set(names(output))) == len(output) == 20
            assert done.counts.completed == 20
            assert not here.answers.asked

    asyncio.run(main())


def test_a_tenant_has_so_many_jobs_and_so_many_of_them_run(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(0)
        answers = ScriptedAnswers(gate)
        limits = Limits(jobs=2, running=1)
        async with yard(tmp_path, answers, limits) as here:
            first, second = await here.begin(numbered(3)), await here.begin(numbered(3))
            with pytest.raises(HeadraceError, match="2 of your batches"):
                await here.begin(numbered(3))
            other = await here.begin(numbered(3), tenant="other")
            await here.until(first, lambda job: job.state == "in_progress")
            await here.until(other, lambda job: job.state == "in_progress")
            assert (await here.jobs.find(second.id, "default")).state == "validating"
            await here.jobs.cancel(second.id, "default")
            assert (await here.until(second)).state == "cancelled"
            gate.left = 99
            await here.jobs.cancel(first.id, "default")
            await here.until(first)

    asyncio.run(main())


def test_an_input_in_use_is_not_deleted_and_another_tenant_s_is_not_found(tmp_path: Path) -> None:
    async def main() -> None:
        gate = Gate(0)
        async with yard(tmp_path, ScriptedAnswers(gate)) as here:
            job = await here.begin(numbered(3))
            with pytest.raises(HeadraceError) as refused:
                await here.jobs.files.delete(job.order.input_file, "default")
            assert refused.value.code is Code.CONFLICT
            for asked in (
                here.jobs.files.find(job.order.input_file, "other"),
                here.jobs.find(job.id, "other"),
                here.jobs.cancel(job.id, "other"),
                here.begin([], tenant="other", input_file=job.order.input_file),
            ):
                with pytest.raises(HeadraceError) as refused:
                    await asked
                assert refused.value.code is Code.NOT_FOUND
            assert not await here.jobs.list("other", None, 10)

    asyncio.run(main())


def test_files_have_a_bound_and_leave_nothing(tmp_path: Path) -> None:
    async def main() -> None:
        limits = Limits(files=2, file_bytes=100, tenant_bytes=150)
        async with yard(tmp_path, limits=limits) as here:
            first = await here.send([b"x" * 90])
            upload = await here.jobs.files.draft("default")
            with pytest.raises(HeadraceError, match="longer than 100 bytes"):
                await upload.write(b"x" * 101)
            with pytest.raises(HeadraceError, match="60 bytes were left"):
                await upload.write(b"x" * 61)
            upload.discard()
            await here.send([b"x" * 60])
            with pytest.raises(HeadraceError, match="2 files already"):
                await here.send([b""])
            await here.jobs.files.delete(first, "default")
            files = list((tmp_path / "jobs" / "files").iterdir())
            assert len(files) == 1

    asyncio.run(main())


def test_what_a_crash_left_of_files_is_removed(tmp_path: Path) -> None:
    async def main() -> None:
        async with yard(tmp_path) as here:
            kept = await here.send([b"x"])
        folder = tmp_path / "jobs" / "files"
        (folder / "7.part").write_bytes(b"half")
        (folder / "file-nobody-s").write_bytes(b"whole, but nobody was told")
        async with yard(tmp_path):
            assert [path.name for path in folder.iterdir()] == [kept]

    asyncio.run(main())
