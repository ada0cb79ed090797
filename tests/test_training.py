"""The loop: exact resume, damaged runs, skipped steps, optimizers, several processes."""

from __future__ import annotations

import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.conftest import SMALL, blobs
from vaelab import api, files
from vaelab.config import TrainingConfig
from vaelab.data.images import Splits
from vaelab.data.load import load_data
from vaelab.errors import ConfigError, RunError, TrainingError, VaelabError
from vaelab.training.fit import enough_epochs
from vaelab.training.loop import Trainer
from vaelab.training.optimizers import learning_rate
from vaelab.training.progress import Silent, duration
from vaelab.training.run import Run

WORKER = """
import sys, torch
from vaelab.cli.main import run
torch.set_num_threads(1)
run(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("images") / "spots.npy"
    np.save(path, blobs(200))
    return path


def command(images: Path, out: Path, *more: str) -> list[str]:
    small = [
        "-s", "model.encoder.widths=[4, 8]", "-s", "training.checkpoint_seconds=0",
        "-s", "training.ema=0.9", "-s", "model.encoder.normalization=batch", "-s",
        "training.patience=9", "-s", "model.encoder.dropout=0.1", "--batch-size", "16", "--epochs",
        "6", "--device", "cpu",
    ]  # fmt: skip
    return [
        sys.executable, "-c", WORKER, "train", "vae", "--data", str(images), "--out", str(out),
        "--binarize", "dynamic", *small, *more,
    ]  # fmt: skip


def quiet_run(arguments: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def uninterrupted(images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "run"
    done = quiet_run(command(images, out))
    assert done.returncode == 0, done.stderr
    return out


def same_weights(one: Path, other: Path) -> bool:
    return (one / "model.safetensors").read_bytes() == (other / "model.safetensors").read_bytes()


def test_a_killed_run_resumes_to_the_same_bytes(
    images: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out, chance, kills = tmp_path / "run", random.Random(0), 0
    resume: list[str] = []
    for _ in range(40):
        worker = subprocess.Popen(
            [*command(images, out), *resume], stdout=subprocess.PIPE, stderr=subprocess.PIPE
        )
        state = out / "state.safetensors"
        while not state.exists() and worker.poll() is None:
            time.sleep(0.01)
        if kills < 6:
            before = state.stat().st_mtime_ns if state.exists() else 0
            while worker.poll() is None and state.stat().st_mtime_ns == before:
                time.sleep(0.005)
            time.sleep(chance.uniform(0, 0.15))
            worker.send_signal(signal.SIGKILL)
        _, errors = worker.communicate(timeout=120)
        if worker.returncode == 0:
            break
        assert worker.returncode == -signal.SIGKILL, errors.decode()
        kills += 1
        resume = ["--resume"]
    assert kills >= 3
    assert same_weights(out, uninterrupted)
    steps = [entry["step"] for entry in Run(out).read_log("epoch")]
    assert steps == [entry["step"] for entry in Run(uninterrupted).read_log("epoch")]


def test_a_kill_between_model_and_state_loses_nothing(
    spots: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, calls = Trainer._write_state, []

    def killed(self: Trainer) -> None:
        calls.append(self.position.step)
        if len(calls) == 2:
            raise SystemExit
        write(self)

    monkeypatch.setattr(Trainer, "_write_state", killed)
    with pytest.raises(SystemExit):
        api.train(data=spots, out=tmp_path / "one", **SMALL)
    monkeypatch.undo()
    assert calls[0] == 0
    assert (tmp_path / "one" / "model.safetensors").exists()
    api.train(data=spots, out=tmp_path / "one", resume=True, **SMALL)
    api.train(data=spots, out=tmp_path / "whole", **SMALL)
    assert same_weights(tmp_path / "one", tmp_path / "whole")


def test_a_signal_saves_and_names_the_command(
    images: Path, uninterrupted: Path, tmp_path: Path
) -> None:
    out = tmp_path / "run"
    worker = subprocess.Popen(command(images, out), stderr=subprocess.PIPE, text=True)
    while not (out / "state.safetensors").exists():
        time.sleep(0.01)
    worker.send_signal(signal.SIGTERM)
    _, errors = worker.communicate(timeout=60)
    assert worker.returncode == 130, errors
    assert f"vaelab train --resume --out {out}" in errors
    assert "Traceback" not in errors
    done = quiet_run([sys.executable, "-c", WORKER, "train", "--resume", "--out", str(out)])
    assert done.returncode == 0, done.stderr
    assert same_weights(out, uninterrupted)


def test_one_seed_one_result_and_another_seed_another(spots: Splits) -> None:
    def weights(seed: int) -> torch.Tensor:
        model = api.train(data=spots, seed=seed, **SMALL)
        return torch.cat([p.flatten() for p in model.parameters()])

    assert torch.equal(weights(0), weights(0))
    assert not torch.equal(weights(0), weights(1))


@pytest.fixture
def finished(spots: Splits, tmp_path: Path) -> Run:
    api.train(data=spots, out=tmp_path / "run", **SMALL)
    return Run(tmp_path / "run")


def use(run: Run, spots: Splits) -> bytes:
    """Read everything that is in a run, and give back the weights it stands for."""
    model = run.load_model()
    run.read_log()
    config = api.configure({}, None, run)
    trainer = Trainer(config, spots, Silent(), run)
    trainer.restore()
    tensors = [*model.state_dict().values(), *trainer.model.state_dict().values()]
    return b"".join(t.numpy().tobytes() for t in tensors)


@pytest.mark.parametrize(
    "name", ["config.yaml", "model.safetensors", "state.safetensors", "log.jsonl"]
)
def test_damage_is_an_error_and_never_a_wrong_model(
    name: str, finished: Run, spots: Splits
) -> None:
    path = finished.path / name
    whole, good = path.read_bytes(), use(finished, spots)
    chance = random.Random(1)
    caught = 0
    for _ in range(25):
        broken = bytearray(whole)
        if chance.random() < 0.3:
            del broken[chance.randrange(len(broken)) :]
        else:
            broken[chance.randrange(len(broken))] ^= 1 << chance.randrange(8)
        path.write_bytes(bytes(broken))
        try:
            assert use(finished, spots) == good
        except VaelabError as error:
            caught += name in str(error)
    assert caught >= 24  # a cut at the end of a log's line only shortens the log


def test_files_of_another_run_are_refused(finished: Run, spots: Splits, tmp_path: Path) -> None:
    other = Run(tmp_path / "other")
    api.train(data=spots, out=other.path, **{**SMALL, "latent_dim": 3})
    finished.model_file.write_bytes(other.model_file.read_bytes())
    with pytest.raises(RunError, match=r"model.latent_dim is 2, but .* trained with 3"):
        finished.load_model()


def test_a_run_is_not_overwritten(finished: Run, spots: Splits) -> None:
    before = finished.model_file.read_bytes()
    with pytest.raises(RunError, match=r"already holds a run.* in Python resume=True"):
        api.train(data=spots, out=finished.path, **SMALL)
    with pytest.raises(RunError, match="Only epochs,"):
        api.train(data=spots, out=finished.path, resume=True, lr=0.5)
    with finished.locked(), pytest.raises(RunError, match="another process"):
        api.train(data=spots, out=finished.path, resume=True)
    assert finished.model_file.read_bytes() == before


def test_more_epochs_go_on_from_where_it_was(finished: Run, spots: Splits, tmp_path: Path) -> None:
    api.train(data=spots, out=finished.path, resume=True, epochs=4)
    long = Run(tmp_path / "long")
    api.train(data=spots, out=long.path, **{**SMALL, "epochs": 4})
    one, other = (files.load_tensors(run.model_file)[0] for run in (finished, long))
    assert all(torch.equal(one[name], other[name]) for name in one)


def test_what_is_left_of_a_run_is_not_overwritten(finished: Run, spots: Splits) -> None:
    finished.state_file.unlink()
    before = finished.model_file.read_bytes()
    with pytest.raises(RunError, match="a model but nothing to go on from"):
        api.train(data=spots, out=finished.path, resume=True, epochs=9)
    finished.config_file.unlink()
    with pytest.raises(RunError, match="already holds a run"):
        api.train(data=spots, out=finished.path, **SMALL)
    assert finished.model_file.read_bytes() == before


def test_a_log_that_is_gone_is_an_error(finished: Run, spots: Splits) -> None:
    finished.log_file.unlink()
    with pytest.raises(RunError, match=r"log.jsonl: is missing"):
        api.train(data=spots, out=finished.path, resume=True, epochs=9)


def test_other_images_do_not_go_on_with_a_run(finished: Run) -> None:
    with pytest.raises(RunError, match="not those that it was trained on"):
        api.train(data=load_data(255 - blobs()), out=finished.path, resume=True, epochs=9)


def test_a_resumed_run_reads_the_given_configuration(finished: Run, spots: Splits) -> None:
    with pytest.raises(RunError, match=r"training.lr is 0.5"):
        api.train(data=spots, out=finished.path, resume=True, config={"training": {"lr": 0.5}})


@pytest.mark.parametrize(
    "optimizer", ["batch-gd", "nesterov", "rmsprop", "adamw", "adamax", "muon"]
)
def test_every_optimizer_resumes_exactly(optimizer: str, spots: Splits, tmp_path: Path) -> None:
    settings = {**SMALL, "optimizer": optimizer, "lr": 1e-4, "epochs": 3}
    settings["likelihood"] = "gaussian-scalar"  # whose σ is of three dimensions, and no matrix
    whole = api.train(data=spots, **settings)
    config = api.configure(api.settings_to_config(settings))
    trainer = Trainer(config, spots, Silent(), Run(tmp_path / "run"))
    parts = iter(trainer._groups())
    trainer._step(next(parts))
    trainer.save()
    resumed = Trainer(config, spots, Silent(), Run(tmp_path / "run"))
    resumed.restore()
    model = resumed.fit()
    for a, b in zip(whole.parameters(), model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_batch_norm_refuses_a_batch_of_one(spots: Splits) -> None:
    settings = {**SMALL, "batch_size": 19, "encoder": {"widths": [4], "normalization": "batch"}}
    with pytest.raises(ConfigError, match="leaves a last batch of one image"):
        api.train(data=spots, **settings)


def test_the_callers_random_numbers_stay_theirs(finished: Run, spots: Splits) -> None:
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    api.train(data=spots, **{**SMALL, "epochs": 1})
    finished.load_model()
    assert torch.equal(torch.rand(2), expected)


def test_batch_gradient_descent_is_one_step_over_the_whole_set(spots: Splits) -> None:
    parts: dict[str, Any] = {**SMALL, "epochs": 1, "optimizer": "batch-gd", "lr": 1e-3}
    one = api.train("ae", spots, **{**parts, "batch_size": len(spots.train)})
    cut = api.train("ae", spots, **{**parts, "batch_size": 7})
    for a, b in zip(one.parameters(), cut.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    "name",
    ["batch-gd", "sgd", "momentum", "nesterov", "rmsprop", "adam", "adamw", "adamax", "muon"],
)
def test_every_optimizer_lowers_the_loss(name: str, spots: Splits, tmp_path: Path) -> None:
    gentle = name in ("batch-gd", "sgd", "momentum", "nesterov")
    settings = {**SMALL, "epochs": 4, "lr": 1e-3 if gentle else 5e-3, "optimizer": name}
    if name == "batch-gd":
        settings |= {"epochs": 30}
    api.train(data=spots, out=tmp_path / "run", clip=50, **settings)
    losses = [entry["validation/loss"] for entry in Run(tmp_path / "run").read_log("epoch")]
    assert losses[-1] < losses[0]


def test_schedules_have_their_known_values() -> None:
    def values(**settings: Any) -> list[float]:
        rate = learning_rate(TrainingConfig(lr=1.0, **settings), 101)
        return [rate(step) for step in range(101)]

    assert values() == [1.0] * 101
    cosine = values(schedule="cosine")
    assert (cosine[0], cosine[50], cosine[100]) == pytest.approx((1, 0.5, 0))
    warm = values(lr_warmup=0.1)
    assert warm[4] == pytest.approx(5 / 10.1)
    assert warm[11:] == [1.0] * 90
    cycle = values(schedule="one-cycle")
    assert cycle[0] == pytest.approx(1 / 25)
    assert max(cycle) == pytest.approx(1, abs=1e-3)
    assert cycle.index(max(cycle)) in (30, 31)
    assert cycle[100] == pytest.approx(1e-4)


def test_nonfinite_steps_are_skipped_and_counted(spots: Splits) -> None:
    config = api.configure(api.settings_to_config({**SMALL, "epochs": 1, "log_every": 1}))
    trainer = Trainer(config, spots, Silent())
    update = trainer.updates["model"]
    honest = update.player.loss
    calls = iter(range(1000))

    def poisoned(batch: Any, step: int) -> Any:
        loss = honest(batch, step)
        if next(calls) in (1, 3):
            object.__setattr__(loss, "total", loss.total * float("nan"))
        return loss

    object.__setattr__(update.player, "loss", poisoned)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    model = trainer.fit()
    assert int(update.skipped) == 2
    assert all(p.isfinite().all() for p in model.parameters())
    assert any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_a_run_of_nonfinite_steps_stops_with_advice(spots: Splits, tmp_path: Path) -> None:
    settings = {**SMALL, "log_every": 1, "nonfinite_limit": 3, "lr": 1e9, "optimizer": "sgd"}
    with pytest.raises(TrainingError, match="not finite for 3 steps"):
        api.train(data=spots, out=tmp_path / "run", **settings)


def test_the_best_weights_of_a_training_that_ends_non_finite_are_kept(
    spots: Splits, tmp_path: Path
) -> None:
    settings = {**SMALL, "epochs": 3, "patience": 5, "lr": 1e-3}
    config = api.configure(api.settings_to_config(settings))
    run = Run(tmp_path / "run")
    run.write_config(config)
    trainer = Trainer(config, spots, Silent(), run)
    end, honest = trainer.position, trainer._validate

    def diverging() -> None:
        if end.epoch == 2:
            with torch.no_grad():
                for parameter in trainer.model.parameters():
                    parameter.fill_(float("nan"))
        honest()

    trainer._validate = diverging  # type: ignore[method-assign]
    model = trainer.fit()
    assert not end.sound
    assert end.stale == 2
    assert all(p.isfinite().all() for p in model.parameters())
    assert all(p.isfinite().all() for p in run.load_model().parameters())


def test_collapse_is_said_in_plain_words(spots: Splits, tmp_path: Path) -> None:
    api.train("beta-vae", spots, tmp_path / "run", beta=1e5, **{**SMALL, "epochs": 6})
    notes = [entry["text"] for entry in Run(tmp_path / "run").read_log("note")]
    assert any("Posterior collapse" in text and "beta=1" in text for text in notes)
    api.train("vae", spots, tmp_path / "good", **{**SMALL, "epochs": 30, "lr": 5e-3})
    assert not Run(tmp_path / "good").read_log("note")


def test_unknown_devices_are_named(spots: Splits) -> None:
    with pytest.raises(ConfigError, match=r"device: 'quantum' is not usable"):
        api.train(data=spots, **{**SMALL, "device": "quantum"})


def test_trackers_get_the_figures(spots: Splits, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    out = tmp_path / "run"
    api.train(data=spots, out=out, trackers=["tensorboard"], **{**SMALL, "log_every": 4})
    events = EventAccumulator(str(out / "vaelab"))
    events.Reload()
    logged = [entry["elbo"] for entry in Run(out).read_log("step")]
    assert [event.value for event in events.Scalars("elbo")] == pytest.approx(logged, rel=1e-6)


def test_missing_trackers_are_named(spots: Splits, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="trackers: mlflow not installed; pip install mlflow"):
        api.train(data=spots, out=tmp_path / "run", trackers=["mlflow"], **SMALL)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # of torch's own compiler
def test_compiled_networks_train_the_same(spots: Splits) -> None:
    plain = api.train(data=spots, **{**SMALL, "epochs": 1})
    compiled = api.train(data=spots, compile=True, **{**SMALL, "epochs": 1})
    for a, b in zip(plain.parameters(), compiled.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-5)


def test_training_does_not_load_the_compiler() -> None:
    code = """if True:
        import sys, numpy, vaelab
        images = numpy.random.default_rng(0).integers(0, 256, (40, 8, 8), "uint8")
        vaelab.train(data=images, epochs=1, device="cpu")
        sys.exit("torch._dynamo" in sys.modules)
    """
    subprocess.run([sys.executable, "-c", code], check=True)  # it takes 1.5 s and 70 MB


def test_bf16_trains_about_the_same(spots: Splits, tmp_path: Path) -> None:
    for precision in ("fp32", "bf16"):
        settings = {**SMALL, "epochs": 5, "lr": 5e-3, "precision": precision}
        api.train(data=spots, out=tmp_path / precision, **settings)
    full, half = (Run(tmp_path / name).read_log("epoch")[-1] for name in ("fp32", "bf16"))
    assert half["validation/elbo"] == pytest.approx(full["validation/elbo"], rel=0.05)
    model = Run(tmp_path / "bf16").load_model()
    assert {p.dtype for p in model.parameters()} == {torch.float32}


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda_trains_and_resumes(precision: str, spots: Splits, tmp_path: Path) -> None:
    settings = {**SMALL, "device": "cuda", "precision": precision, "lr": 5e-3, "epochs": 6}
    api.train(data=spots, out=tmp_path / "run", **settings)
    losses = [entry["validation/loss"] for entry in Run(tmp_path / "run").read_log("epoch")]
    assert losses[-1] < losses[0]
    model = api.train(data=spots, out=tmp_path / "run", resume=True, epochs=8)
    assert model.sample(2).device.type == "cuda"


def test_averaged_weights_are_the_mean_of_the_last_ones(spots: Splits) -> None:
    config = api.configure(api.settings_to_config({**SMALL, "ema": 0.5, "epochs": 1}))
    trainer = Trainer(config, spots, Silent())
    assert trainer.average is not None
    name, parameter = next(iter(trainer.model.named_parameters()))
    expected = parameter.detach().clone()
    step = trainer._step

    def followed(parts: Any) -> None:
        number = trainer.position.step
        step(parts)
        decay = min(0.5, (1 + number) / (10 + number))
        expected.mul_(decay).add_(parameter.detach(), alpha=1 - decay)

    trainer._step = followed  # type: ignore[method-assign]
    model = trainer.fit()
    torch.testing.assert_close(dict(model.named_parameters())[name].detach(), expected)


def test_patience_keeps_the_best_weights(spots: Splits, tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    api.train(data=spots, out=run.path, **{**SMALL, "epochs": 60, "lr": 0.3, "patience": 2})
    entries = run.read_log("epoch")
    losses = [entry["validation/loss"] for entry in entries]
    assert len(losses) < 60
    assert losses.index(min(losses)) == len(losses) - 3
    config = api.configure({}, None, run)
    trainer = Trainer(config, spots, Silent(), run)
    trainer.restore()
    trainer.model.load_state_dict(trainer.weights())
    trainer._validate()
    assert run.read_log("epoch")[-1]["validation/loss"] == pytest.approx(min(losses), rel=1e-5)


DISTRIBUTED = """
import sys
import torch
torch.set_num_threads(1)
from vaelab import api
api.train("vae", sys.argv[1], sys.argv[2], batch_size=16, epochs=2, device="cpu", precision="fp32",
          binarize="dynamic", encoder={"widths": [4, 8]}, prior="mixture", prior_components=3,
          optimizer="sgd")
