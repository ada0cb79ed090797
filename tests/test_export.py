"""What is written for other tools gives what the model gives, and gives nothing else away."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
import yaml

import vaelab
from tests.conftest import SMALL, blobs
from tests.test_recipes import CONTRACT
from vaelab.api import configure, settings_to_config, train
from vaelab.cli.main import run as run_cli
from vaelab.data.images import Splits
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError, ExportError, PickleError, RunError, VaelabError
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.record import is_current, read, write
from vaelab.export import onnx as exporter
from vaelab.export.card import escaped
from vaelab.export.hub import export_hub, push_hub
from vaelab.models.classifier import build_classifier
from vaelab.models.conditioning import Told
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build
from vaelab.training.run import Run


def built(name: str, settings: dict[str, Any]) -> torch.nn.Module:
    """Return a model of a recipe, untrained, of small images with a class and a size."""
    torch.manual_seed(1)
    config = configure({**settings_to_config({**SMALL, **settings}), "recipe": name})
    told = Told(("a", "b"), ("size",), torch.arange(96) % 2, torch.rand(96, 1))
    mean = Pixels(torch.full((1, 12, 10), 0.3))

    def some() -> tuple[torch.Tensor, torch.Tensor]:
        return torch.zeros(4, 1, 12, 10), torch.arange(4) % 2

    judge = build_classifier((1, 12, 10), 2)
    setup = Setup(config.model, config.data.binarize, mean, 10, told, lambda: judge, some)
    model, _ = build(config, setup)
    model.config = config
    with torch.no_grad():  # what starts as the identity, as flows do, would hide an error
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    return model


def kinds() -> dict[str, Vae]:
    """Return a model of every recipe under contract, those that are built alike only once."""
    found: dict[str, Vae] = {}
    seen = set()
    for name, settings in CONTRACT:
        model = built(name, settings)
        if isinstance(model, Vae):
            networks = (str(model.encoder), str(model.decoder), str(model.labeler), model.transport)
            key = (*map(str, networks), model.told, type(model))
            if key not in seen:
                seen.add(key)
                found[f"{name} {settings}"] = model
    return found


KINDS = kinds()


@pytest.mark.parametrize("name", KINDS)
def test_every_kind_of_model_comes_out_the_same(name: str, tmp_path: Path) -> None:
    model = KINDS[name].eval()
    paths = exporter.export_onnx(model, tmp_path)
    sessions = {path.stem: onnxruntime.InferenceSession(path) for path in paths}
    x = torch.rand(5, 1, 12, 10, generator=torch.Generator().manual_seed(9))
    encoder, decoder = sessions["encoder"], sessions["decoder"]
    given = {"images": x.numpy()}
    context = torch.zeros(5, 0)
    if len(encoder.get_inputs()) == 2:  # labels unknown to it
        assert model.conditioning is not None
        given["context"] = np.zeros((5, model.conditioning.width), np.float32)
    found = dict(
        zip((o.name for o in encoder.get_outputs()), encoder.run(None, given), strict=True)
    )
    mean, stddev = model.posterior(x)
    np.testing.assert_allclose(found["mean"], mean, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found["stddev"], stddev, rtol=1e-3, atol=1e-4)
    codes = {"codes": found["mean"]}
    if len(decoder.get_inputs()) == 2:
        context = model.context_of(x)
        np.testing.assert_allclose(found.get("context_read", context), context, atol=1e-5)
        codes["context"] = context.numpy()
    (image,) = decoder.run(None, codes)
    np.testing.assert_allclose(image, model.reconstruct(x), rtol=1e-3, atol=1e-4)


def test_a_file_says_what_it_is(tmp_path: Path) -> None:
    model = next(m for name, m in KINDS.items() if name == "cvae {}")
    encoder = onnx.load(exporter.export_onnx(model, tmp_path)[0])
    about = {entry.key: entry.value for entry in encoder.metadata_props}
    assert about["recipe"] == "cvae"
    assert json.loads(about["shape"]) == [1, 12, 10]
    context = json.loads(about["context"])
    assert context["classes"] == ["a", "b"]
    assert model.conditioning is not None
    assert context["attributes"][0] == {
        "name": "size",
        "minus": pytest.approx(float(model.conditioning.location[0])),
        "over": pytest.approx(float(model.conditioning.scale[0])),
        "sign": False,
    }


def test_a_network_that_differs_is_not_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = KINDS["ae {}"]

    def spoiled(self: Any, codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (model.decode(codes).mean.clamp(0, 1) + 1e-3 * (not torch.compiler.is_compiling()),)

    monkeypatch.setattr(exporter.Decoder, "forward", spoiled)
    with pytest.raises(ExportError, match=r"decoder: ONNX Runtime and PyTorch differ by 0\.00"):
        exporter.export_onnx(model, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_what_has_no_onnx_form_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def branching(self: Any, codes: torch.Tensor) -> tuple[torch.Tensor, ...]:
        return (codes if float(codes.sum()) > 0 else -codes,)

    monkeypatch.setattr(exporter.Decoder, "forward", branching)
    with pytest.raises(ExportError, match="decoder: has no ONNX form"):
        exporter.export_onnx(KINDS["ae {}"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ConfigError, match=r"needs onnxscript. Install it with"):
        exporter.export_onnx(KINDS["ae {}"], tmp_path / "out")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run on images under a private path, measured."""
    folder = tmp_path_factory.mktemp("private")
    np.savez(folder / "my *spots*.npz", images=blobs(60), labels=np.arange(60) % 2)
    run = Run(folder / "run")
    train("vae", folder / "my *spots*.npz", run.path, **SMALL)
    images = vaelab.load_data(folder / "my *spots*.npz").test
    write(run, evaluate(run.load_model(), images, samples=5))
    return run


