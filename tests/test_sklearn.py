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
from sklearn.decomposition import PCA
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from tests.conftest import blobs
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
        ({"image_shape": (1, 2, 2)}, "does not hold 5 features"),
        ({"image_shape": (5, 1, 1)}, r"is \(C, H, W\), channels first, and C must be 1, 3 or 4"),
    ],
)
def test_what_cannot_be_fitted_is_said(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        VAE(**QUICK, **settings).fit(plane(20))


def test_a_copy_by_scikit_learn_means_gives_the_same(fitted: VAE) -> None:
    copy = pickle.loads(pickle.dumps(fitted))
    np.testing.assert_array_equal(copy.transform(plane(5)), fitted.transform(plane(5)))


def test_importing_vaelab_leaves_scikit_learn_alone() -> None:
    code = "import sys, vaelab, vaelab.api; sys.exit('sklearn' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