"""


def test_two_processes_train_what_one_does(images: Path, tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED)

    def worker(rank: int, world: int, out: Path) -> subprocess.Popen[str]:
        names = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": world, "MASTER_PORT": port}
        extra = {key: str(value) for key, value in names.items()} if world > 1 else {}
        environment = {**os.environ, "MASTER_ADDR": "127.0.0.1", **extra}
        arguments = [sys.executable, str(script), str(images), str(out)]
        return subprocess.Popen(
            arguments, env=environment, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    pair = [worker(rank, 2, tmp_path / "two") for rank in range(2)]
    for process in pair:
        _, errors = process.communicate(timeout=120)
        assert process.returncode == 0, errors
    alone = worker(0, 1, tmp_path / "one")
    _, errors = alone.communicate(timeout=120)
    assert alone.returncode == 0, errors
    one, two = (Run(tmp_path / name).load_model() for name in ("one", "two"))
    for a, b in zip(one.parameters(), two.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)
    logs = [
        Run(tmp_path / name).read_log("epoch")[-1]["validation/elbo"] for name in ("one", "two")
    ]
    assert logs[0] == pytest.approx(logs[1], rel=1e-4)


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (5, 65, 3700)] == ["5 s", "1 min 05 s", "1 h 01 min"]


def test_few_images_are_passed_over_until_there_are_steps_enough() -> None:
    training = TrainingConfig(epochs=5, batch_size=100)
    assert enough_epochs(training, 55_000) == 5
    assert enough_epochs(training, 301) == 125  # of four steps
    assert enough_epochs(training, 2) == 500
    whole = training.model_copy(update={"optimizer": "batch-gd"})
    assert enough_epochs(whole, 2) == 5
