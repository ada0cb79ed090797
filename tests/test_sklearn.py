"""The scikit-learn face: its contract, and densities that are right in the units of the data."""

from __future__ import annotations

import math
import pickle
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.conftest import blobs
from vaelab.models.model import seeded
from vaelab.models.priors import FlowPrior, MixturePrior
from vaelab.sklearn import VAE

QUICK: dict[str, Any] = {"hidden": (8,), "epochs": 2, "batch_size": 16, "draws": 10}


@parametrize_with_checks([VAE(**QUICK)])  # type: ignore[untyped-decorator]
def test_contract_of_scikit_learn(estimator: Any, check: Any) -> None:
    check(estimator)


def plane(n: int = 400, seed: int = 0) -> np.ndarray[Any, Any]:
    """Return rows near a plane in five dimensions, of very different scales."""
    generator = np.random.default_rng(seed)
    codes, noise = generator.normal(size=(n, 2)), generator.normal(size=(n, 5))
    directions = np.array([[1, 2, 0, -1, 1], [0, 1, 3, 1, -1]])
    scale, offset = np.array([1, 10, 100, 0.1, 1]), np.array([0, 5, -300, 1, 7])
    rows: np.ndarray[Any, Any] = (codes @ directions + 0.3 * noise) * scale + offset
    return rows


@pytest.fixture(scope="module")
def fitted() -> VAE:
    settings = {"schedule": "one-cycle"}
    model = VAE(hidden=(32,), batch_size=32, lr=5e-3, random_state=0, settings=settings)
    return model.fit(plane())


def test_density_is_that_of_the_features_as_given(fitted: VAE) -> None:
    x, held_out = plane(), plane(seed=1)
    low, spread = x.min(0), np.ptp(x, 0)  # probabilistic PCA has one σ for all features too
    exact = PCA(2).fit((x - low) / spread).score((held_out - low) / spread) - np.log(spread).sum()
    assert exact - 0.5 < fitted.score(held_out) < exact + 0.2  # a bound, of a short training
    assert fitted.score_samples(held_out).shape == (400,)


def test_scaling_a_feature_changes_the_density_by_its_logarithm() -> None:
    x = plane(60)
    factors = np.array([2.0, 1.0, 0.5, 4.0, 1.0])  # exact in binary
    one = VAE(**QUICK, random_state=3).fit(x)
    other = VAE(**QUICK, random_state=3).fit(x * factors)
    np.testing.assert_allclose(
        other.score_samples(x * factors), one.score_samples(x) - np.log(factors).sum(), rtol=1e-5
    )
    np.testing.assert_allclose(other.transform(x * factors), one.transform(x), rtol=1e-4, atol=1e-5)


def test_score_is_the_importance_weighted_bound(fitted: VAE) -> None:
    x = plane(40, seed=2)
    scaled = (x - fitted.offset_) / fitted.scale_
    inside = ((scaled >= 0) & (scaled <= 1)).all(1)
    images = torch.from_numpy(scaled[inside]).float().view(-1, 1, 1, 5)
    expected = fitted.model_.log_prob(images, samples=2000).double() - math.log(
        fitted.scale_.prod()
    )
    many = VAE(**fitted.get_params()).set_params(draws=2000)
    many.__dict__.update({k: v for k, v in vars(fitted).items() if k.endswith("_")})
    np.testing.assert_allclose(many.score_samples(x[inside]), expected, atol=0.25)


@pytest.fixture(scope="module")
def linear() -> VAE:
    """A linear decoder with one σ: p(x) is normal, N(b, W Wᵀ + σ² I)."""
    return VAE(hidden=(), epochs=15, batch_size=16, draws=20, lr=1e-2, random_state=1).fit(plane())


