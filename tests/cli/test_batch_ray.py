"""``headrace batch --ray`` on a local Ray with two workers, each with a server of its own."""

from __future__ import annotations

import importlib.util
import json
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("ray") is None, reason="Ray is not installed: make ray-test"
    ),
    pytest.mark.slow,
    pytest.mark.timeout(280),
]
ROWS = 64
POISON = 7


def command(folder: Path, *more: str) -> list[str]:
    scripts = [
        {"when": "poison", "refuse": "context_length_exceeded"},
        {"tokens": ["It ", "is", "."], "delay_ms": 30},
    ]
    script = folder / "script.json"
    script.write_text(json.dumps({"scripts": scripts}))
    config = folder / "headrace.toml"
    config.write_text(
        f'[[models]]\nname = "m"\nengine = "scripted"\nslots = 2\nscript = "{script}"\n'
    )
    source = folder / "in.jsonl"
    texts = ["poison" if n == POISON else f"question {n}" for n in range(1, ROWS + 1)]
    source.write_text(
        "".join(
            json.dumps({"custom_id": f"Nº {n}", "prompt": text}) + "\n"
            for n, text in enumerate(texts, 1)
        )
    )
    start = [
        sys.executable,
        "-m",
        "headrace",
        "batch",
        str(source),
        "-o",
        str(folder / "out.jsonl"),
    ]
    return [*start, "--config", str(config), "--ray", "local", "--ray-workers", "2", *more]


def lines(path: Path) -> list[Any]:
    return [json.loads(line) for line in path.read_bytes().splitlines()]


def check(folder: Path) -> None:
    answers, errors = lines(folder / "out.jsonl"), lines(folder / "out.errors.jsonl")
    names = Counter(row["custom_id"] for row in answers + errors)
    assert names == Counter(f"Nº {n}" for n in range(1, ROWS + 1))
    assert [row["custom_id"] for row in errors] == [f"Nº {POISON}"]
    assert errors[0]["response"]["status_code"] == 400
    said = {row["response"]["body"]["choices"][0]["message"]["content"] for row in answers}
    assert said == {"It is."}
    assert not (folder / "out.jsonl.headrace").exists()


def test_every_row_once_and_failures_beside(tmp_path: Path) -> None:
    done = subprocess.run(
        command(tmp_path), capture_output=True, text=True, timeout=250, check=False
    )
    assert done.returncode == 1, done.stderr  # a row failed
    assert f"{ROWS - 1} of {ROWS} rows" in done.stderr
    check(tmp_path)


def test_it_goes_on_after_kill_9_and_keeps_what_is_there(tmp_path: Path) -> None:
    output = tmp_path / "out.jsonl.headrace" / "out.jsonl"
    start = command(tmp_path)
    with (tmp_path / "log").open("wb") as log:
        first = subprocess.Popen(start, stderr=log, stdout=log)
        deadline = time.monotonic() + 120
        while not (output.exists() and output.stat().st_size):
            assert first.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline
            time.sleep(0.01)
        first.send_signal(signal.SIGKILL)
        first.wait()
    kept = [line for line in output.read_bytes().splitlines(keepends=True) if line.endswith(b"\n")]
    assert 0 < len(kept) < ROWS - 1
    done = subprocess.run(start, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 1, done.stderr
    check(tmp_path)
    assert (tmp_path / "out.jsonl").read_bytes().startswith(b"".join(kept))


def test_a_line_that_is_no_row_is_named_before_anything_is_computed(tmp_path: Path) -> None:
    start = command(tmp_path)
    source = tmp_path / "in.jsonl"
    twice = json.dumps({"custom_id": "one", "prompt": "hi"}) + "\n"
    source.write_text(2 * twice)
    done = subprocess.run(start, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert "Line 2" in done.stderr
