"""Settings of models that take tensors: read, printed, and refused with the key that cannot be."""

from __future__ import annotations

from pathlib import Path

import pytest

from headrace.settings import SettingsError, load
from headrace.settings.printing import as_toml

FULL = """
[server]
tensor_memory_mib = 512
[[models]]
name = "m"
engine = "onnx"
[[models.versions]]
version = "1"
source = "file:a.onnx"
[[models.versions]]
version = "2-int8"
source = "file:b.onnx"
[models.onnx]
providers = ["tensorrt", "cuda", "cpu"]
missing_provider = "fallback"
provider_options = { cuda = { device_id = 1 } }
cuda_graph = true
load = "first_use"
unload_idle_s = 300
[models.batching]
max_batch_size = 64
preferred_batch_sizes = [8, 64]
instances = 2
"""
MODEL = '[[models]]\nname = "m"\nengine = "onnx"\nsource = "file:a"\n'


def test_what_is_printed_is_read_again_as_the_same(tmp_path: Path) -> None:
    first, second = tmp_path / "1.toml", tmp_path / "2.toml"
    first.write_text(FULL)
    settings = load(first, environ={}).settings
    second.write_text(as_toml(load(first, environ={})))
    assert load(second, environ={}).settings == settings
    model = settings.models[0]
    assert [one.version for one in model.versions] == ["1", "2-int8"]
    assert model.onnx.providers == ("tensorrt", "cuda", "cpu")
    assert model.batching.preferred_batch_sizes == (8, 64)
    assert settings.server.tensor_memory_mib == 512


@pytest.mark.parametrize(
    ("text", "line"),
    [
        (
            '[[models]]\nname = "m"\nengine = "onnx"',
            "models[0].source: must be set for the engine onnx",
        ),
        (
            MODEL + '[[models.versions]]\nversion = "1"\nsource = "file:b"',
            "models[0].source: the versions have theirs; leave it out",
        ),
        (
            MODEL.replace('source = "file:a"\n', "")
            + '[[models.versions]]\nversion = "1"\nsource = "file:b"\n' * 2,
            "models[0].versions[1].version: 1 comes twice",
        ),
        (
            MODEL + "[models.batching]\npreferred_batch_sizes = [4]",
            "models[0].batching.max_batch_size: must be set",
        ),
        (
            MODEL + "[models.batching]\nmax_batch_size = 3\npreferred_batch_sizes = [2, 4]",
            "models[0].batching.max_batch_size: must be ≥ 4, which is preferred_batch_sizes[1]",
        ),
        (
            MODEL + "[models.onnx]\nprovider_options = { cuda = {} }",
            "models[0].onnx.provider_options.cuda: is none of the providers",
        ),
        (
            MODEL + "[models.onnx]\ncuda_graph = true",
            "models[0].onnx.cuda_graph: needs the provider cuda or tensorrt",
        ),
        (
            '[[models]]\nname = "m"\nsource = "file:a"\n[models.onnx]\nforbid_nan = true',
            "models[0].onnx: only the engine onnx has it",
        ),
        (
            '[[models]]\nname = "m"\nengine = "scripted"\nfallback = "n"\n'
            + MODEL.replace('"m"', '"n"'),
            "models[0].fallback: n is no other model that generates here",
        ),
    ],
)
def test_what_cannot_be_is_named(text: str, line: str, tmp_path: Path) -> None:
    file = tmp_path / "h.toml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load(file, environ={})
    assert str(caught.value) == line


EMBEDS = '[models.embedding]\nenabled = true\ntokenizer = "file:t"\n'
OTHER = '[[models]]\nname = "n"\naliases = ["k"]\n'


@pytest.mark.parametrize(
    ("first", "other", "takes"),
    [
        ("", 'engine = "onnx"\nsource = "file:b"\n', True),
        ("", 'engine = "scripted"\n', False),
        (EMBEDS, 'engine = "scripted"\n', True),
        (EMBEDS, 'source = "file:b.gguf"\n', False),
        (EMBEDS, 'source = "file:b.gguf"\n[models.embedding]\nenabled = true\n', True),
    ],
)
def test_what_takes_tensors_spills_to_what_can_do_the_same(
    first: str, other: str, takes: bool, tmp_path: Path
) -> None:
    file = tmp_path / "h.toml"
    file.write_text(MODEL + 'fallback = "k"\n' + first + OTHER + other)
    if takes:
        assert load(file, environ={}).settings.models[0].fallback == "k"
        return
    with pytest.raises(SettingsError, match="k is no other model that takes tensors here"):
        load(file, environ={})
