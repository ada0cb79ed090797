"""How long a training takes: trials by a known clock, budgets, and that nothing else changes."""

from __future__ import annotations

import json
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import vaelab
from tests.conftest import SMALL, blobs
from tests.test_cli import vaelab as command
from vaelab.api import configure, settings_to_config
from vaelab.config import RunConfig
from vaelab.data.images import Splits
from vaelab.data.load import load_data
from vaelab.defaults import with_defaults
from vaelab.errors import ConfigError
from vaelab.training import trial
from vaelab.training.loop import Trainer
from vaelab.training.progress import Lines
from vaelab.training.run import Run
from vaelab.training.trial import Pace, announcement, estimate_pace, limited, measure_pace


class StepClock:
    """Time that passes with the steps of a trial: two seconds each, and none beside them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps = 0
        step = Trainer._step

        def counted(trainer: Trainer, parts: Any) -> None:
            self.steps += 1
            step(trainer, parts)

        monkeypatch.setattr(Trainer, "_step", counted)

    def __call__(self) -> float:
        return 2.0 * self.steps


def small(**settings: Any) -> RunConfig:
    return configure(settings_to_config({**SMALL, **settings}))


def test_a_step_costs_what_the_clock_says(spots: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock(monkeypatch)
    pace = measure_pace(small(), spots, seconds=30.0, clock=clock)
    assert (pace.step, pace.end, pace.steps) == (2.0, 0.0, 6)  # 96 images in batches of 16
    assert clock.steps == 2 + 8  # warm, and until more than half of the time was spent
    assert (pace.epoch, pace.device) == (12.0, "cpu")
    whole = measure_pace(small(optimizer="batch-gd"), spots, seconds=1.0, clock=clock)
    assert (whole.steps, whole.epoch) == (1, 2.0)


def test_the_end_of_an_epoch_is_that_of_all_validation_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(trial, "_LOOKED", 4)
    splits = load_data(blobs(80))  # 8 for validation
    ticks = count()
    pace = measure_pace(small(), splits, seconds=1e-9, clock=lambda: float(next(ticks)))
    assert (pace.step, pace.end) == (1.0, 2.0 + 1.0)  # one tick between any two looks at the clock


def test_as_many_epochs_as_fit_are_made(spots: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = StepClock(monkeypatch)
    config = small(epochs=3)
    for seconds, epochs in ((60.0, 5), (59.0, 4), (3.0, 1)):
        found, pace = limited(config, spots, seconds, clock=clock)
        assert found.training.epochs == epochs
        only = config.training.model_copy(update={"epochs": epochs})
        assert found == config.model_copy(update={"training": only})
        text = announcement(found, pace, seconds)
        assert ("One epoch is the least, though it takes more than 0.05 min" in text) == (
            epochs == 1
        )


def test_a_trial_changes_nothing_of_the_training(
    spots: Splits, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial, "_TRIAL", 0.02)
    monkeypatch.setattr(Pace, "within", lambda pace, seconds: 2)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    timed = vaelab.train("vae", spots, tmp_path / "timed", minutes=0.001, **_without_epochs())
    assert torch.equal(torch.get_rng_state(), before)
    plain = vaelab.train("vae", spots, tmp_path / "plain", epochs=2, **_without_epochs())
    for one, two in zip(timed.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, two)
    configs = [Run(tmp_path / name).read_config() for name in ("timed", "plain")]
    assert configs[0] == configs[1]


def _without_epochs() -> dict[str, Any]:
    return {key: value for key, value in SMALL.items() if key != "epochs"}


def test_short_trainings_are_not_tried(spots: Splits, monkeypatch: pytest.MonkeyPatch) -> None:
    assert estimate_pace(small(), spots) is None
    assert estimate_pace(small(compile=True, epochs=1_000_000), spots) is None
    long = estimate_pace(small(epochs=100_000), spots)
    assert long is not None
    assert long.step > 0
    assert long.end > 0
    monkeypatch.setenv("WORLD_SIZE", "2")  # of which the second is quiet
    assert estimate_pace(small(epochs=100_000), spots) is None


def test_the_line_before_a_training_rounds() -> None:
    pace = Pace(0.04, 0.1, 48, 741_955, "cpu")
    config = small(epochs=125, batch_size=32)
    assert announcement(config, pace) == (
        "About 4 min on this CPU: 6,000 steps of 32 images, 125 epochs; 742,000 parameters."
    )
    pace = Pace(1.2, 0, 48, 12_345_678, "cuda")
    assert "About 2.0 h on this GPU" in announcement(config, pace)
    assert "12,300,000 parameters" in announcement(config, pace)
    assert "About 58 s on this GPU: 48 steps of 32 images, one epoch;" in announcement(
        small(epochs=1, batch_size=32), pace
    )


def test_a_budget_beside_epochs_is_refused(spots: Splits, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="minutes: chooses the epochs, and they are named too"):
        vaelab.train("vae", spots, minutes=1, epochs=3)
    with pytest.raises(ConfigError, match="above 0"):
        vaelab.train("vae", spots, minutes=float("nan"))
    vaelab.train("vae", spots, tmp_path / "run", **SMALL)
    with pytest.raises(ConfigError, match="a run that goes on has its epochs"):
        vaelab.train(data=spots, out=tmp_path / "run", minutes=1, resume=True)


def test_the_command_line_says_and_keeps_the_epochs(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    np.save(tmp_path / "x.npy", blobs(60, 16, 16, 3))
    data = ["--data", str(tmp_path / "x.npy"), "--device", "cpu"]
    code, out, err = command(capsys, "--json", "train", *data, "--dry-run")
    assert code == 0, err
    estimate = json.loads(out)["seconds"]
    assert ("on this CPU: 6,000 steps of 32 images, 3,000 epochs;" in err) == (estimate >= 10)
    run = str(tmp_path / "run")
    code, _, err = command(capsys, "train", *data, "--minutes", "0.03", "--out", run)
    assert code == 0, err
    epochs = Run(run).read_config().training.epochs
    assert f"{2 * epochs:,} steps of 32 images, {epochs:,} epochs;" in err
    assert 1 < epochs < 3_000
    assert Run(run).epochs()[-1]["epoch"] == epochs


def test_progress_in_python_hears_of_the_budget(
    spots: Splits, capsys: pytest.CaptureFixture[str]
) -> None:
    vaelab.train("vae", spots, minutes=0.005, progress=Lines(), **_without_epochs())
    assert "steps of 16 images" in capsys.readouterr().err


def test_flips_that_are_to_be_chosen_cost_no_choice_in_a_trial(
    spots: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("a trial asked whether flips help")

    monkeypatch.setattr("vaelab.training.loop.settled", never)
    monkeypatch.setattr("vaelab.training.loop.offer", never)
    config = with_defaults(small(augment="flip=auto"), spots.train)
    assert measure_pace(config, spots, seconds=1e-9).steps == 6
