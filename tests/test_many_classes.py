"""Ten thousand classes: the same numbers as by the direct way, in little memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from vaelab.config import NetworkConfig
from vaelab.models import networks


@pytest.mark.parametrize("strides", [[2, 2], [1, 2]])
@pytest.mark.parametrize(("height", "width"), [(9, 7), (8, 8)])
def test_a_wide_context_is_what_its_planes_would_be(
    strides: list[int], height: int, width: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    torch.manual_seed(0)
    config = NetworkConfig(widths=[3, 4], strides=strides)
    encoder = networks.build_encoder(config, (2, height, width), 5, context=300)
    x, context = torch.rand(6, 2, height, width), torch.randn(6, 300)
    short = encoder(x, context)
    short.square().sum().backward()
    gradients = [p.grad.clone() for p in encoder.parameters() if p.grad is not None]
    encoder.zero_grad()
    monkeypatch.setattr(networks, "_WIDE", 1_000)
    planes = encoder(x, context)
    planes.square().sum().backward()
    torch.testing.assert_close(short, planes, rtol=1e-4, atol=1e-5)
    for one, other in zip(gradients, encoder.parameters(), strict=True):
        torch.testing.assert_close(one, other.grad, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("command", ["train cvae --data", "classify train --data"])
def test_training_with_ten_thousand_classes_takes_less_than_a_gigabyte(
    command: str, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 255, (11_000, 6, 6), dtype=np.uint8)
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(11_000) % 10_000)
    if not Path("/proc/self/status").exists():
        pytest.skip("the peak of a process alone is read from /proc")
    code = (  # getrusage would count what the process that started it held
        "import sys; from vaelab.cli.main import app\n"
        "app(sys.argv[1:], standalone_mode=False)\n"
        "print(open('/proc/self/status').read().split('VmHWM:')[1].split()[0])"
    )
    options = [str(tmp_path / "x.npz"), "--out", str(tmp_path / "run"), "--epochs", "1"]
    options += ["--batch-size", "512", "-s", "training.device=cpu"]
    options += ["-s", "model.encoder.widths=[4]"] if "cvae" in command else []
    done = subprocess.run(
        [sys.executable, "-c", code, *command.split(), *options],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "run" / "model.safetensors").exists()
    kilobytes = int(done.stdout.split()[-1])
    assert kilobytes < 1_000_000, kilobytes
