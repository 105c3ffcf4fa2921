"""ONNX Runtime as an engine: every type, nothing copied that need not be, errors in words."""

from __future__ import annotations

import gc
import logging
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from tests import onnx_models

from headrace.domain.errors import Code, HeadraceError
from headrace.domain.tensors import NUMPY_TYPES, TensorSpec
from headrace.engines.copying import Copier
from headrace.engines.onnx import OnnxEngine
from headrace.engines.onnx_options import OnnxOptions
from headrace.engines.quiet_collector import QuietCollector


def engine(path: Path, **options: Any) -> OnnxEngine:
    return OnnxEngine(str(path), OnnxOptions("m", **options), QuietCollector(), Copier())


def sample(datatype: str) -> np.ndarray[Any, Any]:
    """Two rows of four."""
    if datatype == "BYTES":
        return np.array([[b"a", "é".encode(), b"", b"a\0b"]] * 2, object)
    return np.arange(8).reshape(2, 4).astype(NUMPY_TYPES[datatype])


def refused(path: Path, **options: Any) -> str:
    with pytest.raises(HeadraceError) as caught:
        engine(path, **options)
    assert caught.value.code == Code.ENGINE_UNAVAILABLE
    return caught.value.message


@pytest.mark.parametrize("datatype", NUMPY_TYPES)
def test_every_type_comes_out_as_it_went_in(tmp_path: Path, datatype: str) -> None:
    model = engine(onnx_models.identity(tmp_path / "m.onnx", datatype))
    assert model.inputs == (TensorSpec("x", datatype, (-1, 4)),)
    assert model.outputs == (TensorSpec("y", datatype, (-1, 4)),)
    given = sample(datatype)
    made = model.run({"x": given}, ["y"], {})["y"]
    assert made.dtype == np.dtype(NUMPY_TYPES[datatype])
    assert (made == given).all()


@pytest.mark.parametrize("datatype", [one for one in NUMPY_TYPES if one != "BYTES"])
def test_an_input_is_read_where_it_lies_though_it_is_not_aligned(
    tmp_path: Path, datatype: str
) -> None:
    """A view of a body that came, at an odd place, which nobody may write."""
    given = sample(datatype)
    lies = np.frombuffer(b"\0" + given.tobytes(), given.dtype, given.size, 1).reshape(given.shape)
    model = engine(onnx_models.identity(tmp_path / "m.onnx", datatype))
    assert model._value("x", lies).data_ptr() == lies.ctypes.data
    assert (model.run({"x": lies}, ["y"], {})["y"] == given).all()


@pytest.mark.parametrize("datatype", [one for one in NUMPY_TYPES if one != "BYTES"])
def test_an_output_is_written_into_the_memory_that_was_given(tmp_path: Path, datatype: str) -> None:
    given = sample(datatype)
    memory = np.full(given.nbytes + 3, 7, np.uint8)
    model = engine(onnx_models.identity(tmp_path / "m.onnx", datatype))
    made = model.run({"x": given}, ["y"], {"y": memory})["y"]
    assert np.shares_memory(made, memory)
    assert memory[: given.nbytes].tobytes() == given.tobytes()
    assert memory[given.nbytes :].tolist() == [7, 7, 7]


def placed(model: OnnxEngine, memory: Any, x: Any, at: int) -> Any:
    """What a run gives of ``x``, put at the beginning of ``memory``, with its output's memory from ``at`` on."""
    memory[: x.nbytes] = x.reshape(-1).view(np.uint8)
    given = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
    return model.run({"x": given}, ["y"], {"y": memory[at:]})["y"]


@pytest.mark.parametrize("op", ["Identity", "Flatten"])
def test_an_output_that_is_its_input_is_answered_where_that_lies(tmp_path: Path, op: str) -> None:
    path = onnx_models.unary(tmp_path / "m.onnx", op)
    model, memory, x = engine(path), np.zeros(256, np.uint8), sample("FP32")
    given = memory[: x.nbytes].view(x.dtype).reshape(x.shape)
    assert list(model._places({"x": given}, ["y"], {"y": memory})) == ["y"]
    made = placed(model, memory, x, 0)
    assert made.ctypes.data == memory.ctypes.data
    assert (made == x).all()


@pytest.mark.parametrize("at", [0, 4, 16])
@pytest.mark.parametrize("op", ["Identity", "Softmax", "Transpose", "Neg"])
def test_an_output_over_an_input_is_right_whatever_the_model(
    tmp_path: Path, op: str, at: int
) -> None:
    model = engine(onnx_models.unary(tmp_path / "m.onnx", op, (64, 64)))
    x = np.random.default_rng(1).standard_normal((64, 64), np.float32)
    memory = np.zeros(2 * x.nbytes, np.uint8)
    expected = model.run({"x": x}, ["y"], {})["y"]
    made = placed(model, memory, x, at)
    assert made.ctypes.data == memory.ctypes.data + at
    assert (made == expected).all()


