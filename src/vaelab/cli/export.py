"""``vaelab export``: a trained run in the formats of others."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from vaelab.cli.images import RunPath, say_unfinished
from vaelab.cli.output import output
from vaelab.errors import ConfigError


def export(
    run: RunPath,
    onnx: Annotated[
        bool, typer.Option("--onnx", help="Encoder and decoder as ONNX, checked against PyTorch.")
    ] = False,
    hub: Annotated[
        Path | None,
        typer.Option(help="Folder in the layout of the Hugging Face Hub.", show_default=False),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(
            "--out", "-o", help="Folder of the ONNX files.", show_default="onnx in --hub or run"
        ),
    ] = None,
    licence: Annotated[
        str | None,
        typer.Option("--license", help="Of the weights, such as apache-2.0.", show_default=False),
    ] = None,
    push: Annotated[
        str | None,
        typer.Option(
            metavar="USER/NAME",
            help="Send the --hub folder to the Hub; needs HF_TOKEN.",
            show_default=False,
        ),
    ] = None,
    public: Annotated[bool, typer.Option("--public", help="Make a new repository public.")] = False,
) -> None:
    """Write a trained model for other tools: ONNX networks, or a folder for the Hugging Face Hub.

    Nothing is sent anywhere but by --push.
    """
    from vaelab.export.hub import export_hub, push_hub
    from vaelab.export.onnx import export_onnx
    from vaelab.files import inside
    from vaelab.training.run import Run

    folder = Run(run)
    if not onnx and hub is None:
        raise ConfigError("export: say what to write: --onnx, or --hub FOLDER, or both.")
    if hub is None and (push or licence or public):
        raise ConfigError("export: --push, --public and --license belong to --hub FOLDER.")
    if push and not os.environ.get("HF_TOKEN"):
        raise ConfigError("--push: needs a token of the Hub in the environment, as HF_TOKEN.")
    written: list[Path] = []
    say_unfinished(folder)
    if hub is not None:
        written.append(export_hub(folder, hub, licence))
    if onnx:
        home = hub or run
        written += export_onnx(folder.load_model(), out or inside(home, home / "onnx"))
    facts = {"written": [str(path) for path in written]}
    lines = [str(path) for path in written]
    if push and hub is not None:
        address = push_hub(hub, push, os.environ["HF_TOKEN"], private=not public)
        facts["pushed"] = [address]
        lines.append(address)
    output.result(facts, lines)


COMMANDS = (export,)
