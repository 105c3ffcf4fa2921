"""A scraper in front of a whole server: the numbers that somebody else than the counters keeps."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from headrace.models.wanted import ModelFile

WAIT_S = 40


def scraped(url: str) -> dict[str, float]:
    """Every number without labels, or of the one model."""
    families = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return {sample.name: sample.value for family in families for sample in family.samples}


def ask(url: str, **fields: Any) -> Any:
    """A stream of an answer, as a context."""
    body = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "Count."}]}
    return httpx.stream("POST", f"{url}/v1/chat/completions", json={**body, **fields}, timeout=30)


def test_the_bytes_of_the_logs_are_those_on_the_disk(
    server: Callable[..., Any], tmp_path: Path
) -> None:
    url = server().url
    with ask(url) as answer:
        assert b"[DONE]" in answer.read()

    def on_the_disk() -> int:
        others = (".lock", ".db-shm")
        files = [file for file in tmp_path.glob("headrace.db*") if file.suffix not in others]
        return sum(file.stat().st_size for file in files)

    deadline = time.monotonic() + WAIT_S
    while not 0 < scraped(url)["headrace_log_bytes"] == on_the_disk():
        assert time.monotonic() < deadline, "the store is at rest, and they still differ"
        time.sleep(0.1)
    assert "vllm:kv_cache_usage_perc" not in scraped(url), "a script has no cache"


def test_the_embedded_engines_cache_is_in_use_while_it_computes(
    server: Callable[..., Any], embedded_model: ModelFile
) -> None:
    url = server(model=f'source = "file:{embedded_model.path}"\nslots = 1\ncontext = 1024').url

    def until(condition: Callable[[float | None], bool]) -> None:
        deadline = time.monotonic() + WAIT_S
        while not condition(usage := scraped(url).get("vllm:kv_cache_usage_perc")):
            assert time.monotonic() < deadline, usage
            time.sleep(0.1)

    until(lambda usage: usage == 0.0)
    with ask(url, max_tokens=900, ignore_eos=True) as answer:
        lines = answer.iter_lines()  # held, for its end would close the connection
        assert next(lines)
        until(lambda usage: usage is not None and 0.0 < usage <= 1.0)
    until(lambda usage: usage == 0.0)
