"""Fixtures for every room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from headrace.models.pull import pull
from headrace.models.wanted import ModelFile, Step, Wanted
from headrace.settings import load
from headrace.settings.tree import EMBEDDED
from tests.looping import run_within

T = TypeVar("T")
Run = Callable[[Coroutine[Any, Any, T]], T]


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, Any]], Any]:
    """``run(coroutine)`` on a fresh uvloop, under a time limit."""
    return run_within


@pytest.fixture(scope="session")
def embedded_model() -> ModelFile:
    """The real model, from the user's own model cache (``make test`` fetches it)."""

    def silent(step: Step) -> None:
        del step

    assert EMBEDDED.source
    wanted = Wanted(EMBEDDED.source, EMBEDDED.sha256, EMBEDDED.format)
    return asyncio.run(pull(load(environ=None).settings.cache_path, wanted, silent))
