"""Several processes train what one does: for every recipe, to the rounding of float32."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import torch

from tests import processes
from vaelab.recipes import RECIPES

TOLERANCE = 2e-5
"""Of a weight. Sums over images are made in another order, which in float32 changes a gradient
by about 1e-7 of its size; some steps of momentum and batch normalisation multiply that. Statistics
of a process's own images, where those of the whole batch are meant, change weights by 1e-3 to 1."""


def test_every_recipe_is_tried() -> None:
    assert {name.partition(",")[0] for name in processes.CASES} == set(RECIPES)


def test_two_processes_train_what_one_does_with_every_recipe(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    pair = []
    for rank in ("0", "1"):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": "2", "MASTER_PORT": port}
        command = [sys.executable, "-m", "tests.processes", str(tmp_path / rank)]
        environment = {**os.environ, **place, "MASTER_ADDR": "127.0.0.1"}
        pair.append(subprocess.Popen(command, env=environment, stderr=subprocess.PIPE, text=True))
    alone = processes.every_case()
    for process in pair:
        _, errors = process.communicate(timeout=240)
        assert process.returncode == 0, errors
    first, second = (torch.load(tmp_path / rank, weights_only=True) for rank in ("0", "1"))
    off: dict[str, float] = {}
    for case, state in alone.items():
        assert state["moved"] > 500 * TOLERANCE, f"{case}: nothing was trained"
        for name, value in state.items():
            torch.testing.assert_close(first[case][name], second[case][name], rtol=0, atol=0)
            if not value.numel():
                continue
            error = (first[case][name].double() - value.double()).abs().max().item()
            off[case] = max(off.get(case, 0.0), error / max(1.0, value.double().abs().max().item()))
    assert max(off.values()) < TOLERANCE, off