def log_density(model: VAE, rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return log p(x) of a linear model in closed form (Tipping and Bishop, 1999)."""
    offset = model.inverse_transform(np.zeros((1, 2)))[0]
    weight = (model.inverse_transform(np.eye(2)) - offset).T
    sigma = float(model.model_.decode(torch.zeros(1, 2)).stddev.detach()[0, 0, 0, 0])
    covariance = weight @ weight.T + np.diag((sigma * model.scale_) ** 2)
    found: np.ndarray[Any, Any] = multivariate_normal(offset, covariance).logpdf(rows)
    return found


def test_the_error_of_the_score_is_small_and_falls_with_the_number_of_rows(linear: VAE) -> None:
    rows = plane(1024, seed=9)
    exact = log_density(linear, rows)
    many = VAE(**linear.get_params()).set_params(draws=4000)
    many.__dict__.update({k: v for k, v in vars(linear).items() if k.endswith("_")})
    error = many.score_samples(rows[:200]) - exact[:200]
    assert np.median(np.abs(error)) < 0.02
    assert -0.06 < error.mean() < 0.02  # a bound, which few rows of a coarse posterior keep low
    errors = []
    for seed in range(12):
        linear.seed_ = seed
        errors.append(linear.score_samples(rows) - exact)
    each = np.stack(errors)  # (seeds, rows): the noise of a row differs with the seed
    single = each.std(0).mean()
    of_means = each.mean(1).std(ddof=1)
    assert single > 0.05
    # Were the noise of rows alike, this would be about `single` for any number of rows.
    assert of_means < 3 * single / math.sqrt(len(rows))


@pytest.mark.parametrize(
    ("posterior", "prior", "by"),
    [("diagonal", "nice", 0.1), ("full", "mixture", 0.6), ("flow", "mixture", 0.6)],
)
def test_score_and_samples_are_of_the_models_own_distributions(
    posterior: str, prior: str, by: float
) -> None:
    torch.manual_seed(0)
    settings: dict[str, Any] = {"prior": prior, "prior_components": 3, "posterior": posterior}
    settings |= {"sigma": 0.5, "standardize": False}  # so that few steps make z matter
    model = VAE(**QUICK, likelihood="gaussian", random_state=2, settings=settings)
    model.set_params(draws=3000).fit(plane(60))
    own = model.model_.prior
    assert isinstance(own, (MixturePrior, FlowPrior))
    with torch.no_grad():
        for parameter in own.parameters():  # away from N(0, I)
            parameter.add_(by * torch.randn_like(parameter))
    rows = plane(4, seed=3)
    scaled = torch.from_numpy((rows - model.offset_) / model.scale_).view(-1, 1, 1, 5)
    whole, step = torch.linspace(-9, 9, 361).double(), 18 / 360  # ∫ p(x|z) p(z) dz on a grid
    grid = torch.cartesian_prod(whole, whole)
    network = model.model_.double().eval()
    with torch.no_grad():
        log_prior = own().log_prob(grid)
        found, moved = [], 0.0
        for x in scaled:
            log_px = torch.cat([network.decode(z).log_prob(x) for z in grid.split(20_000)])
            found.append(torch.logsumexp(log_px + log_prior, 0) + 2 * math.log(step))
            other = torch.logsumexp(log_px - grid.square().sum(1) / 2, 0) - math.log(2 * math.pi)
            moved = max(moved, abs(float(found[-1] - other - 2 * math.log(step))))
        assert moved > 0.3  # so that to take N(0, I) for the prior would show
    assert torch.logsumexp(log_prior, 0) + 2 * math.log(step) == pytest.approx(0, abs=0.03)
    network.float()
    expected = torch.stack(found).numpy() - np.log(model.scale_).sum()
    np.testing.assert_allclose(model.score_samples(rows), expected, atol=0.15)
    drawn = model.sample(2000, random_state=4)
    with seeded(7, torch.device("cpu")):
        means = model.inverse_transform(own.sample(2000).numpy())
    spread = np.sqrt(2 / 2000) * means.std(0)
    assert (np.abs(drawn.mean(0) - means.mean(0)) < 4.5 * spread).all()


def test_a_score_does_not_depend_on_the_rows_beside_it(fitted: VAE) -> None:
    rows = plane(30, seed=8)
    whole = fitted.score_samples(rows)
    parts = np.concatenate([fitted.score_samples(part) for part in np.split(rows[::-1], 6)])
    np.testing.assert_allclose(parts[::-1], whole, rtol=1e-12)
    assert not np.allclose(fitted.score_samples(rows[:1] + 1e-9), whole[:1], rtol=1e-6, atol=0)


def test_codes_go_back_to_rows(fitted: VAE) -> None:
    x = plane()
    back = fitted.inverse_transform(fitted.transform(x))
    error = ((back - x) ** 2).sum(0) / ((x - x.mean(0)) ** 2).sum(0)
    assert error.max() < 0.25
    drawn = fitted.sample(500, random_state=0)
    np.testing.assert_allclose(drawn.mean(0), x.mean(0), atol=0.4 * x.std(0).max())
    np.testing.assert_array_equal(drawn[:3], fitted.sample(500, random_state=0)[:3])
    assert list(fitted.get_feature_names_out()) == ["vae0", "vae1"]


def test_outliers_get_a_lower_density_wherever_they_lie(fitted: VAE) -> None:
    x = plane(100, seed=5)
    far = x + 8 * x.std(0)
    assert fitted.score_samples(far).max() < np.quantile(fitted.score_samples(x), 0.01)


def test_it_works_in_a_pipeline_and_a_search() -> None:
    x = plane(90)
    labels = (x[:, 0] > 0).astype(int)
    pipeline = make_pipeline(StandardScaler(), VAE(**QUICK, random_state=0), KNeighborsClassifier())
    assert pipeline.fit(x, labels).score(x, labels) > 0.6
    search = GridSearchCV(VAE(**QUICK, random_state=0), {"latent_dim": [1, 2]}, cv=2).fit(x)
    assert search.best_params_["latent_dim"] in (1, 2)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()


def test_images_are_rows_with_a_shape() -> None:
    x = blobs(40).reshape(40, -1) / 255
    model = VAE(
        **QUICK,
        likelihood="bernoulli",
        image_shape=(1, 12, 10),
        settings={"encoder": {"widths": [4], "hidden": [8]}},
    ).fit(x)
    assert model.transform(x).shape == (40, 2)
    rows = model.inverse_transform(np.zeros((2, 2)))
    assert rows.shape == (2, 120)
    assert 0 <= rows.min() <= rows.max() <= 1
    assert model.score_samples(x > 0.5).max() < 0
    with pytest.raises(ValueError, match="features that are 0 or 1"):
        model.score_samples(x)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"likelihood": "bernoulli"}, r"needs features in \[0, 1\]"),
        ({"likelihood": "poisson"}, "choose one of gaussian"),
        ({"draws": 0}, "draws: must be 1 to 1,000,000"),
        ({"settings": {"lr": 0.1}}, "settings: lr is an argument of VAE"),
        ({"image_shape": (1, 2, 2)}, "does not hold 5 features"),
        ({"image_shape": (5, 1, 1)}, r"is \(C, H, W\), channels first\. Rows of"),
    ],
)
def test_what_cannot_be_fitted_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAE(**{**QUICK, **settings}).fit(plane(20))


def test_a_copy_by_scikit_learn_means_gives_the_same(fitted: VAE) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.transform(plane(5)), fitted.transform(plane(5)))


def test_importing_vaelab_leaves_scikit_learn_alone() -> None:
    code = "import sys, vaelab, vaelab.api; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
