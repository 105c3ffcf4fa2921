"""``headrace batch``: files of every kind in, one file out, restartable."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from tests.cli.test_survives import configured, serving

from headrace.cli.batch_bar import Bar, Seen, Speed, described
from headrace.cli.batch_rows import Wishes, rows
from headrace.cli.errors import Mistake
from headrace.cli.main import main

HEADRACE = [sys.executable, "-m", "headrace"]
PLAIN = Wishes(model="m")


def asked(row: dict[str, Any]) -> str:
    text: str = row["body"]["messages"][-1]["content"]
    return text


def written(path: Path, text: str) -> Path:
    path.write_text(text)
    return path


def test_each_kind_of_file_is_read_alike(tmp_path: Path) -> None:
    wishes = PLAIN._replace(template="{greeting}, {name}!", system="Be kind.", max_tokens=5)
    data = [{"greeting": "Hi", "name": "Ä"}, {"greeting": "Bye", "name": 'B "C", D'}]
    files = [
        written(tmp_path / "a.jsonl", "\n\n".join(map(json.dumps, data))),
        written(tmp_path / "a.csv", '\ufeffgreeting,name\nHi,Ä\nBye,"B ""C"", D"\n'),
        written(tmp_path / "a.tsv", 'greeting\tname\nHi\tÄ\nBye\t"B ""C"", D"\n'),
    ]
    for file in files:
        found = list(rows(file, wishes))
        assert [asked(row) for row in found] == ["Hi, Ä!", 'Bye, B "C", D!']
        assert found[0]["body"]["messages"][0] == {"role": "system", "content": "Be kind."}
        assert (found[1]["custom_id"], found[1]["body"]["max_tokens"]) == ("row-2", 5)


def test_parquet_is_read_as_well(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"custom_id": ["a", "b"], "prompt": ["one", "two"], "n": [1, 2]})
    parquet.write_table(table, path)
    assert [(row["custom_id"], asked(row)) for row in rows(path, PLAIN)] == [
        ("a", "one"),
        ("b", "two"),
    ]
    numbered = [asked(row) for row in rows(path, PLAIN._replace(template="{n}"))]
    assert numbered == ["1", "2"]


def test_openai_s_own_rows_stay_as_they_are(tmp_path: Path) -> None:
    row = {
        "custom_id": "x",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "other", "prompt": "hi", "max_tokens": 3},
    }
    path = written(tmp_path / "a.jsonl", json.dumps(row))
    assert list(rows(path, PLAIN._replace(max_tokens=9))) == [row]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.jsonl", '{"prompt": "x"}\n{oops', "line 2 is not JSON"),
        ("a.jsonl", "[1]", "line 1 is not an object"),
        ("a.jsonl", '{"question": "x"}', "row 1 has no 'prompt' \\(it has question\\)"),
        ("a.jsonl", '{"prompt": 3}', "row 1: `prompt` is not a text"),
        ("a.csv", "prompt,n\nx,1\ny\n", "line 3 has another number of columns"),
        ("a.txt", "x", ".txt is none of"),
    ],
)
def test_a_mistake_names_the_row(tmp_path: Path, name: str, text: str, said: str) -> None:
    with pytest.raises(Mistake, match=said):
        list(rows(written(tmp_path / name, text), PLAIN))


def test_a_dry_run_computes_nothing(tmp_path: Path) -> None:
    source = written(tmp_path / "in.csv", "prompt\n" + "word word word word\n" * 100)
    command = ["batch", str(source), "--dry-run"]
    done = CliRunner().invoke(main, [*command, "--max-tokens", "10"])
    assert done.exit_code == 0, done.output
    assert done.output == ("100 rows, about 875 tokens of prompts; of answers at most 1,000\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in.csv"]


def test_speed_counts_what_this_run_has_done() -> None:
    speed = Speed()
    assert speed.of(Seen(), 1.0) == (0, 0)  # it is being sent
    assert speed.of(Seen(100, 50, 0, 1000), 10.0) == (0, 0)
    assert speed.of(Seen(100, 60, 10, 1400), 14.0) == (5.0, 100.0)
    text = described(Seen(100, 60, 10, 1400, "the disk is full"), 5.0, 100.0)
    assert text == "5.0 rows/s, 100 tokens/s, 10 failed, 0:00:06 left; paused: the disk is full"
    assert described(Seen(2, 2), 5.0, 0.0) == "5.0 rows/s, 0 tokens/s, 0 failed"


def test_what_has_no_rows_yet_only_says_what_it_does(capsys: pytest.CaptureFixture[str]) -> None:
    with Bar() as bar:
        bar.show("sending", Seen())
    assert capsys.readouterr().err == "sending\n"


def outcome(path: Path) -> list[tuple[str, str]]:
    found = []
    for line in path.read_text().splitlines():
        row = json.loads(line)
        answer = row["response"]["body"]["choices"][0]["message"]["content"]
        found.append((row["custom_id"], answer))
    return sorted(found)


def own(folder: Path, source: Path, *more: str) -> list[str]:
    """The command with a server of its own that has the scripted model."""
    script = folder / "script.json"
    tokens = [f"{number} " for number in range(1, 11)]
    script.write_text(json.dumps({"scripts": [{"tokens": tokens, "delay_ms": 15}]}))
    config = folder / "headrace.toml"
    model = f'[[models]]\nname = "m"\nengine = "scripted"\nslots = 1\nscript = "{script}"\n'
    config.write_text(model)
    output = str(folder / "out.jsonl")
    return [*HEADRACE, "batch", str(source), "-o", output, "--config", str(config), *more]


def counted(count: int) -> str:
    return "".join(f"{number} " for number in range(1, count + 1))


def test_without_a_server_it_has_one_of_its_own_and_goes_on_after_kill_9(tmp_path: Path) -> None:
    source = written(tmp_path / "in.csv", "prompt\n" + "count\n" * 12)
    command = own(tmp_path, source)
    log = (tmp_path / "log").open("wb")
    with log, subprocess.Popen(command, stderr=log, stdout=log) as first:
        work = tmp_path / "out.jsonl.headrace" / "state" / "jobs" / "work"
        deadline = time.monotonic() + 30
        while not (work.exists() and any(file.stat().st_size for file in work.iterdir())):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        os.kill(first.pid, signal.SIGKILL)
    again = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert again.returncode == 0, again.stderr
    assert outcome(tmp_path / "out.jsonl") == sorted(
        (f"row-{n}", counted(10)) for n in range(1, 13)
    )
    assert not (tmp_path / "out.jsonl.headrace").exists()
    assert "12 of 12 rows" in again.stderr
    third = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
    assert third.returncode == 1
    assert "is there already" in third.stderr


def test_a_server_that_runs_does_the_same(tmp_path: Path) -> None:
    source = written(
        tmp_path / "in.jsonl", '{"prompt": "count"}\n{"body": {"messages": [], "model": "m"}}\n'
    )
    server, url = serving(configured(tmp_path))
    try:
        output = tmp_path / "out.jsonl"
        command = [*HEADRACE, "batch", str(source), "-o", str(output), "--url", url]
        done = subprocess.run(command, capture_output=True, text=True, timeout=50, check=False)
        assert done.returncode == 1, done.stderr
        assert outcome(output) == [("row-1", counted(60))]
        (failed,) = (tmp_path / "out.errors.jsonl").read_text().splitlines()
        assert json.loads(failed)["response"]["status_code"] == 400
        assert "1 rows that failed" in done.stderr
        assert not (tmp_path / "out.jsonl.headrace").exists()
    finally:
        server.terminate()
        server.communicate(timeout=20)
