"""``headrace keys`` as a user types it."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

KEY = re.compile(r"hr_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}\n")

NO_LIFE = "--expires: must be like 30d, 12h, 90m or 45s, and at most ten years"


def keys(folder: Path, *words: str, **more: Any) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headrace", "keys", *words, "--state-dir", str(folder)]
    return subprocess.run(command, capture_output=True, text=True, timeout=50, **more)


def test_a_key_is_printed_alone_listed_without_it_and_revoked(tmp_path: Path) -> None:
    assert keys(tmp_path, "list").stdout == ""
    made = keys(tmp_path, "create", "--scope", "admin", "--scope", "infer", "--expires", "12h")
    assert KEY.fullmatch(made.stdout)
    id = made.stdout[3:15]
    assert "This is shown once." in made.stderr
    assert "scope=admin,infer" in made.stderr
    keys(tmp_path, "create", "--tenant", "alpha", "--name", "a\x1b[2J")
    listed = keys(tmp_path, "list").stdout.splitlines()
    assert len(listed) == 2
    assert r'"a\u001b[2J"' in listed[0], "what a terminal would obey"
    assert listed[1].startswith(f"{id}  tenant=default  scope=admin,infer  created=")
    assert "expires=" in listed[1]
    assert made.stdout[-44:-1] not in "".join(listed)
    revoked = keys(tmp_path, "revoke", id)
    assert "revoked=" in revoked.stdout
    assert revoked.returncode == 0


def test_keys_of_the_settings_are_listed_by_where_they_stand(tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text('[server]\nhost = "0.0.0.0"\n[[tenants]]\nname = "a"\nkeys = ["sk-s3cret"]\n')
    listed = keys(tmp_path, "list", "--config", str(file), "--api-key", "sk-other")
    assert listed.stdout.splitlines() == [
        "server.api_key[0]  tenant=default  scope=infer,metrics",
        "tenants.a.keys[0]  tenant=a  scope=infer",
    ]
    refused = keys(tmp_path, "revoke", "tenants.a.keys[0]", "--config", str(file))
    assert refused.returncode == 1
    assert "is in the settings" in refused.stderr


def test_a_first_key_can_be_made_before_the_server_may_start(tmp_path: Path) -> None:
    made = keys(tmp_path, "create", "--host", "0.0.0.0")
    assert KEY.fullmatch(made.stdout)


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["revoke", "nobody"], "There is no key 'nobody'."),
        (["create", "--expires", "soon"], NO_LIFE),
        (["create", "--expires", "0d"], NO_LIFE),
        (["create", "--expires", "600w"], NO_LIFE),
        (["create", "--tenant", "a b"], "--tenant: must be 1 to 64 letters, digits, _, . or -"),
        (["create", "--name", "x" * 101], "--name: must have at most 100 characters"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], line: str) -> None:
    said = keys(tmp_path, *words)
    assert (said.returncode, said.stdout, said.stderr) == (1, "", f"Error: {line}\n")
    assert not (tmp_path / "keys.db").exists() or words[0] == "revoke"


def test_a_folder_that_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    said = keys(tmp_path / "file", "create")
    assert said.returncode == 1
    assert said.stderr.count("\n") == 1
    assert "keys.db cannot be" in said.stderr