def test_an_output_over_an_input_waits_for_the_outputs_that_read_it(tmp_path: Path) -> None:
    model = engine(onnx_models.add(tmp_path / "m.onnx"))
    a, b = np.array([[5, 7]], np.int32), np.array([[1, 2]], np.int32)
    into = {"sum": a.reshape(-1).view(np.uint8), "difference": b.reshape(-1).view(np.uint8)}
    made = model.run({"a": a, "b": b}, ["sum", "difference"], into)
    assert made["sum"].tolist() == a.tolist() == [[6, 9]]
    assert made["difference"].tolist() == b.tolist() == [[4, 5]]


def passing(path: Path) -> Path:
    """``p`` is ``x`` and ``q`` is ``y``, each through two nodes; ``n`` is ``-x``."""
    node, shape = onnx_models.helper.make_node, ("n",)
    nodes = [
        node("Identity", ["x"], ["x2"]),
        node("Identity", ["x2"], ["p"]),
        node("Identity", ["y"], ["q"]),
        node("Neg", ["x"], ["n"]),
    ]
    ends = {name: onnx_models.tensor(name, "FP32", shape) for name in "xypqn"}
    inputs, outputs = [ends[name] for name in "xy"], [ends[name] for name in "pqn"]
    return onnx_models.write(path, nodes, inputs, outputs)


def floats(*numbers: float) -> np.ndarray[Any, Any]:
    return np.array(numbers, np.float32)


def test_an_output_without_a_place_is_never_its_inputs_memory(tmp_path: Path) -> None:
    """That may be a client's pages, which are a place of another output by another address."""
    model, x, y = engine(passing(tmp_path / "m.onnx")), floats(1, 2), floats(3, 4)
    made = model.run({"x": x, "y": y}, ["n", "q", "p"], {"q": np.zeros(8, np.uint8)})
    x[:] = y[:] = 0
    assert {name: array.tolist() for name, array in made.items()} == {
        "n": [-1, -2],
        "q": [3, 4],
        "p": [1, 2],
    }


@pytest.mark.parametrize("op", ["Flatten", "Neg"])
def test_but_not_one_that_a_node_makes_of_it(tmp_path: Path, op: str) -> None:
    x = sample("FP32")
    made = engine(onnx_models.unary(tmp_path / "m.onnx", op)).run({"x": x}, ["y"], {})["y"]
    assert not np.shares_memory(made, x)


def test_it_is_copied_where_it_shall_be_beside_a_computed_one(tmp_path: Path) -> None:
    model, x, y = engine(passing(tmp_path / "m.onnx")), floats(1, 2), floats(3, 4)
    into = {"p": np.zeros(8, np.uint8), "n": np.zeros(8, np.uint8)}
    made = model.run({"x": x, "y": y}, ["p", "n"], into)
    assert {name: array.tolist() for name, array in made.items()} == {"p": [1, 2], "n": [-1, -2]}
    assert all(np.shares_memory(made[name], into[name]) for name in into)


def test_outputs_that_change_places_with_each_others_inputs_are_right(tmp_path: Path) -> None:
    model, x, y = engine(passing(tmp_path / "m.onnx")), floats(1, 2), floats(3, 4)
    into = {"p": y.view(np.uint8), "q": x.view(np.uint8)}
    made = model.run({"x": x, "y": y}, ["p", "q"], into)
    assert (made["p"].tolist(), made["q"].tolist()) == ([1, 2], [3, 4])
    assert (x.tolist(), y.tolist()) == ([3, 4], [1, 2])


def test_an_input_that_is_overwritten_is_passed_on_as_it_came(tmp_path: Path) -> None:
    model, x, y = engine(passing(tmp_path / "m.onnx")), floats(1, 2), floats(3, 4)
    made = model.run({"x": x, "y": y}, ["n", "p"], {"n": x.view(np.uint8)})
    assert (made["n"].tolist(), made["p"].tolist()) == ([-1, -2], [1, 2])
    assert np.shares_memory(made["n"], x)


def test_large_copies_are_made_by_more_than_one_thread_unless_the_model_shall_have_one(
    tmp_path: Path,
) -> None:
    path, copier = passing(tmp_path / "m.onnx"), Copier()
    assert OnnxEngine(str(path), OnnxOptions("m"), QuietCollector(), copier)._copy == copier.copy
    assert engine(path, intra_threads=1)._copy is np.copyto


