"""A number that makes no sense is refused by name, value and range; none gives a result."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch

from tests.conftest import SMALL
from vaelab import train
from vaelab.cli.main import _guarded
from vaelab.data.images import Splits
from vaelab.errors import ConfigError
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.oddities import score
from vaelab.evaluation.samplers import find_sampler
from vaelab.explore.augment import Making
from vaelab.explore.pictures import interpolate, samples
from vaelab.models.vae import Vae

HUGE = 10**12


@pytest.fixture(scope="module")
def trained(spots: Splits) -> Vae:
    model = train("cvae", spots, **{**SMALL, "epochs": 1, "dropout": 0.2})
    assert isinstance(model, Vae)
    return model


CALLS: dict[str, Callable[[Vae, Splits, Any], object]] = {
    "temperature": lambda m, s, value: m.sample(2, temperature=value),
    "temperature of pictures": lambda m, s, value: samples(m, 2, value),
    "temperature of draws": lambda m, s, value: m.draw(m.told_of(2, {}), value),
    "temperature of a sampler": lambda m, s, value: find_sampler(
        "prior", m, s.train, temperature=value
    ),
    "temperature of augment": lambda m, s, value: Making(temperature=value),
    "guidance": lambda m, s, value: m.sample(2, guidance=value, label="0"),
    "strength": lambda m, s, value: m.edit(s.test.take(torch.arange(2)), "x", strength=value),
    "samples": lambda m, s, value: m.log_prob(s.test.take(torch.arange(2)), samples=value),
    "samples of evaluate": lambda m, s, value: evaluate(m, s.test, samples=value),
    "draws": lambda m, s, value: score(m, s.test, draws=value),
    "n": lambda m, s, value: m.sample(value),
    "steps": lambda m, s, value: interpolate(m, torch.zeros(2), torch.ones(2), value),
}


@pytest.mark.parametrize("name", CALLS)
def test_absurd_arguments_are_errors(name: str, trained: Vae, spots: Splits) -> None:
    whole = name.partition(" ")[0] in ("samples", "draws", "n", "steps")
    absurd = (0, -3, HUGE) if whole else (-1e9, 1e38, math.inf, -math.inf, math.nan)
    for value in absurd:
        with pytest.raises(ConfigError, match=r"must be .* to .* \(got "):
            CALLS[name](trained, spots, value)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"latent_dim": 10**9}, r"model.latent_dim: .*65536 \(got 1000000000\)"),
        ({"batch_size": 0}, r"training.batch_size: .*greater than or equal to 1 \(got 0\)"),
        ({"epochs": -1}, r"training.epochs: .*greater than or equal to 1 \(got -1\)"),
        ({"samples": HUGE}, r"samples: .*100000 \(got 1000000000000\)"),
        ({"beta": 1e38}, r"beta: .*less than or equal to 1000000000 \(got 1e\+38\)"),
        ({"beta": math.nan}, r"beta: .*(number|greater)"),
        ({"lr": math.inf}, r"training.lr: .*"),
        ({"lr": 1e30}, r"training.lr: .*less than or equal to 1000000000 \(got 1e\+30\)"),
        ({"encoder": {"widths": [HUGE]}}, r"widths.0: .*65536"),
        ({"size": HUGE}, r"data.size.0: .*65536"),
    ],
)
def test_absurd_settings_are_errors(settings: dict[str, Any], message: str, spots: Splits) -> None:
    with pytest.raises(ConfigError, match=message):
        train("vae", spots, **{**SMALL, **settings})


def test_absurd_options_of_commands_are_errors(capsys: pytest.CaptureFixture[str]) -> None:
    for command, option in (
        ("sample", "--temperature"), ("sample", "--guidance"), ("sample", "--n"),
        ("evaluate", "--samples"), ("score", "--draws"), ("score", "--steps"),
        ("augment", "--per-class"), ("augment", "--temperature"),
    ):  # fmt: skip
        more = ["--out", "x"] if command == "augment" else []
        assert _guarded([command, "run", *more, option, str(HUGE)], False) == 2
        said = capsys.readouterr().err
        assert re.search(rf"'{option}'.* less than or equal to 10+ \(got {HUGE}\)", said), said
        assert _guarded([command, "run", *more, f"{option}=nan"], False) == 2
        assert f"'{option}'" in capsys.readouterr().err
