"""NUTS and SVI against the message passing, on data small enough for all three (minutes)."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
import pytest

from tenfac import FunctionalTucker, nuts, svi
from tests.bayes.toys import smooth_table
from tests.checks import assert_above, assert_below

pytest.importorskip("pyro")
pytestmark = pytest.mark.slow


@cache
def fitted() -> tuple[FunctionalTucker, np.ndarray, np.ndarray]:
    """Four labels at twelve times: 60 rows, 35 distinct points."""
    X, y = smooth_table((4, 12), (0,), 60)
    return FunctionalTucker(discrete=[0]).fit(X, y), X, y


def distance(mean: np.ndarray, std: np.ndarray, X: Any) -> tuple[float, float, float]:
    """Largest difference of means in units of the std, and the extreme ratios of stds, to the exact ones."""
    want, want_std = fitted()[0].predict(X, return_std=True)
    ratio = std / want_std
    return float(np.abs((mean - want) / want_std).max()), float(ratio.min()), float(ratio.max())


@pytest.mark.parametrize("prior", ["gp", "sde"])
def test_nuts_at_fixed_hyperparameters_is_the_message_passing(prior: str) -> None:
    model, X, y = fitted()
    post = nuts(model, X, y, fixed=True, prior=prior, num_samples=1000, warmup=150)
    assert post.info.converged, repr(post.info)
    off, low, high = distance(post.f.mean((0, 1)), post.f.std((0, 1)), X)
    assert_below(off, 4 / post.diagnostics["ess"] ** 0.5, "difference of means, Monte-Carlo error times 4")
    assert_above(low, 0.9, "least ratio of std")
    assert_below(high, 1.1, "largest ratio of std")


@pytest.mark.parametrize("prior", ["gp", "sde"])
def test_svi_at_fixed_hyperparameters_is_the_message_passing(prior: str) -> None:
    model, X, y = fitted()
    post = svi(model, X, y, fixed=True, prior=prior, num_samples=4000)
    assert post.info.converged, repr(post.info)
    off, low, high = distance(post.f.mean((0, 1)), post.f.std((0, 1)), X)
    assert_below(off, 4 / 4000**0.5 + 0.05, "difference of means: Monte-Carlo error times 4, and the guide's")
    assert_above(low, 0.9, "least ratio of std")
    assert_below(high, 1.1, "largest ratio of std")


def far_and_near() -> np.ndarray:
    """The observed indices, times between them, and times beyond both ends."""
    _, X, _ = fitted()
    low, high = X[:, 1].min(), X[:, 1].max()
    times = np.linspace(low - 0.5 * (high - low), high + 0.5 * (high - low), 20)
    return np.vstack([X, np.column_stack([np.tile([10.0, 11.0, 12.0, 13.0], 5), times])])


@pytest.mark.parametrize("run", [nuts, svi])
def test_with_learned_hyperparameters_stds_are_a_little_wider(run: Any) -> None:
    # not the same posterior: the message passing holds the hyperparameters at their best values
    model, X, y = fitted()
    options = {"num_samples": 250, "warmup": 150} if run is nuts else {"max_iter": 2000, "num_samples": 400}
    post = run(model, X, y, **options)
    assert post.info.converged, repr(post.info)
    new = far_and_near()
    mean, std = post.predict(new, return_std=True)
    off, low, high = distance(mean, std, new)
    assert_below(off, 0.35, "difference of means in std")
    assert_above(low, 0.9, "least ratio of std")
    assert_below(high, 1.5, "largest ratio of std")
    assert_above(std.mean() / model.predict(new, return_std=True)[1].mean(), 1.0, "mean ratio of std")
