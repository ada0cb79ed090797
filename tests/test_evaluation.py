"""Likelihoods against closed forms: the linear-Gaussian VAE is probabilistic PCA."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.distributions import MultivariateNormal

from tests.conftest import blobs
from vaelab.config import ModelConfig, NetworkConfig, RunConfig
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet
from vaelab.data.summary import Pixels
from vaelab.errors import ConfigError, DataError, RunError
from vaelab.evaluation.diagnose import of_evaluation
from vaelab.evaluation.evaluate import evaluate
from vaelab.evaluation.figures import Figure
from vaelab.evaluation.record import Evaluation, read, verdict, write
from vaelab.files import save_tensors
from vaelab.models.build import build_vae
from vaelab.models.posteriors import raw_scale
from vaelab.models.vae import Vae
from vaelab.training.run import Run

SHAPE = (1, 2, 3)
PIXELS = 6
SIGMA = 0.3
LINEAR = NetworkConfig(kind="mlp", hidden=[])


def linear_layer(module: torch.nn.Module) -> torch.nn.Linear:
    (layer,) = [part for part in module.modules() if isinstance(part, torch.nn.Linear)]
    return layer


class Ppca:
    """x = W z + b + σ ε with z ~ N(0, I): everything about it is known in closed form."""

    def __init__(self, latent_dim: int = 2, orthogonal: bool = False) -> None:
        generator = torch.Generator().manual_seed(1)
        weight = 0.4 * torch.randn(PIXELS, latent_dim, generator=generator, dtype=torch.double)
        if orthogonal:
            weight = torch.linalg.qr(weight).Q * torch.tensor([0.5, 0.2][:latent_dim])
        self.weight, self.bias = weight, torch.full((PIXELS,), 0.5, dtype=torch.double)
        eye = torch.eye(latent_dim, dtype=torch.double)
        self.covariance = torch.linalg.inv(eye + weight.T @ weight / SIGMA**2)
        self.gain = self.covariance @ weight.T / SIGMA**2

    def log_prob(self, images: Tensor) -> Tensor:
        eye = torch.eye(PIXELS, dtype=torch.double)
        p = MultivariateNormal(self.bias, self.weight @ self.weight.T + SIGMA**2 * eye)
        density: Tensor = p.log_prob(images.flatten(1).double() / 255)
        return density

    def vae(self, posterior: str, stretch: float = 1.0) -> Vae:
        """Return the VAE whose q(z|x) is the posterior, with its deviations times ``stretch``."""
        dim = self.weight.shape[1]
        config = ModelConfig.model_validate(
            {
                "latent_dim": dim,
                "encoder": LINEAR,
                "likelihood": "gaussian",
                "sigma": SIGMA,
                "posterior": posterior,
            }
        )
        model = build_vae(config, Pixels(torch.full(SHAPE, 0.5)))
        encoder, decoder = linear_layer(model.encoder), linear_layer(model.decoder)
        factor = stretch * torch.linalg.cholesky(self.covariance)
        features = [raw_scale(float(value)) for value in factor.diagonal()]
        if posterior == "full":
            features += [float(factor[i, j] / factor[i, i]) for i in range(dim) for j in range(i)]
        with torch.no_grad():
            decoder.weight.copy_(self.weight)
            decoder.bias.copy_(self.bias)
            encoder.weight.zero_()
            encoder.weight[:dim] = self.gain
            encoder.bias.copy_(torch.cat([-self.gain @ self.bias, torch.tensor(features)]))
        return model.eval()

    def elbo(self, images: Tensor, stretch: float) -> Tensor:
        """Return log p(x) − KL(q ‖ posterior), q having ``stretch`` times the true deviations."""
        dim = self.weight.shape[1]
        return self.log_prob(images) - dim * (0.5 * (stretch**2 - 1) - math.log(stretch))


def pixels(n: int) -> Tensor:
    generator = torch.Generator().manual_seed(2)
    return torch.randint(0, 256, (n, *SHAPE), generator=generator).to(torch.uint8)


def as_batch(images: Tensor) -> Batch:
    x = images.float() / 255
    return Batch(x, x, None, None, torch.arange(len(x)))


@pytest.mark.parametrize("rows", [1, 7, 1024])
def test_bounds_of_the_exact_posterior_are_log_p(
    monkeypatch: pytest.MonkeyPatch, rows: int
) -> None:
    monkeypatch.setattr(Vae, "rows", rows)
    known, images = Ppca(), pixels(5)
    with torch.inference_mode():
        elbo, bound = known.vae("full").bounds(as_batch(images), 9)
    torch.testing.assert_close(elbo.double(), known.log_prob(images), atol=2e-4, rtol=0)
    torch.testing.assert_close(bound.double(), known.log_prob(images), atol=2e-4, rtol=0)


def test_log_prob_in_chunks_of_any_size(monkeypatch: pytest.MonkeyPatch) -> None:
    known, images = Ppca(), pixels(5)
    model = known.vae("full")
    for rows in (1, 4, 1024):
        monkeypatch.setattr(Vae, "rows", rows)
        torch.testing.assert_close(
            model.log_prob(images, samples=10).double(), known.log_prob(images), atol=2e-4, rtol=0
        )


def test_bounds_tighten_towards_log_p() -> None:
    known, images, stretch = Ppca(), pixels(2000), 1.6
    model = known.vae("full", stretch)
    exact = known.log_prob(images)
    with torch.inference_mode():
        gaps = [(exact - model.bounds(as_batch(images), k)[1]) for k in (1, 5, 50, 500)]
    error = [float(gap.std()) / math.sqrt(len(gap)) for gap in gaps]
    mean = [float(gap.mean()) for gap in gaps]
    elbo_gap = float((exact - known.elbo(images, stretch)).mean())
    assert mean[0] == pytest.approx(elbo_gap, abs=4 * error[0])  # K = 1 is the ELBO
    assert mean[0] > mean[1] + 4 * error[0] > mean[2] + 4 * error[0]
    assert mean[1] > mean[2] + 4 * error[1]
    assert mean[2] > mean[3] > -4 * error[3]
    assert mean[3] == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("stretch", [1.0, 1.6])
def test_evaluation_of_a_known_model(stretch: float) -> None:
    known, images = Ppca(), pixels(3000)
    result = evaluate(known.vae("full", stretch), ImageSet(images), samples=500, bound_images=600)
    exact, elbo = known.log_prob(images), known.elbo(images, stretch)
    figures = result.figures
    assert figures["elbo"].value == pytest.approx(float(elbo.mean()), abs=0.05)
    assert figures["log_prob"].value == pytest.approx(float(exact.mean()), abs=0.06)
    assert figures["log_prob"].value >= figures["elbo"].value
    error = figures["log_prob"].standard_error
    least = float(exact.std()) / math.sqrt(3000)  # over images; draws of z add to it
    assert error is not None
    assert 0.98 * least < error < 2 * least
    distortion, rate = figures["distortion"].value, figures["rate"].value
    assert figures["elbo"].value == pytest.approx(-distortion - rate, abs=1e-5)
    bits = (math.log(255) * PIXELS - figures["elbo"].value) / (PIXELS * math.log(2))
    ends = figures["bits_per_dim"].value  # the lowest and highest levels reach beyond [0, 1]
    assert bits - 0.1 < ends < bits
    posterior = (images.flatten(1).double() / 255 - known.bias) @ known.gain.T
    assert result.latent["variance"] == pytest.approx(posterior.var(0).tolist(), rel=1e-4)
    marginal = torch.cov(posterior.T) + stretch**2 * known.covariance
    torch.testing.assert_close(
        torch.tensor(result.latent["covariance"]).double(), marginal, atol=0.05, rtol=0.05
    )
    told, wasted = figures["mutual_information"], figures["marginal_kl"]
    assert told.standard_error is not None
    assert wasted.number.startswith("≤ ")
    assert "upper bound" in wasted.protocol
    assert told.value + wasted.value == pytest.approx(rate, abs=0.1)


def test_rate_of_each_dimension() -> None:
    known, images = Ppca(orthogonal=True), pixels(50)
    result = evaluate(known.vae("diagonal"), ImageSet(images), samples=2)
    means = (images.flatten(1).double() / 255 - known.bias) @ known.gain.T
    variance = known.covariance.diagonal()
    kl = 0.5 * (means.square() + variance - 1 - variance.log()).mean(0)
    assert result.latent["kl"] == pytest.approx(kl.tolist(), rel=1e-4)
    assert sum(result.latent["kl"]) == pytest.approx(result.figures["rate"].value, rel=1e-5)
    assert "kl" not in evaluate(Ppca().vae("full"), ImageSet(images), samples=2).latent


def test_figures_do_not_depend_on_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    model, images = Ppca().vae("full"), ImageSet(pixels(23))
    whole = evaluate(model, images, samples=6)
    monkeypatch.setattr(Vae, "rows", 4)
    parts = evaluate(model, images, samples=6)
    assert parts.figures["active_units"] == whole.figures["active_units"]
    for name in ("rate", "mse", "psnr", "ssim"):
        one, other = parts.figures[name], whole.figures[name]
        assert one.value == pytest.approx(other.value, rel=1e-5)
        assert one.standard_error == pytest.approx(other.standard_error, rel=1e-4)
    assert parts.latent["variance"] == pytest.approx(whole.latent["variance"], rel=1e-5)


def test_the_seed_decides_and_nothing_is_disturbed() -> None:
    model, images = Ppca().vae("full", 1.5), ImageSet(pixels(40))
    model.train()
    before = torch.get_rng_state()
    first, again = (evaluate(model, images, samples=20, seed=3) for _ in range(2))
    assert first == again
    assert torch.equal(before, torch.get_rng_state())
    assert model.training
    other = evaluate(model, images, samples=20, seed=4)
    for name in ("elbo", "log_prob", "mutual_information"):
        assert other.figures[name].value != first.figures[name].value


def test_limit_draws_images_by_chance() -> None:
    images = torch.zeros(100, *SHAPE, dtype=torch.uint8)
    images[50:] = 255  # the first fifty alone would be all black
    result = evaluate(Ppca().vae("full"), ImageSet(images), limit=50, samples=2)
    assert result.images == result.figures["mse"].n == 50
    assert result.latent["variance"][0] > 0
    assert "drawn by chance from 100" in result.figures["elbo"].protocol


def binary_model(binarize: str) -> Vae:
    torch.manual_seed(0)
    config = ModelConfig.model_validate({"encoder": LINEAR, "latent_dim": 2})
    how = RunConfig.model_validate({"data": {"binarize": binarize}}).data.binarize
    return build_vae(config, Pixels(torch.full(SHAPE, 0.5)), how).eval()


def test_grey_targets_give_the_expected_elbo_of_binary_ones() -> None:
    model, images = binary_model("none"), pixels(4)
    grey = evaluate(model, ImageSet(images.repeat(500, 1, 1, 1)), samples=2).figures["elbo"].value
    torch.manual_seed(0)
    x = images.repeat(1000, 1, 1, 1).float() / 255
    with torch.inference_mode():
        trace = model(replace(as_batch(images.repeat(1000, 1, 1, 1)), target=torch.bernoulli(x)))
        drawn = trace.log_px - trace.rate
    assert grey == pytest.approx(float(drawn.mean()), abs=5 * float(drawn.std()) / math.sqrt(2000))


def test_log_prob_of_grey_images_is_that_of_binary_draws() -> None:
    """The decoder ignores z, so log p(b) is known: its mean over b is minus the cross-entropy."""
    model = binary_model("none")
    with torch.no_grad():
        linear_layer(model.decoder).weight.zero_()
        linear_layer(model.decoder).bias.fill_(0.7)
        linear_layer(model.encoder).weight.zero_()
        linear_layer(model.encoder).bias.zero_()
    images = pixels(500)
    figures = evaluate(model, ImageSet(images), samples=3).figures
    x = images.double() / 255
    p = torch.sigmoid(torch.tensor(0.7, dtype=torch.double))
    known = float((x * p.log() + (1 - x) * (1 - p).log()).sum((1, 2, 3)).mean())
    assert figures["rate"].value == pytest.approx(0, abs=1e-6)
    assert figures["elbo"].value == pytest.approx(known, abs=1e-4)
    assert figures["log_prob"].value == pytest.approx(known, abs=1e-4)
    assert "every pixel once" in figures["log_prob"].protocol


def test_what_the_bound_gains_on_grey_images_is_that_of_binary_draws() -> None:
    model, samples = binary_model("none"), 20
    with torch.no_grad():
        linear_layer(model.decoder).weight.mul_(8)  # so that the code matters
    images = pixels(1).repeat(3000, 1, 1, 1)
    figures = evaluate(model, ImageSet(images), samples=samples, bound_images=3000).figures
    torch.manual_seed(0)
    x = images.float() / 255
    with torch.inference_mode():
        trace = model(replace(as_batch(images), target=torch.bernoulli(x)), samples)
        gain = trace.log_w.logsumexp(0) - math.log(samples) - trace.log_w.mean(0)
    error = float(gain.std()) / math.sqrt(3000)
    found = figures["log_prob"].value - figures["elbo"].value
    assert found == pytest.approx(float(gain.mean()), abs=6 * error)


def test_a_binarised_model_is_measured_on_binary_images() -> None:
    model = binary_model("threshold")
    with torch.no_grad():
        linear_layer(model.decoder).weight.zero_()
        linear_layer(model.decoder).bias.fill_(-200.0)  # black, whatever the code
    images = pixels(10)
    share = float((images > 127.5).double().mean())
    figures = evaluate(model, ImageSet(images), samples=2).figures
    assert figures["mse"].value == pytest.approx(share, abs=1e-5)
    assert "1 above half" in figures["elbo"].protocol


@pytest.mark.parametrize("prior", ["normal", "mixture"])
@pytest.mark.parametrize("posterior", ["diagonal", "full", "dirac"])
def test_two_colour_images_are_enough(posterior: str, prior: str) -> None:
    torch.manual_seed(0)
    values = {"posterior": posterior, "prior": prior, "encoder": {"widths": [4]}}
    model = build_vae(ModelConfig.model_validate(values), Pixels(torch.full((3, 37, 53), 0.5)))
    images = ImageSet(torch.from_numpy(blobs(2, 37, 53, 3)))
    done: list[tuple[int, int]] = []
    result = evaluate(
        model,
        images,
        samples=40,
        held_out=False,
        progress=lambda count, total: done.append((count, total)),
    )
    assert done[-1][0] == done[-1][1]
    assert all("NOT held out" in figure.protocol for figure in result.figures.values())
    assert verdict(result).startswith("Training-set ")
    if posterior == "dirac":
        assert not {"elbo", "rate", "log_prob", "bits_per_dim"} & set(result.figures)
        assert "point posterior" in result.notes[0]
    else:
        assert result.figures["log_prob"].value >= result.figures["elbo"].value
        assert result.figures["mutual_information"].value < math.log(2) + 1e-6


def test_one_image_has_no_error_bar() -> None:
    result = evaluate(Ppca().vae("full"), ImageSet(pixels(1)), samples=5)
    assert {figure.standard_error for figure in result.figures.values()} == {None}
    assert "active_units" not in result.figures
    assert "±" not in verdict(result)
    assert "(1 image)" in verdict(result)


def test_what_cannot_be_evaluated_is_said() -> None:
    model = Ppca().vae("full")
    with pytest.raises(DataError, match="no images"):
        evaluate(model, ImageSet(pixels(0)))
    with pytest.raises(DataError, match="do not fit"):
        evaluate(model, ImageSet(torch.zeros(2, 1, 4, 4, dtype=torch.uint8)))
    with pytest.raises(ConfigError, match="samples: must be 1"):
        evaluate(model, ImageSet(pixels(2)), samples=0)
    with torch.no_grad():
        linear_layer(model.encoder).weight.fill_(math.nan)
    with pytest.raises(RunError, match="2 of 2 images are not finite"):
        evaluate(model, ImageSet(pixels(2)))


def test_a_figure_that_is_not_finite_is_left_out(tmp_path: Path) -> None:
    model = Ppca().vae("full")
    with torch.no_grad():
        linear_layer(model.decoder).bias.fill_(3e30)  # its square does not fit into float32
    result = evaluate(model, ImageSet(pixels(3)), samples=2)
    assert "elbo" not in result.figures
    assert "elbo" in result.notes[0]
    save_tensors(Run(tmp_path).model_file, {"w": torch.ones(1)}, {})
    write(Run(tmp_path), result)
    assert verdict(read(Run(tmp_path))).startswith("Test reconstruction error")
    figures = {"active_units": result.figures["active_units"]}
    assert "has diverged" in verdict(replace(result, figures=figures))


def test_file_of_an_evaluation(tmp_path: Path) -> None:
    run = Run(tmp_path / "run")
    with pytest.raises(RunError, match=r"vaelab evaluate .*run"):
        read(run)
    result = evaluate(Ppca().vae("full"), ImageSet(pixels(12)), samples=5)
    save_tensors(run.model_file, {"w": torch.ones(1)}, {})
    write(run, result)
    assert read(run) == result
    save_tensors(run.model_file, {"w": torch.zeros(1)}, {})
    with pytest.raises(RunError, match="is not evaluated as it is now"):  # other weights
        read(run)
    save_tensors(run.model_file, {"w": torch.ones(1)}, {})
    text = run.evaluation_file.read_text()
    run.evaluation_file.write_text(text.replace('"seed": 0', '"seed": 1'))
    with pytest.raises(RunError, match="damaged"):
        read(run)


def test_information_at_its_cap_is_a_lower_bound(tmp_path: Path) -> None:
    """Six codes that are far apart tell all that six images can: log 6 nats or more."""
    result = evaluate(Ppca().vae("full", 0.01), ImageSet(pixels(6)), samples=5)
    found = result.figures["mutual_information"]
    assert found.value == pytest.approx(math.log(6), abs=0.05)
    assert str(found).startswith("≥ 1.7")
    assert "at its cap, log 6 = 1.79" in found.protocol
    run = Run(tmp_path / "run")
    save_tensors(run.model_file, {"w": torch.ones(1)}, {})
    write(run, result)
    assert read(run) == result


def measured(**values: float) -> Evaluation:
    figures = {
        name: Figure(value, 0.25, 10_000, "nats per image", "") for name, value in values.items()
    }
    latent = {"variance": [values.get("active_units", 1.0)]}
    return Evaluation(figures, latent, (), 10_000, True, 0)


def test_verdict_says_the_figure_and_findings_the_fault() -> None:
    good = "Test ELBO −138.2 ± 0.5 nats per image (10,000 images, 95 % interval)."
    assert verdict(measured(elbo=-138.234, rate=6.5, active_units=1)) == good
    config = RunConfig(options={"free_bits": 0.0})  # its recipe has no `warmup`
    (collapsed,) = of_evaluation(config, measured(elbo=-138.234, rate=0.02, active_units=1))
    assert "Posterior collapse" in collapsed.text
    assert "free_bits=0.5" in collapsed.command
    (same,) = of_evaluation(config, measured(mse=0.0, active_units=0))
    assert "none of 1 latent dimensions is active" in same.text
    assert of_evaluation(config, measured(elbo=-138.234, rate=6.5, active_units=1)) == []