def test_a_hub_folder_reads_back(run: Run, tmp_path: Path) -> None:
    folder = export_hub(run, tmp_path / "hub", licence="apache-2.0")
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors", "sampler.safetensors", "config.yaml", "config.json",
        "evaluation.json", "README.md",
    }  # fmt: skip
    model, again = vaelab.load(run.path), vaelab.load(folder)
    x = torch.from_numpy(blobs(9))
    assert torch.equal(model.encode(x), again.encode(x))
    assert is_current(Run(folder))
    assert read(Run(folder)).figures == read(run).figures
    config = json.loads((folder / "config.json").read_text())
    assert (config["recipe"], config["shape"], config["classes"]) == (
        "vae",
        [1, 12, 10],
        ["0", "1"],
    )
    for path in folder.iterdir():
        assert str(run.path.parent).encode() not in path.read_bytes(), path.name


def test_the_model_card_holds_the_figures_and_how(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (export_hub(run, tmp_path / "hub") / "README.md").read_text()
    head = yaml.safe_load(text.split("---\n")[1])
    assert head["library_name"] == "vaelab"
    assert "license" not in head
    figure = read(run).figures["elbo"]
    assert f"{figure.value:.0f}"[1:] in text
    assert "nats per image" in text
    assert "held out from training" in text
    assert r"my \*spots\*.npz" in text
    assert "does not know the licence" in text
    run.evaluation_file.rename(tmp_path / "kept.json")
    try:
        text = (export_hub(run, tmp_path / "hub") / "README.md").read_text()
        assert "were not measured" in text
        assert not (tmp_path / "hub" / "evaluation.json").exists()
    finally:
        (tmp_path / "kept.json").rename(run.evaluation_file)
    readme = tmp_path / "hub" / "README.md"
    readme.write_text(text.replace("Not stated.", "Mine, ask me."))  # people complete their card
    monkeypatch.chdir(run.path.parent)  # where the data is: the folder names no path
    with pytest.raises(SystemExit) as ended:
        run_cli(["evaluate", str(tmp_path / "hub"), "--samples", "5"])
    assert ended.value.code == 0
    now = readme.read_text()
    assert "were not measured" not in now
    assert "| ELBO |" in now
    assert now.startswith(text.split("## Figures")[0])
    assert now.rstrip().endswith("Mine, ask me.")
    assert "## Data" in now
    assert escaped("a|b\n<c>") == r"a\|b \<c\>"


def test_a_run_is_not_overwritten(run: Run, tmp_path: Path) -> None:
    with pytest.raises(RunError, match="holds a run"):
        export_hub(run, run.path)
    with pytest.raises(ConfigError, match="name it as the Hub does"):
        export_hub(run, tmp_path / "hub", licence="Do: what\nyou want")
    assert not (tmp_path / "hub").exists()


class FakeHub:
    """Stands in for huggingface_hub: nothing is sent."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []

    def HfApi(self, token: str) -> FakeHub:
        self.calls.append(("token", token))
        return self

    def create_repo(self, name: str, private: bool, exist_ok: bool) -> str:
        self.calls.append(("create", (name, private, exist_ok)))
        return f"https://huggingface.co/{name}"

    def upload_folder(self, repo_id: str, folder_path: str, allow_patterns: list[str]) -> None:
        if repo_id.endswith("forbidden"):
            raise OSError("401 for secret")
        self.calls.append(("upload", (repo_id, folder_path, allow_patterns)))


def test_files_of_others_are_not_overwritten(run: Run, tmp_path: Path) -> None:
    mine = tmp_path / "mine"
    mine.mkdir()
    (mine / ".gitattributes").touch()  # a fresh clone of a repository is as good as empty
    (mine / "README.md").write_text("my own")
    (mine / "config.json").write_text("[]")
    with pytest.raises(RunError, match=r"holds other files \(such as README.md\)"):
        export_hub(run, mine)
    assert (mine / "README.md").read_text() == "my own"
    with pytest.raises(RunError, match="holds other files"):
        export_hub(run, mine / "README.md")
    for name in ("README.md", "config.json"):
        (mine / name).unlink()
    for licence in ("mit", "apache-2.0"):  # a former export is replaced
        export_hub(run, mine, licence)
        assert f"license: {licence}" in (mine / "README.md").read_text()


def test_nothing_is_sent_without_flag_and_token(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    hub = FakeHub()
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    command = ["export", str(run), "--hub", str(tmp_path / "hub")]

    def code(*more: str) -> object:
        with pytest.raises(SystemExit) as ended:
            run_cli([*command, *more])
        return ended.value.code

    assert code() == 0
    assert hub.calls == []
    assert code("--push", "me/spots") == 1
    assert "HF_TOKEN" in capsys.readouterr().err
    assert hub.calls == []
    monkeypatch.setenv("HF_TOKEN", "secret")
    assert code("--push", "me/spots") == 0
    assert "https://huggingface.co/me/spots" in capsys.readouterr().out
    assert hub.calls[1] == ("create", ("me/spots", True, True))
    assert hub.calls[2][1][:2] == ("me/spots", str(tmp_path / "hub"))
    assert "state.safetensors" not in hub.calls[2][1][2]
    with pytest.raises(ExportError, match=r"refused \(401 for …\)"):
        push_hub(tmp_path / "hub", "me/forbidden", "secret")
    with pytest.raises(ConfigError, match="USER/NAME"):
        push_hub(tmp_path / "hub", "spots", "secret")


def test_export_says_what_is_missing(run: Run, capsys: pytest.CaptureFixture[str]) -> None:
    for more, message in (
        ([], "say what to write: --onnx, or --hub FOLDER"),
        (["--onnx", "--public"], "belong to --hub"),
    ):
        with pytest.raises(SystemExit) as ended:
            run_cli(["export", str(run), *more])
        assert ended.value.code == 1
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("suffix", [".pt", ".pth", ".ckpt", ".pkl", ".bin", ".PT"])
def test_pickle_is_refused_everywhere_with_the_reason(suffix: str, tmp_path: Path) -> None:
    from vaelab.config import read_yaml
    from vaelab.evaluation.features import onnx_features
    from vaelab.files import load_tensors

    path = tmp_path / f"weights{suffix}"
    path.write_bytes(b"\x80\x04cos\nsystem\n")
    for opened in (vaelab.load, vaelab.load_data, onnx_features, load_tensors, read_yaml):
        with pytest.raises(PickleError, match="runs any code that the file holds"):
            opened(path)
    with pytest.raises(PickleError, match="weights"):
        vaelab.load(tmp_path)


def test_a_classifier_is_refused_plainly(
    tmp_path: Path, spots: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    from vaelab.training.fit import train_config
    from vaelab.training.progress import Silent

    config = configure({**settings_to_config({**SMALL, "epochs": 1}), "recipe": "classifier"})
    run = Run(tmp_path / "run")
    train_config(config, spots, run, Silent())
    for more in (["--onnx"], ["--hub", str(tmp_path / "hub")]):
        with pytest.raises(SystemExit) as ended:
            run_cli(["export", str(run), *more])
        assert ended.value.code == 1
        assert "holds a classifier, and this needs a VAE" in capsys.readouterr().err


def test_folders_of_data_are_named_by_their_last_part(run: Run) -> None:
    from vaelab.export.hub import _public

    config = run.read_config()
    for spec, short in (
        ("/home/me/photos/", "photos"),
        (r"C:\Users\me\x.npz", "x.npz"),
        ("mnist", "mnist"),
    ):
        data = config.data.model_copy(update={"spec": spec})
        assert _public(config.model_copy(update={"data": data})).data.spec == short


def test_errors_are_those_that_the_command_line_prints() -> None:
    assert issubclass(PickleError, VaelabError)
    assert issubclass(ExportError, VaelabError)
