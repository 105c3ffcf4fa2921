"""Memory of captured runs, and what is quiet meanwhile. No GPU is here: the CPU computes, and captures nothing."""

from __future__ import annotations

import gc
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from tests import onnx_models

from headrace.engines.onnx_graphs import MAX_GRAPHS, CapturedRuns
from headrace.engines.quiet_collector import QuietCollector


class Session:
    """ONNX Runtime's, which says of each run which graph it was, and whether the collector was on."""

    def __init__(self, path: Path) -> None:
        self._session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        self.runs: list[tuple[str, bool]] = []

    def io_binding(self) -> Any:
        return self._session.io_binding()

    def run_with_iobinding(self, binding: Any, options: Any) -> None:
        self.runs.append((options.get_run_config_entry("gpu_graph_id"), gc.isenabled()))
        self._session.run_with_iobinding(binding, options)

    def plain(self, inputs: Any, outputs: Sequence[str], options: Any) -> Sequence[Any]:
        self.runs.append((options.get_run_config_entry("gpu_graph_id"), gc.isenabled()))
        return self._session.run(list(outputs), dict(inputs))


def captured(tmp_path: Path) -> tuple[Session, CapturedRuns]:
    session = Session(onnx_models.add(tmp_path / "m.onnx"))
    return session, CapturedRuns(session, session.plain, QuietCollector(), "cpu")


def asked(rows: int, first: int = 0) -> dict[str, Any]:
    a = np.arange(first, first + 2 * rows, dtype=np.int32).reshape(rows, 2)
    return {"a": a, "b": np.ones_like(a)}


def test_a_shape_is_captured_once_while_nothing_is_collected_and_replayed_after_that(
    tmp_path: Path,
) -> None:
    session, runs = captured(tmp_path)
    results = [runs.run(asked(2, first), ["sum", "difference"]) for first in (0, 10, 20)]
    for first, (total, difference) in zip((0, 10, 20), results, strict=True):
        assert (total == asked(2, first)["a"] + 1).all()
        assert (difference == asked(2, first)["a"] - 1).all()
    assert session.runs == [("-1", True), ("1", False), ("1", True), ("1", True)]


def test_every_shape_and_choice_of_outputs_has_its_own(tmp_path: Path) -> None:
    session, runs = captured(tmp_path)
    runs.run(asked(1), ["sum"])
    assert runs.run(asked(3), ["sum"])[0].shape == (3, 2)
    assert len(runs.run(asked(1), ["difference"])) == 1
    assert [number for number, on in session.runs if not on] == ["1", "2", "3"]


def test_what_is_beyond_the_bound_runs_without(tmp_path: Path) -> None:
    session, runs = captured(tmp_path)
    for rows in range(1, MAX_GRAPHS + 2):
        runs.run(asked(rows), ["sum"])
    session.runs.clear()
    assert runs.run(asked(MAX_GRAPHS + 1), ["sum"])[0].shape == (MAX_GRAPHS + 1, 2)
    assert session.runs == [("-1", True)]
