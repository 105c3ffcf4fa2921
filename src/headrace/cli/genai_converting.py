"""``headrace models convert``: a GGUF file as a model for the engine ``genai``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from headrace.cli.errors import told
from headrace.cli.model_files import found
from headrace.cli.options import loaded, with_settings
from headrace.domain.errors import Code, HeadraceError
from headrace.settings.model import EMBEDDED


@click.command("convert")
@click.argument("source", default=EMBEDDED.name)
@click.option(
    "-o", "--out", type=click.Path(path_type=Path), help="Folder to write.", required=True
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "fp16", "int4"]),
    default="fp32",
    show_default=True,
    help="Of the weights; a quantised file is dequantised before.",
)
@click.option(
    "--device",
    type=click.Choice(["cpu", "cuda"]),
    default="cpu",
    show_default=True,
    help="Where it is to be computed; decides about the operators.",
)
@with_settings
def convert(
    source: str, out: Path, precision: Any, device: Any, config: str | None, **flags: Any
) -> None:
    """Write the GGUF file SOURCE as ONNX, for the engine `genai`. Without SOURCE: the embedded model.

    SOURCE is a model of the settings, or file:PATH, hf:ORG/REPO/FILE, pypi:NAME==VERSION/path/in/wheel."""
    with told():
        if out.exists():
            text = f"{out} is there already; name another folder with -o"
            raise HeadraceError(Code.CONFLICT, text)
        if not out.absolute().parent.is_dir():
            raise HeadraceError(Code.NOT_FOUND, f"there is no folder {out.absolute().parent}")
        converts = _tools()
        file = found(loaded(config, flags).settings, source)
        converts.convert(Path(file.path), out.absolute(), precision, device)
        size = sum(one.stat().st_size for one in out.iterdir())
        click.echo(f"written: {out} ({size / 1e6:.0f} MB)")
        click.echo(f'serve it: engine = "genai", source = "file:{out}/genai_config.json"')


def _tools() -> Any:
    try:
        import accelerate  # noqa: F401 - transformers needs these to read GGUF files, and asks late
        import onnx_ir  # noqa: F401
        import onnxruntime_genai  # noqa: F401

        from headrace.models import genai_convert
    except ImportError as error:
        text = f"converting needs packages ({error.name}): pip install 'headrace[genai-tools]'"
        raise HeadraceError(Code.INVALID_REQUEST, text) from None
    return genai_convert
