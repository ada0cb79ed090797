"""The explorer's script computes what PyTorch does: every recipe's networks in Chromium."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from torch import Tensor, nn

from tests.conftest import SMALL
from tests.test_recipes import CONTRACT
from vaelab.api import configure, settings_to_config
from vaelab.config import NetworkConfig
from vaelab.data.summary import Pixels
from vaelab.explorer.describe import describe
from vaelab.explorer.graph import Unsupported, Weights, network, rounded
from vaelab.models.classifier import build_classifier
from vaelab.models.conditioning import Told
from vaelab.models.networks import build_decoder, build_encoder
from vaelab.models.posteriors import FlowPosterior
from vaelab.models.vae import Vae
from vaelab.recipes import Setup, build

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

SCRIPTS = Path(__file__).parent.parent / "src" / "vaelab" / "explorer"
CLOSE = 1e-3
RUN = """([about, encoded, images, contexts, codes]) => {
  const model = new Model(about, new Weights(encoded));
  const numbers = (values) => Array.from(values);
  const decoded = codes.map((z, i) => numbers(model.decode(z, contexts[i])));
  if (!about.encoder) return {decoded};
  return {decoded, ...Object.fromEntries(["mean", "spread", "read"].map((key) => [key,
    images.map((image, i) => {
      const x = Float32Array.from(image), context = Float32Array.from(contexts[i]);
      if (key === "read") return numbers(model.read(x, model.unknown()));
      const q = model.encode(x, context);
      return key === "mean" ? numbers(q.mean) : q.spread.map(numbers);
    })]))};
}"""
LAYERS = """([layers, encoded, x, shape, context]) => {
  const [height, width, channels] = shape;
  const input = {data: Float32Array.from(x), height, width, channels};
  return Array.from(run(layers, new Weights(encoded), input, context).data);
}"""


@pytest.fixture(scope="module")
def page(browser: Browser) -> Iterator[Page]:
    opened = browser.new_page()
    for name in ("network.js", "model.js"):
        opened.add_script_tag(path=SCRIPTS / name)
    yield opened
    opened.close()


def stirred(module: nn.Module) -> None:
    """Move every weight, so that no zero at the start hides a mistake."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        for name, buffer in module.named_buffers():
            if name.endswith("running_mean"):
                buffer.copy_(torch.randn_like(buffer))
            if name.endswith("running_var"):
                buffer.copy_(torch.rand_like(buffer) + 0.5)


def last(x: Tensor) -> list[Any]:
    """Return images (n, C, H, W) as the script holds them: (n, H·W·C)."""
    return x.permute(0, 2, 3, 1).flatten(1).tolist()


def recipe_model(name: str, settings: dict[str, Any], shape: tuple[int, int, int]) -> Vae:
    torch.manual_seed(1)
    config = configure({**settings_to_config({**SMALL, **settings}), "recipe": name})
    told = Told(("a", "b", "c"), ("size",), torch.arange(48) % 3, torch.rand(48, 1))
    setup = Setup(
        config.model,
        config.data.binarize,
        Pixels(torch.full(shape, 0.3)),
        10,
        told,
        lambda: build_classifier(shape, 3),
        lambda: (torch.zeros(4, *shape, dtype=torch.uint8), torch.arange(4) % 3),
    )
    model, _ = build(config, setup)
    assert isinstance(model, Vae)
    stirred(model)
    return rounded(model).eval()


@pytest.mark.parametrize(
    ("name", "settings"), [row for row in CONTRACT if row[0] != "classifier"], ids=str
)
@torch.no_grad()
def test_every_recipe_computes_alike(name: str, settings: dict[str, Any], page: Page) -> None:
    shape = (3, 13, 10) if settings.get("likelihood") == "logistic-mixture" else (1, 12, 10)
    model = recipe_model(name, settings, shape)
    x = torch.rand(3, *shape)
    context = torch.zeros(3, 0)
    if model.conditioning is not None:
        context = model.conditioning.encode(torch.tensor([2, 0, 1]), torch.rand(3, 1))
    z = torch.randn(3, model.latent_dim)
    weights = Weights()
    about = describe(model, weights)
    sent = [about, weights.encoded(), last(x), context.tolist(), z.tolist()]
    made = page.evaluate(RUN, sent)
    expected = model.decode(z, context if context.shape[1] else None).mean.clamp(0, 1)
    assert expected.std() > 0.01
    assert close(made["decoded"], torch.tensor(last(expected)))
    if isinstance(model.encoder.family, FlowPosterior):
        assert "cannot run" in about["notes"][0]
        assert "mean" not in made
        return
    posterior = model.infer(x, context if context.shape[1] else None)
    assert close(made["mean"], posterior.mean)
    spread = torch.tensor(made["spread"]).float()  # (n, D or 0, D)
    if not spread.numel():
        spread = torch.zeros(3, 0, model.latent_dim)
    assert close(spread.square().sum(1).sqrt(), posterior.stddev)
    if settings.get("posterior") == "full":
        covariance: Tensor = posterior.covariance_matrix  # type: ignore[attr-defined]
        assert close(spread.mT @ spread, covariance)
    if about["labeler"] is not None:
        read = model.filled(x, torch.zeros_like(context))
        assert close(made["read"], read)


