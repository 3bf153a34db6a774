"""Intervals cover what they say on data drawn from the prior, hyperparameters learned from each data set."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import FunctionalTucker
from tests.checks import assert_below
from tests.oracles import DenseGP, DenseMode

LEVELS, POINTS, DATA_SETS, NOMINAL = 6, 25, 100, 0.95


def data_set(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """All cells of one draw from the dense prior: 6 labels x 25 scattered points, noise included."""
    rng = np.random.default_rng([seed, 2026])
    noise, constants = np.exp(rng.normal(-3.0, 0.5)), np.exp(rng.normal(0.0, 0.5, 2))
    lengthscale, sharpness = np.exp(rng.normal(-1.2, 0.3)), np.exp(rng.normal(0.0, 0.5))
    modes = (
        DenseMode(None, constants[0]),
        DenseMode(1.5, constants[1], lengthscale, sharpness, rng.random()),
    )
    points = np.concatenate([[0.0, 1.0], rng.random(POINTS - 2)])
    X = np.column_stack([np.repeat(np.arange(LEVELS), POINTS), np.tile(points, LEVELS)])
    cov = DenseGP(0.25, noise, modes).observed([X[:, 0], X[:, 1]])
    return X, np.linalg.cholesky(cov) @ rng.normal(size=X.shape[0])


def coverage(seed: int, share: float) -> float:
    """Share of held-out cells inside the 95 % interval of function and noise."""
    X, y = data_set(seed)
    train = np.random.default_rng([seed, 1]).random(y.size) < share
    train[np.unique(X[:, 0], return_index=True)[1]] = True  # every label is seen
    model = FunctionalTucker(discrete=[0]).fit(X[train], y[train])
    mean, std = model.predict(X[~train], return_std=True, include_noise=True)
    return float(np.mean(np.abs(y[~train] - mean) < 1.959964 * std))


@pytest.mark.slow
@pytest.mark.parametrize("share", [0.85, 0.7, 0.4])
def test_intervals_of_95_percent_cover_95_percent_of_held_out_cells(share: float) -> None:
    """Two bounds. The cells of one data set are correlated, so that the data sets are what is counted:
    the mean over data sets may miss 95 % by four of its own standard errors plus one point, which plug-in
    hyperparameters may cost; and by four binomial errors of 100 trials, as if the cells of a data set
    were covered or missed together.
    """
    shares = np.array([coverage(seed, share) for seed in range(DATA_SETS)])
    miss = abs(shares.mean() - NOMINAL)
    error = shares.std(ddof=1) / np.sqrt(DATA_SETS)
    assert_below(miss, 4 * error + 0.01, f"distance of the coverage {shares.mean():.3f} from 95 %")
    assert_below(miss, 4 * np.sqrt(NOMINAL * (1 - NOMINAL) / DATA_SETS), "the same, binomial bound")
    assert_below(error, 0.02, "standard error over the data sets")
