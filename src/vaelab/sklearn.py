"""A VAE as a scikit-learn estimator: for tables of numbers, and for images as rows of pixels.

    from vaelab.sklearn import VAE
    codes = VAE(latent_dim=2).fit_transform(X)

Rows are features, whatever their scale: `VAE` says how they are brought to the range that networks
learn in, and every density that it reports is that of the numbers as they were given.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.base import BaseEstimator, ClassNamePrefixFeaturesOutMixin, TransformerMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_array, check_is_fitted, validate_data
from torch import Tensor

from vaelab import api
from vaelab.data.batches import Batch
from vaelab.data.images import ImageSet, Splits
from vaelab.models import noise
from vaelab.models.model import evaluating, seeded
from vaelab.models.vae import Vae

SCALED = ("gaussian", "gaussian-scalar", "gaussian-pixel", "laplace")
"""Likelihoods of any number: features are brought to [0, 1] by their least and greatest."""

WITHIN = ("bernoulli", "continuous-bernoulli")
"""Likelihoods of numbers in [0, 1]: features are taken as they are."""

STEPS = 5_000
"""Of a training that is not told how long to be: few rows need many passes."""

MOST_DRAWS = 1_000_000
"""Of the code for a row: they are in memory at once."""

Array = NDArray[np.floating[Any]]


class VAE(ClassNamePrefixFeaturesOutMixin, TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Variational autoencoder with the interface of scikit-learn.

    With a ``gaussian…`` or ``laplace`` likelihood features may be any numbers: each is shifted and
    scaled so that those of ``fit`` fill [0, 1] (all alike where ``image_shape`` is given), and
    later ones may lie outside. With ``bernoulli`` and ``continuous-bernoulli`` they must lie in
    [0, 1] and stay as they are.

    Arguments:
        latent_dim: dimensions of the code.
        likelihood: ``gaussian-scalar`` (one learned σ), ``gaussian`` (the one that fits the errors
            best), ``gaussian-pixel`` (a σ for each feature of each row), ``laplace``, ``bernoulli``
            or ``continuous-bernoulli``.
        beta: weight of the rate; 1 is the ELBO.
        hidden: widths of the layers between features and code.
        image_shape: (C, H, W) where rows are images, for convolutional networks.
        epochs: passes over the rows; None makes as many as give 5,000 steps, 10 at least.
        batch_size: rows a step.
        lr: learning rate of Adam.
        draws: of the code for each row, in `score_samples`.
        random_state: seed, or a generator of seeds; None draws one.
        settings: any other settings of `vaelab.train`, by name: ``{"prior": "mixture"}``.

    Attributes:
        model_: the trained `vaelab.Vae`.
        n_features_in_: features of a row.
        seed_: of the training, and of the noise in `score_samples`.

    Raises:
        ValueError: X holds NaN, has another number of features than in ``fit``, or values that the
            likelihood has no density for.
        ConfigError: settings that contradict one another.
    """

    def __init__(
        self,
        latent_dim: int = 2,
        *,
        likelihood: str = "gaussian-scalar",
        beta: float = 1.0,
        hidden: Sequence[int] = (256, 256),
        image_shape: tuple[int, int, int] | None = None,
        epochs: int | None = None,
        batch_size: int = 128,
        lr: float = 1e-3,
        draws: int = 100,
        random_state: Any = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        self.latent_dim = latent_dim
        self.likelihood = likelihood
        self.beta = beta
        self.hidden = hidden
        self.image_shape = image_shape
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.draws = draws
        self.random_state = random_state
        self.settings = settings

    def fit(self, X: Any, y: Any = None) -> Self:
        """Train on rows ``(n, features)``; y is not used."""
        rows = validate_data(self, X, dtype=(np.float64, np.float32), ensure_min_samples=2)
        if self.likelihood not in SCALED + WITHIN:
            raise ValueError(
                f"likelihood {self.likelihood!r}: choose one of {', '.join(SCALED + WITHIN)}."
            )
        shape = self.image_shape
        if shape is not None and shape[0] not in (1, 3, 4) and shape[2] in (1, 3, 4):
            raise ValueError(
                f"image_shape {shape}: is (C, H, W), channels first. Rows of (H, W, C) images: "
                "X.reshape(-1, H, W, C).transpose(0, 3, 1, 2).reshape(len(X), -1)."
            )
        self._check_arguments()
        self._set_scale(rows)
        images = ImageSet(self._as_images(rows).float())
        self.seed_ = int(check_random_state(self.random_state).randint(2**31 - 1))
        network: dict[str, Any] = {"hidden": list(self.hidden)}
        network["kind"] = "mlp" if self.image_shape is None else "conv"
        settings: dict[str, Any] = {
            "latent_dim": self.latent_dim,
            "likelihood": self.likelihood,
            "beta": self.beta,
            "encoder": network,
            "standardize": True,
            "output": "linear",  # features have no black and white
            "augment": {},
            "epochs": self.epochs or max(10, -(-STEPS * self.batch_size // len(rows))),
            "batch_size": self.batch_size,
            "lr": self.lr,
            "seed": self.seed_,
            "device": "cpu",
            **(self.settings or {}),
        }
        splits = Splits("rows", images, images, images, held_out=False)
        self.model_ = api.train("vae", splits, **settings).cpu()
        self._n_features_out = self.latent_dim
        return self

    def transform(self, X: Any) -> Array:
        """Return the posterior means of rows, ``(n, latent_dim)``."""
        rows = self._rows(X)

        def mean(x: Tensor) -> Tensor:
            return self.model_.infer(x, None).mean

        return self._as_given(self._apply(mean, self._as_images(rows)), rows)

    def inverse_transform(self, X: Any) -> Array:
        """Return the rows ``(n, features)`` of codes ``(n, latent_dim)``: the means of p(x|z)."""
        check_is_fitted(self)
        codes = check_array(X, dtype=(np.float64, np.float32))
        if codes.shape[1] != self.latent_dim:
            raise ValueError(
                f"X has {codes.shape[1]} features, but codes have {self.latent_dim} dimensions."
            )

        def decoded(z: Tensor) -> Tensor:
            return self.model_.decode(z).mean.flatten(1)

        found = self._apply(decoded, torch.as_tensor(codes))
        return self._as_given(found * self._scale() + torch.as_tensor(self.offset_), codes)

    def sample(self, n_samples: int = 1, random_state: Any = None) -> Array:
        """Return the rows of draws from the model's prior p(z), ``(n_samples, features)``.

        They are means of p(x|z), without the noise around them.
        """
        check_is_fitted(self)
        if n_samples < 1:
            raise ValueError(f"n_samples: must be 1 or more (got {n_samples}).")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        with seeded(seed, self.model_.device):
            codes = self.model_.draw(torch.zeros(n_samples, 0))
        return self.inverse_transform(codes.double().numpy())

    def score_samples(self, X: Any) -> Array:
        """Return the importance-weighted bound of log p(x) of each row, ``(n,)`` nats.

            log p(x) ≥ E[log 1/K Σ_k p(x|z_k) p(z_k) / q(z_k|x)],  z_k ~ q(z|x)

        with the model's own prior p(z) and posterior q(z|x), whichever they are. The noise of a row
        follows from ``random_state`` of `fit` and from the numbers in the row: so its score depends
        on nothing else, and the noise of different rows is independent. The standard error of the
        mean over n rows falls as 1/√n. It is the density of the features as they were given (their
        scale is taken into account) or, under ``bernoulli``, the probability of features that are 0
        or 1. Source: Burda, Grosse and Salakhutdinov, 2016.
        """
        rows = self._rows(X)
        if self.likelihood == "bernoulli" and not np.isin(rows, (0, 1)).all():
            raise ValueError(
                "bernoulli: is a probability of features that are 0 or 1, and X holds others. Cut "
                "them in two, or choose continuous-bernoulli."
            )

        def bound(x: Tensor) -> Tensor:
            batch = Batch(x, x, None, None, torch.arange(len(x)))
            with noise.row_by_row(self._seeds(x)):
                log_w = self.model_.trace(batch, None, self.draws).log_w
            return torch.logsumexp(log_w, 0) - math.log(self.draws)

        found = self._apply(bound, self._as_images(rows), max(1, 2**16 // self.draws))
        jacobian = float(np.log(np.broadcast_to(self.scale_, rows.shape[1:])).sum())
        values: Array = (found - jacobian).numpy()
        return values

    def _seeds(self, x: Tensor) -> list[int]:
        """Return a seed for each row, of the row's numbers and of the seed of `fit`."""
        key = self.seed_.to_bytes(8, "big")
        rows = (row.tobytes() for row in x.numpy() + 0.0)  # where −0 is 0
        return [
            int.from_bytes(hashlib.blake2b(row, digest_size=7, key=key).digest()) for row in rows
        ]

    def score(self, X: Any, y: Any = None) -> float:
        """Return the mean of `score_samples`, nats per row: more is better."""
        return float(self.score_samples(X).mean())

    def __sklearn_tags__(self) -> Any:
        """Say that both precisions are kept, and that noise is seeded."""
        tags = super().__sklearn_tags__()
        tags.transformer_tags.preserves_dtype = ["float64", "float32"]
        return tags

    def _check_arguments(self) -> None:
        twice = sorted(set(self.settings or {}) & set(self.get_params(deep=False)))
        if twice:
            raise ValueError(f"settings: {twice[0]} is an argument of VAE; give it there.")
        if not 1 <= self.draws <= MOST_DRAWS:
            raise ValueError(f"draws: must be 1 to {MOST_DRAWS:,} (got {self.draws}).")

    def _set_scale(self, rows: Array) -> None:
        """Set ``offset_`` and ``scale_`` of features, numbers or ``(features,)``."""
        if self.likelihood in WITHIN:
            self._check_within(rows)
            self.offset_, self.scale_ = np.zeros(()), np.ones(())
            return
        axis = 0 if self.image_shape is None else None
        low = np.asarray(rows.min(axis), np.float64)
        spread = np.asarray(rows.max(axis), np.float64) - low
        self.offset_, self.scale_ = low, np.where(spread > 0, spread, 1.0)

    def _check_within(self, rows: Array) -> None:
        if rows.min() < 0 or rows.max() > 1:
            raise ValueError(
                f"{self.likelihood}: needs features in [0, 1], and X holds {rows.min():g} to "
                f"{rows.max():g}. Scale them (8-bit images: X / 255), or choose gaussian-scalar."
            )

    def _rows(self, X: Any) -> Array:
        check_is_fitted(self)
        rows: Array = validate_data(self, X, dtype=(np.float64, np.float32), reset=False)
        if self.likelihood in WITHIN:
            self._check_within(rows)
        return rows

    def _as_images(self, rows: Array) -> Tensor:
        """Return rows in [0, 1] as images ``(n, C, H, W)``; a table has one row of pixels."""
        features = rows.shape[1]
        shape = self.image_shape or (1, 1, features)
        if math.prod(shape) != features:
            raise ValueError(f"image_shape {shape}: does not hold {features} features.")
        scaled = (np.asarray(rows, np.float64) - self.offset_) / self.scale_
        return torch.as_tensor(scaled).view(-1, *shape)

    def _scale(self) -> Tensor:
        return torch.as_tensor(self.scale_)

    def _apply(self, function: Any, values: Tensor, rows: int = 4096) -> Tensor:
        """Apply a function in double precision, so that the result of a row is the row's alone."""
        model: Vae = self.model_
        with evaluating(model), torch.no_grad():
            model.double()
            try:
                parts = [function(part.double()) for part in values.split(rows)]
            finally:
                model.float()
        return torch.cat(parts)

    @staticmethod
    def _as_given(values: Tensor, like: Array) -> Array:
        found: Array = values.numpy().astype(like.dtype, copy=False)
        return found


__all__ = ["VAE"]
