"""A person's file of prompts as rows of a job: JSONL, CSV or Parquet, a row at a time."""

from __future__ import annotations

import csv
import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from headrace.cli.errors import Mistake

CHAT = "/v1/chat/completions"
PARQUET_ROWS = 1024
"""Read at once."""
csv.field_size_limit(16 * 1024 * 1024)

Cells = dict[str, Any]


class Wishes(NamedTuple):
    """What every row is asked with. ``template``: the prompt, with a column's name in braces where its value belongs;
    None: the column ``prompt``."""

    model: str | None = None
    system: str | None = None
    template: str | None = None
    max_tokens: int | None = None
    temperature: float | None = None


def rows(path: Path, wishes: Wishes) -> Iterator[dict[str, Any]]:
    """The file as rows that ``/v1/batches`` takes. Raises :class:`Mistake` that names the row."""
    for number, cells in enumerate(_cells(path), 1):
        try:
            yield _row(number, cells, wishes)
        except KeyError as missing:
            known = ", ".join(cells)
            raise Mistake(f"{path}: row {number} has no {missing} (it has {known})") from None
        except ValueError as error:
            raise Mistake(f"{path}: row {number}: {error}") from None


def _cells(path: Path) -> Iterator[Cells]:
    match path.suffix.lower():
        case ".jsonl" | ".ndjson":
            return _jsonl(path)
        case ".csv" | ".tsv":
            return _csv(path)
        case ".parquet":
            return _parquet(path)
        case other:
            raise Mistake(f"{path}: {other or 'no ending'} is none of .jsonl, .csv, .tsv, .parquet")


def _jsonl(path: Path) -> Iterator[Cells]:
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                cells = json.loads(line)
            except ValueError as error:
                raise Mistake(f"{path}: line {number} is not JSON: {error}") from None
            if not isinstance(cells, dict):
                raise Mistake(f"{path}: line {number} is not an object")
            yield cells


def _csv(path: Path) -> Iterator[Cells]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, delimiter="\t" if path.suffix.lower() == ".tsv" else ",")
        try:
            for cells in reader:
                if None in cells or None in cells.values():
                    raise Mistake(f"{path}: line {reader.line_num} has another number of columns")
                yield dict(cells)
        except (csv.Error, UnicodeDecodeError) as error:
            raise Mistake(f"{path}: line {reader.line_num + 1}: {error}") from None


def _parquet(path: Path) -> Iterator[Cells]:
    try:
        from pyarrow import parquet
    except ImportError:
        raise Mistake("Parquet needs pyarrow: pip install 'headrace[parquet]'") from None
    with parquet.ParquetFile(path) as file:
        for batch in file.iter_batches(PARQUET_ROWS):
            yield from batch.to_pylist()


def _row(number: int, cells: Cells, wishes: Wishes) -> dict[str, Any]:
    name = cells.get("custom_id")
    if isinstance(cells.get("body"), dict):
        url = cells.get("url", CHAT)
        body = dict(cells["body"])
    else:
        url = CHAT
        body = {"messages": _messages(cells, wishes)}
    more = {
        "model": wishes.model,
        "max_tokens": wishes.max_tokens,
        "temperature": wishes.temperature,
    }
    body = {**{key: value for key, value in more.items() if value is not None}, **body}
    custom_id = f"row-{number}" if name is None else str(name)
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def _messages(cells: Cells, wishes: Wishes) -> list[Any]:
    messages = cells.get("messages")
    if messages is None:
        prompt = _prompt(cells, wishes.template)
        messages = [{"role": "user", "content": prompt}]
        system = cells.get("system") or wishes.system
        return [{"role": "system", "content": system}, *messages] if system else messages
    if isinstance(messages, str):
        messages = json.loads(messages)
    if not isinstance(messages, list):
        raise ValueError("`messages` is not a list")
    return messages


def _prompt(cells: Cells, template: str | None) -> str:
    if template is None:
        prompt = cells["prompt"]
        if not isinstance(prompt, str) or not prompt:
            raise ValueError("`prompt` is not a text")
        return prompt
    return string.Formatter().vformat(template, (), cells)