def close(made: Any, expected: Tensor) -> bool:
    found = torch.as_tensor(made).float()
    assert found.shape == expected.shape
    assert float((found - expected).abs().max()) < CLOSE
    return True


NETWORKS = [
    {"kind": "conv", "widths": [6, 8], "kernel": 4, "activation": "relu"},
    {"kind": "conv", "widths": [6, 8], "kernel": 5, "strides": [2, 1], "normalization": "batch"},
    {"kind": "conv", "widths": [8, 6], "kernel": 4, "strides": [1, 2], "normalization": "layer"},
    {"kind": "conv", "widths": [8, 8], "kernel": 3, "normalization": "group", "dropout": 0.2},
    {"kind": "residual", "widths": [8, 8], "normalization": "group", "activation": "gelu"},
    {"kind": "residual", "widths": [6, 4], "strides": [1, 2], "normalization": "batch"},
    {"kind": "mlp", "hidden": [16, 12], "activation": "elu", "normalization": "batch"},
    {"kind": "mlp", "hidden": [16], "activation": "leaky-relu", "normalization": "layer"},
    {"kind": "conv", "widths": [4], "hidden": [12], "activation": "tanh"},
    {"kind": "conv", "widths": [4], "hidden": [12], "activation": "silu"},
]


@pytest.mark.parametrize("values", NETWORKS, ids=str)
@pytest.mark.parametrize("context", [0, 3])
@torch.no_grad()
def test_every_layer_computes_alike(values: dict[str, Any], context: int, page: Page) -> None:
    torch.manual_seed(2)
    config, shape = NetworkConfig(**values), (3, 37, 53)
    covariance = torch.randn(3, 9).cov() if context else None
    pixels = Pixels(torch.rand(shape), covariance) if context else None
    encoder = build_encoder(config, shape, 7, context, pixels)
    decoder = build_decoder(config, 5, shape, 4, context, offset=context > 0)
    if context:
        decoder.start_at(torch.randn(4, 37, 53))
    told = torch.randn(1, context)
    inputs = {encoder: torch.rand(1, *shape), decoder: torch.randn(1, 5)}
    for module, x in inputs.items():
        stirred(module)
        same = rounded(module).eval()
        weights = Weights()
        described = network(same, weights)
        expected = same(x, told if context else None)
        sent = last(x)[0] if x.ndim == 4 else x[0].tolist()
        size = [37, 53, 3] if x.ndim == 4 else [1, 1, 5]
        sent = [described, weights.encoded(), sent, size, told[0].tolist()]
        made = page.evaluate(LAYERS, sent)
        flat = torch.tensor(last(expected)[0]) if expected.ndim == 4 else expected[0]
        assert close(made, flat)


def test_what_cannot_be_run_is_refused() -> None:
    class Other(nn.Conv2d):
        pass

    for module, what in ((Other(1, 1, 1), "Other"), (nn.Softplus(), "Softplus")):
        encoder = build_encoder(NetworkConfig(widths=[4]), (1, 8, 8), 2)
        encoder.maps[0] = module
        with pytest.raises(Unsupported, match=f"a layer of the class {what}"):
            network(encoder, Weights())


def test_weights_beyond_float16_are_refused() -> None:
    layer = nn.Linear(2, 2)
    nn.init.constant_(layer.weight, 1e6)
    with pytest.raises(Unsupported, match="weight holds weights beyond"):
        rounded(layer)
