"""A run as a folder in the layout of the Hugging Face Hub, and its upload.

    model.safetensors    weights, with the configuration in the metadata
    sampler.safetensors  what samples come from, which `model.sample` uses
    config.yaml          the configuration, as in a run: `vaelab.load` reads the folder
    config.json          the same for other tools
    evaluation.json      the figures, where the weights were measured
    README.md            the model card

A folder says no more of the place it comes from than it must: of the path of the data, the last
name is kept. Nothing is sent anywhere but by `push_hub`.
"""

from __future__ import annotations

import importlib
import json
import re
from pathlib import Path

from vaelab import files
from vaelab.config import RunConfig, parse_config
from vaelab.data.load import EMBEDDED
from vaelab.errors import ConfigError, ExportError, RunError
from vaelab.evaluation import record
from vaelab.evaluation.record import Evaluation
from vaelab.export.card import card, with_figures
from vaelab.parsing import parse_json
from vaelab.training.run import Run, visible

PARTS = (
    "model.safetensors",
    "sampler.safetensors",
    "config.yaml",
    "config.json",
    "evaluation.json",
    "README.md",
    "onnx/*",
)
"""What a folder may hold; nothing else is sent."""

LIBRARY = "vaelab"
"""What ``config.json`` says wrote the folder."""


def export_hub(run: Run | Path | str, folder: Path | str, licence: str | None = None) -> Path:
    """Write a trained run to a folder in the Hub's layout; returns the folder.

    Arguments:
        run: a run of a VAE.
        folder: to write to; a former export in it is replaced.
        licence: of the weights, for the model card, such as ``apache-2.0``; the card leaves it open
            if None.

    Raises:
        RunError: there is no trained VAE, it is damaged, or the folder holds anything but a former
            export.
        ConfigError: a licence that is no identifier.
    """
    run = run if isinstance(run, Run) else Run(run)
    target = Run(folder)
    if target.state_file.exists() or target.path.resolve() == run.path.resolve():
        raise RunError(f"{target}: holds a run. Choose another folder to export to.")
    _check_replaceable(target.path)
    if licence is not None and not re.fullmatch(r"[a-z0-9][a-z0-9.\-]{0,63}", licence):
        raise ConfigError(
            f"licence {licence!r}: name it as the Hub does, such as apache-2.0 or cc-by-sa-4.0."
        )
    model = run.load_model()  # checks all that is about to be shared
    evaluation = record.read(run) if record.is_current(run) else None
    tensors, meta = files.load_tensors(run.model_file)
    config = _public(run.read_config())
    meta["config"] = _public(parse_config(meta["config"], str(run.model_file))).model_dump(
        mode="json"
    )
    about = {
        "library_name": LIBRARY,
        "model_type": config.recipe,
        "shape": list(model.shape),
        **{key: list(meta.get(key, ())) for key in ("classes", "attributes")},
        **config.model_dump(mode="json"),
    }
    if evaluation is None and target.evaluation_file.exists():
        target.evaluation_file.unlink()
    with files.whole_folder(target.path, last="config.json") as place:
        made = Run(place)
        files.save_tensors(made.model_file, tensors, meta)
        made.save_sampler(model, {})
        made.write_config(config)
        if evaluation is not None:
            record.write(made, evaluation)
        _write_text(place / "README.md", card(config, model, meta, evaluation, licence))
        _write_text(place / "config.json", json.dumps(about, indent=2, ensure_ascii=False))
    return target.path


def write_figures(run: Run, evaluation: Evaluation) -> None:
    """Bring the figures of the model card of an exported folder up to date, if ``run`` is one."""
    readme = run.path / "README.md"
    if not _is_export(run.path) or not readme.exists():
        return
    text = files.read_bytes(readme).decode(errors="replace")
    _write_text(readme, with_figures(text, evaluation, run.read_config()))


def push_hub(folder: Path | str, repository: str, token: str, private: bool = True) -> str:
    """Send an exported folder to the Hugging Face Hub; returns its address.

    Arguments:
        folder: that `export_hub` wrote.
        repository: ``user/name``; made if there is none.
        token: with the right to write.
        private: whether a repository that is made is private.

    Raises:
        ConfigError: huggingface_hub is not installed, there is no token, or the name is none.
        ExportError: the Hub refused.
    """
    if not re.fullmatch(r"[\w.\-]+/[\w.\-]+", repository):
        raise ConfigError(f"--push {repository}: write USER/NAME.")
    if not token:
        raise ConfigError("--push: needs a token of the Hub in the environment, as HF_TOKEN.")
    if not Run(folder).model_file.exists():
        raise RunError(f"{folder}: is no export. Write one with: vaelab export RUN --hub {folder}")
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError:
        raise ConfigError(
            "--push: needs huggingface_hub. Install it with: pip install 'vaelab[hf]'"
        ) from None
    try:
        api = hub.HfApi(token=token)
        address = str(api.create_repo(repository, private=private, exist_ok=True))
        api.upload_folder(repo_id=repository, folder_path=str(folder), allow_patterns=list(PARTS))
    except Exception as error:  # the library has its own, by kind of fault
        why = " ".join(str(error).split()).replace(token, "…")
        raise ExportError(f"{repository}: the Hub refused ({why}).") from None
    return address


def _check_replaceable(folder: Path) -> None:
    """Raise `RunError` for a folder with files of others, some of which an export would replace.

    Hidden ones, as in a fresh clone of a repository, are left alone.
    """
    kept = visible(folder)
    if not kept or _is_export(folder):
        return
    raise RunError(
        f"{folder}: holds other files (such as {kept[0]}) and is no former export. Choose a new "
        "or an empty folder to export to."
    )


def _is_export(folder: Path) -> bool:
    try:
        about = parse_json(files.read_bytes(folder / "config.json"))
    except (RunError, ValueError):
        return False
    return isinstance(about, dict) and about.get("library_name") == LIBRARY


def _public(config: RunConfig) -> RunConfig:
    """Return a configuration without the folders that lead to the data."""
    spec = config.data.spec
    short = spec if spec in EMBEDDED else re.split(r"[/\\]", spec.rstrip("/\\"))[-1]
    return config.model_copy(update={"data": config.data.model_copy(update={"spec": short})})


def _write_text(path: Path, text: str) -> None:
    files.write_text(path, f"{text.rstrip()}\n")


__all__ = ["export_hub", "push_hub", "write_figures"]
