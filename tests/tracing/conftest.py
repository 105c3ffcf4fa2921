"""Fixtures: collectors, an upstream, servers in front of them."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.tracing.arena import (
    Collector,
    Server,
    Upstream,
    answering,
    collecting,
    collecting_over_grpc,
)


@pytest.fixture
def http_collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture
def grpc_collector() -> Iterator[Collector]:
    with collecting_over_grpc() as collector:
        yield collector


@pytest.fixture
def upstream() -> Iterator[Upstream]:
    with answering() as upstream:
        yield upstream


Serve = Callable[..., Server]


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Serve]:
    """``serve(model, **environment)`` starts one; ``more``: lines for its ``[server]``."""
    started = []

    def start(model: str, more: str = "", **environment: str) -> Server:
        made = Server(tmp_path, model, environment, more)
        started.append(made)
        made.start()
        return made

    yield start
    for made in started:
        made.end(signal.SIGKILL)
