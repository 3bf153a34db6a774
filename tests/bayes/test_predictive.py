"""New observations: intervals, quantiles of any response and likelihood, and posteriors of fewer rows."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import FunctionalTucker
from tenfac.bayes.predictive import predictive, without_rows
from tests.checks import assert_above, assert_below, assert_close, assert_equal, quietly


@pytest.mark.parametrize("response", ["identity", "log"])
def test_quantile_residuals_and_intervals_agree(response: str) -> None:
    rng = np.random.default_rng(1)
    X = rng.uniform(0, 6, (60, 1))
    y = np.exp(np.sin(X[:, 0])) + 0.05 * rng.random(60)
    model = FunctionalTucker(response=response, max_iter=2, tol=1e-2)
    quietly(model.fit, X, y)
    found = predictive(model, X)
    assert (found.low < found.mean).all()
    for ends, z in ((found.low, -1.959963984540054), (found.high, 1.959963984540054)):
        assert_close(predictive(model, X, ends).z, np.full(60, z), factor=1e5)
    mean, std = model.predict(X, return_std=True)
    assert_equal(found.mean, mean)
    assert_equal(found.std, std)
    low, high = model.bounds_
    assert (found.low > low).all()
    assert (found.high < high).all()
    if np.isfinite(low):
        assert_equal(predictive(model, X[:1], np.array([low - 1])).z, np.array([-np.inf]))


@pytest.mark.slow
@pytest.mark.skipif("likelihood" not in FunctionalTucker().get_params(), reason="needs the setting")
def test_counts_have_whole_intervals_and_randomized_quantiles() -> None:
    rng = np.random.default_rng(2)
    X = rng.uniform(0, 6, (500, 1))
    y = rng.poisson(np.exp(1 + np.sin(X[:, 0]))).astype(float)
    model = FunctionalTucker(likelihood="poisson", max_iter=10, tol=1e-3)
    quietly(model.fit, X[:300], y[:300])
    found = predictive(model, X[300:], y[300:])
    assert_equal(found.low % 1, 0 * found.low)
    assert_equal(found.high % 1, 0 * found.high)
    inside = np.mean((y[300:] >= found.low) & (y[300:] <= found.high))
    assert_above(inside, 0.95 - 2.58 * np.sqrt(0.95 * 0.05 / 200), "coverage, 99 % bound of 200 rows")
    assert_below(abs(found.z.mean()), 2.58 / np.sqrt(200), "mean of 200 normal scores, 99 %")
    assert_below(abs(found.z.std() - 1), 2.58 / np.sqrt(400), "their standard deviation minus 1, 99 %")
    assert_equal(predictive(model, X[300:]).mean, found.mean)


def test_the_second_posterior_is_that_of_the_other_rows(
    capfd: pytest.CaptureFixture[str],
) -> None:
    rng = np.random.default_rng(0)
    X = {"time": rng.integers(0, 40, 160) / 4.0, "cell": rng.choice(list("abcd"), 160)}
    y = np.sin(X["time"]) + 0.5 * (X["cell"] == "b") + 0.1 * rng.standard_normal(160)
    model = FunctionalTucker(max_iter=30, tol=1e-4).fit(X, y)
    held = np.arange(y.size) % 5 == 0
    held |= np.isin(X["time"], [1.0, 2.0])  # whole indices of the exact mode too
    other = without_rows(model, X, y, held)
    changed = without_rows(model, X, np.where(held, 1e3, y), held)
    assert_equal(changed.predict(X), other.predict(X))
    same = without_rows(model, X, y, np.zeros(y.size, dtype=bool))
    for got, want in zip(same.predict(X, return_std=True), model.predict(X, return_std=True), strict=True):
        assert_close(got, want, factor=1e6)
    assert_equal(model._task.y.size, y.size)
    assert_equal(tuple(capfd.readouterr()), ("", ""))  # LAPACK complains of slices without rows
