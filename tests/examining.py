"""An OpenAPI document put to the test by schemathesis, against the server that gave it."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

from tests.fuzzing import FACTOR

CONFIG = """
[phases.coverage]
unexpected-methods = ["GET", "POST", "PUT", "PATCH", "DELETE"]
"""


async def examine(document: Any, url: str, folder: Path) -> str:
    """What it said, having found nothing with all its checks but one: *positive data acceptance* knows no rule that a
    schema cannot say, such as "`top_logprobs` needs `logprobs`" or "this cursor is beyond the log's end"."""
    (folder / "openapi.json").write_text(json.dumps(document))
    (folder / "schemathesis.toml").write_text(CONFIG)
    command = f"run openapi.json --url {url} --seed 1 --no-color"
    options = f"--max-examples {10 * FACTOR} --suppress-health-check all"
    checks = "--exclude-checks positive_data_acceptance"
    process = await asyncio.create_subprocess_exec(
        str(Path(sys.executable).with_name("schemathesis")),
        *command.split(),
        *options.split(),
        *checks.split(),
        cwd=folder,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    output, _ = await process.communicate()
    said = output.decode()
    assert process.returncode == 0, said
    return said.replace("  ", " ")