def test_an_output_whose_shape_only_the_run_knows_is_copied_there(tmp_path: Path) -> None:
    memory = np.zeros(64, np.uint8)
    model = engine(onnx_models.nonzero(tmp_path / "m.onnx"))
    x = np.array([0, 1, 0, 1], np.float32)
    made = model.run({"x": x}, ["where"], {"where": memory})["where"]
    assert np.shares_memory(made, memory)
    assert made.tolist() == [[1, 3]]


def test_a_model_that_breaks_its_word_about_a_shape_is_answered_all_the_same(
    tmp_path: Path,
) -> None:
    """It says that the output is as long as the input."""
    node = onnx_models.helper.make_node("NonZero", ["x"], ["where"])
    path = onnx_models.write(
        tmp_path / "m.onnx",
        [node],
        [onnx_models.tensor("x", "FP32", ("n",))],
        [onnx_models.tensor("where", "INT64", (1, "n"))],
    )
    memory = np.zeros(64, np.uint8)
    x = np.array([0, 1, 0, 1], np.float32)
    made = engine(path).run({"x": x}, ["where"], {"where": memory})["where"]
    assert np.shares_memory(made, memory)
    assert made.tolist() == [[1, 3]]


def test_memory_that_is_too_small_is_refused_with_what_is_needed(tmp_path: Path) -> None:
    model = engine(onnx_models.identity(tmp_path / "m.onnx"))
    with pytest.raises(HeadraceError, match="y has 32 bytes, and the memory for it only 31") as e:
        model.run({"x": sample("FP32")}, ["y"], {"y": np.zeros(31, np.uint8)})
    assert e.value.code == Code.INVALID_REQUEST


@pytest.mark.parametrize("datatype", ["FP32", "BF16"])
def test_an_output_outlives_the_run_and_the_engine(tmp_path: Path, datatype: str) -> None:
    model = engine(onnx_models.identity(tmp_path / "m.onnx", datatype))
    given = sample(datatype)
    made = model.run({"x": given}, ["y"], {})["y"]
    model.close()
    del model
    gc.collect()
    other = [np.zeros((2, 4), given.dtype) for _ in range(1000)]
    assert (made == given).all()
    del other


def test_only_what_was_asked_for_comes(tmp_path: Path) -> None:
    model = engine(onnx_models.add(tmp_path / "m.onnx"))
    a, b = np.array([[5, 7]], np.int32), np.array([[1, 2]], np.int32)
    assert model.run({"a": a, "b": b}, ["difference"], {})["difference"].tolist() == [[4, 5]]


@pytest.mark.parametrize(
    ("shape", "dimension"),
    [
        (("batch", 2), "named"),
        (("batch_size", 2), "named"),
        (("N", 2), "named"),
        (("n", 2), "free"),
        (("unk__5", 2), "free"),
        ((3, 2), "none"),
        ((), "none"),
    ],
)
def test_a_batch_is_what_the_model_calls_so(tmp_path: Path, shape: Any, dimension: str) -> None:
    model = engine(onnx_models.identity(tmp_path / "m.onnx", shape=shape))
    assert model.batch_dimension == dimension


def test_what_the_model_cannot_take_is_the_caller_s_mistake(tmp_path: Path, capfd: Any) -> None:
    model = engine(onnx_models.look_up(tmp_path / "m.onnx"))
    with pytest.raises(HeadraceError, match="out of data bounds, idx=9") as caught:
        model.run({"word": np.array([9], np.int64)}, ["vector"], {})
    assert caught.value.code == Code.INVALID_REQUEST
    assert "onnxruntime_src" not in caught.value.message
    assert capfd.readouterr() == ("", "")


def test_text_that_is_none_is_refused(tmp_path: Path) -> None:
    model = engine(onnx_models.identity(tmp_path / "m.onnx", "BYTES", ("batch",)))
    with pytest.raises(HeadraceError, match="not UTF-8") as caught:
        model.run({"x": np.array([b"\xff"], object)}, ["y"], {})
    assert (caught.value.code, caught.value.param) == (Code.INVALID_REQUEST, "x")


def test_a_file_that_is_no_model_says_so(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    path.write_bytes(b"junk")
    assert "ONNX Runtime cannot load it: " in refused(path)
    assert "rotobuf parsing failed" in refused(path)


def test_what_is_no_tensor_is_named(tmp_path: Path) -> None:
    node = onnx_models.helper.make_node("SequenceConstruct", ["x"], ["many"])
    many = onnx_models.helper.make_tensor_sequence_value_info("many", 1, None)
    path = tmp_path / "m.onnx"
    onnx_models.write(path, [node], [onnx_models.tensor("x", "FP32", (1,))], [many])
    assert "its many is a seq(tensor(float))" in refused(path)


def test_a_missing_provider_ends_the_load(tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx")
    said = refused(path, providers=("tensorrt", "cuda", "cpu"))
    assert "TensorrtExecutionProvider and CUDAExecutionProvider is missing" in said
    assert 'missing_provider = "fallback"' in said


def test_or_it_is_done_without_and_logged(tmp_path: Path, caplog: Any) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx")
    with caplog.at_level(logging.WARNING):
        model = engine(path, providers=("cuda",), missing_provider="fallback")
    assert "m: execution provider CUDAExecutionProvider is missing" in caplog.text
    assert (model.run({"x": sample("FP32")}, ["y"], {})["y"] == sample("FP32")).all()


def test_weights_in_a_file_of_their_own_are_mapped_where_they_are_to_be_shared(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0).standard_normal((512, 512), dtype=np.float32)
    node = onnx_models.helper.make_node("MatMul", ["x", "w"], ["y"])
    tensors = [onnx_models.tensor(name, "FP32", ("batch", 512)) for name in ("x", "y")]
    weights = [onnx_models.numpy_helper.from_array(random, "w")]
    whole = onnx_models.write(tmp_path / "whole.onnx", [node], tensors[:1], tensors[1:], weights)
    path = tmp_path / "m.onnx"
    onnx.save(onnx.load(whole), path, save_as_external_data=True, location="w.data")

    def mapped() -> int:
        return Path("/proc/self/maps").read_text().count(f"{tmp_path}/w.data")

    copies = engine(path)
    assert mapped() == 0
    shares = engine(path, share_weights=True)
    assert mapped() == 1
    x = np.ones((1, 512), np.float32)
    a, b = (each.run({"x": x}, ["y"], {})["y"] for each in (copies, shares))
    assert np.allclose(a, b, atol=1e-3)


def test_versions_that_share_weights_have_them_in_memory_once(tmp_path: Path) -> None:
    random = np.random.default_rng(0).standard_normal((1024, 1024), dtype=np.float32)
    weights = [onnx_models.numpy_helper.from_array(random, "w")]
    tensors = [onnx_models.tensor(name, "FP32", ("batch", 1024)) for name in ("x", "y")]
    x = np.ones((1, 1024), np.float32)
    versions = []
    for version in ("1", "2"):
        node = onnx_models.helper.make_node("MatMul", ["x", "w"], ["y"], name=version)
        whole = onnx_models.write(
            tmp_path / "whole.onnx", [node], tensors[:1], tensors[1:], weights
        )
        path = tmp_path / f"{version}.onnx"
        (tmp_path / "w.data").unlink(missing_ok=True)
        onnx.save(onnx.load(whole), path, save_as_external_data=True, location="w.data")
    for version in ("1", "2"):
        model = engine(tmp_path / f"{version}.onnx", share_weights=True)
        model.run({"x": x}, ["y"], {})
        versions.append(model)
    sizes = mapped_bytes(tmp_path / "w.data")
    assert sizes["Rss"] >= 2 * random.nbytes  # both have read all of it …
    assert sizes["Pss"] < 1.1 * random.nbytes  # … from the same pages
    assert sizes["Private_Dirty"] == sizes["Anonymous"] == 0


def mapped_bytes(path: Path) -> Counter[str]:
    """What the mappings of a file take, by the names of ``/proc/PID/smaps``: ``Pss`` counts shared pages once."""
    sizes: Counter[str] = Counter()
    ours = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        name, _, value = line.partition(":")
        if "-" in name.split()[0]:
            ours = line.endswith(str(path))
        elif ours and value.endswith(" kB"):
            sizes[name] += int(value.split()[0]) * 1024
    return sizes


def test_threads_and_optimisation_are_as_configured(tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx")
    model = engine(path, graph_optimization="basic", intra_threads=1, inter_threads=2)
    options = model._session.get_session_options()
    assert (options.intra_op_num_threads, options.inter_op_num_threads) == (1, 2)
    assert options.graph_optimization_level.name == "ORT_ENABLE_BASIC"
    assert options.execution_mode.name == "ORT_PARALLEL"


def test_its_platform_is_called_as_triton_calls_it(tmp_path: Path) -> None:
    assert engine(onnx_models.identity(tmp_path / "m.onnx")).platform == "onnxruntime_onnx"


def test_shapes_tell_how_long_a_run_is_unless_it_is_of_texts_or_loops(tmp_path: Path) -> None:
    path = tmp_path / "m.onnx"
    assert engine(onnx_models.identity(path)).steady
    assert not engine(onnx_models.identity(path, "BYTES")).steady
    assert not engine(onnx_models.loop(path)).steady


def test_of_an_ort_file_nothing_is_known_beforehand(tmp_path: Path) -> None:
    path = onnx_models.identity(tmp_path / "m.onnx")
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "m.ort")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    model, x = engine(tmp_path / "m.ort"), sample("FP32")
    assert not model.steady
    assert (placed(model, np.zeros(256, np.uint8), x, 0) == x).all()
