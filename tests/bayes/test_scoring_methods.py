"""Densities and calibration of new observations, and the posterior as a tree."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import kstest, norm
from sklearn.exceptions import NotFittedError

from tenfac import DataError, FunctionalTucker
from tenfac.bayes.likelihoods.response import KINDS, Response
from tenfac.bayes.metrics import calibration, gaussian_metrics
from tests.bayes.toys import scaled, smooth_table, twin
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

every_kind = pytest.mark.parametrize("kind", KINDS)


def fitted(response: str = "identity") -> tuple[FunctionalTucker, dict[str, Any], np.ndarray]:
    X, y = smooth_table((3, 6), (0,), 40, seed=1)
    table = {"cell": np.array([f"c{v:.0f}" for v in X[:, 0]]), "time": X[:, 1]}
    y = np.exp(y / 12) if response != "identity" else y
    return FunctionalTucker(max_iter=0, response=response).fit(table, y), table, y


# --- densities --------------------------------------------------------------------------------------------


def test_log_predictive_is_the_dense_normal_density_of_each_row() -> None:
    X, y = smooth_table((4, 9), (0,), 40)
    model = FunctionalTucker(discrete=[0], max_iter=0).fit(X, y)
    points = scaled(model, list(X.T))
    rows = X[:8] + np.array([0.0, 4.0])
    dense = twin(model)
    mean, cov = dense.predict(points, (y - y.mean()) / y.std(), scaled(model, list(rows.T)))
    std = y.std() * np.sqrt(np.diag(cov) + dense.noise_variance)
    values = np.linspace(y.min(), y.max(), 8)
    want = norm(y.mean() + y.std() * mean, std)
    assert_relative(model.log_predictive(rows, values), want.logpdf(values), 1e-8)
    assert_relative(model.pit(rows, values), want.cdf(values), 1e-8)


@every_kind
def test_the_predictive_density_integrates_to_the_pit(kind: str) -> None:
    model, table, y = fitted(kind)
    row = {name: column[:1] for name, column in table.items()}
    low, high = model.bounds_
    _, std = model.predict(row, return_std=True, include_noise=True)
    low, high = max(low, y.min() - 20 * std[0]), min(high, y.max() + 40 * std[0])

    def density(value: float) -> float:
        return float(np.exp(model.log_predictive(row, [value])[0]))

    middle = float(np.median(y))
    below = quad(density, low, middle, limit=200)[0]
    above = quad(density, middle, high, limit=200)[0]
    assert_below(abs(below - model.pit(row, [middle])[0]), 1e-6, "distance of the PIT")
    assert_below(abs(below + above - 1), 1e-5, "distance of the whole from 1")


@pytest.mark.parametrize("kind", ["log", "logit"])
def test_beyond_the_bounds_the_density_is_zero(kind: str) -> None:
    model, table, _ = fitted(kind)
    rows = {name: column[:2] for name, column in table.items()}
    low, high = model.bounds_
    assert_equal(model.log_predictive(rows, [low, low - 1]), np.array([-np.inf, -np.inf]))
    assert_equal(model.pit(rows, [low, low - 1]), np.zeros(2))
    if np.isfinite(high):
        assert_equal(model.pit(rows, [high, high + 1]), np.ones(2))


# --- calibration ------------------------------------------------------------------------------------------


@every_kind
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (-2.0, 0.1), (1.5, 1.5)])
def test_crps_of_a_bent_gaussian_is_the_integral_that_defines_it(kind: str, mean: float, std: float) -> None:
    y = np.random.default_rng(0).gamma(2.0, 3.0, 40)
    response = Response.learn(kind, y, np.ones(40), 0.05)
    ends = response.observed(np.array([mean - 9 * std, mean + 12 * std]))

    def below(value: float) -> float:
        return float(norm.cdf(response.standardized(*(np.array([v]) for v in (value, mean, std**2)))[0]))

    for value in (float(y.min()), 4.0, float(y.max())):
        low, high = min(ends[0], value), max(ends[1], value)
        spots = response.observed(mean + std * np.linspace(-6, 6, 13))
        want = sum(
            quad(f, a, b, limit=500, points=[s for s in spots if a < s < b])[0]
            for f, a, b in (
                (lambda v: below(v) ** 2, low, value),
                (lambda v: (1 - below(v)) ** 2, value, high),
            )
        )
        got = response.crps(*(np.array([v]) for v in (value, mean, std**2)))
        assert_relative(got, np.array([want]), 1e-6)


@pytest.mark.parametrize("std", [0.3, 2.0, 8.0, 24.0])
def test_crps_of_a_log_response_is_that_of_a_log_normal(std: float) -> None:
    y = np.random.default_rng(0).gamma(2.0, 3.0, 40)
    response = Response.learn("log", y, np.ones(40), 0.05)
    above, middle, sigma = y - response.low, response.offset + 0.2 * response.spread, response.spread * std
    score = (np.log(above) - middle) / sigma
    tail = np.exp(middle + sigma**2 / 2)
    lost = norm.cdf(score - sigma) - norm.sf(sigma / np.sqrt(2))
    want = above * (2 * norm.cdf(score) - 1) - 2 * tail * lost
    assert_relative(response.crps(y, np.full(40, 0.2), np.full(40, std**2)), want, 1e-9)


def test_crps_beyond_the_floor_counts_the_distance() -> None:
    y = np.random.default_rng(0).gamma(2.0, 3.0, 40)
    response = Response.learn("log", y, np.ones(40), 0.05)
    at, off = response.bounds[0] - np.array([0.0, 2.5]), np.array([1.0, 1.0])
    got = response.crps(at, 0 * off, off)
    assert_relative(got[1:], got[:1] + 2.5, 1e-6)


def test_calibration_of_gaussian_predictions_has_their_scores_and_their_pit() -> None:
    model, table, y = fitted()
    got = model.calibration(table, y, level=0.8)
    mean, std = model.predict(table, return_std=True, include_noise=True)
    want = calibration(y, mean, std, 0.8)
    assert_equal(sorted(got), sorted(want))
    for name, value in want.items():
        assert_close(np.asarray(got[name]), np.asarray(value), factor=1e4)
    assert_close(want["nll"], gaussian_metrics(y, mean, std)["nll"])
    assert_close(got["nll"], -float(model.log_predictive(table, y).mean()))
    assert_equal(got["pit"], model.pit(table, y))


@pytest.mark.parametrize("kind", ["log", "logit"])
def test_calibration_of_bent_predictions_is_in_the_unit_of_y(kind: str) -> None:
    model, table, y = fitted(kind)
    got = model.calibration(table, y)
    mean = model.predict(table, return_std=True, include_noise=True)[0]
    assert_close(got["rmse"], float(np.sqrt(np.mean((y - mean) ** 2))))
    assert_close(got["mae"], float(np.mean(np.abs(y - mean))))
    draws = model.sample(table, 4000, include_noise=True)
    spread = np.abs(draws[: len(draws) // 2] - draws[len(draws) // 2 :]).mean()
    want = np.abs(draws - y).mean() - spread / 2
    assert_below(abs(got["crps"] / want - 1), 0.02, "relative distance from the CRPS of draws")


def test_coverage_by_quartile_sorts_rows_by_their_std() -> None:
    std = np.array([4.0, 1.0, 3.0, 2.0, 4.1, 1.1, 3.1, 2.1])
    off = np.array([0.0, 0.0, 9.0, 9.0, 0.0, 9.0, 0.0, 9.0])
    got = calibration(off * std, np.zeros(8), std)
    assert_equal(got["coverage_by_quartile"], np.array([0.5, 0.0, 0.5, 1.0]))
    assert_close(got["coverage"], 0.5)
    assert_close(got["pit"][[0, 2]], norm.cdf([0.0, 9.0]))


def test_pit_of_draws_from_the_posterior_is_uniform() -> None:
    model, table, _ = fitted("log")
    row = {name: column[:1].repeat(400) for name, column in table.items()}
    row["time"] = np.linspace(-30.0, 60.0, 400)
    draws = np.concatenate(
        [
            model.sample({name: column[n : n + 1] for name, column in row.items()}, 1,
                                   include_noise=True, random_state=n)[0]
            for n in range(400)
        ]
    )  # fmt: skip
    assert_above(kstest(model.pit(row, draws), "uniform").pvalue, 1e-4, "p of uniformity")


# --- the tree ---------------------------------------------------------------------------------------------


def test_the_tree_has_draws_likelihood_and_hyperparameters_by_the_names_of_the_modes() -> None:
    pytest.importorskip("xarray")
    weights = np.random.default_rng(0).integers(1, 3, 40).astype(float)
    X, y = smooth_table((3, 6), (0,), 40, seed=1)
    table = {"cell": np.array([f"c{v:.0f}" for v in X[:, 0]]), "time": X[:, 1]}
    model = FunctionalTucker(max_iter=0).fit(table, y, sample_weight=weights)
    tree = model.posterior_
    assert tree is model.posterior_
    f = tree["posterior"]["f"]
    assert_equal((f.dims, f.shape), (("chain", "draw", "observation"), (1, 500, 40)))
    assert_equal(f.coords["cell"].values.tolist(), table["cell"].tolist())
    assert_close(f.coords["time"].values, table["time"])
    mean, std = model.predict(table, return_std=True)
    off = np.abs(f.values[0].mean(axis=0) - mean) / std * np.sqrt(500)
    assert_below(off.max(), 4.5, "distance of the mean, in standard errors")
    assert_close(tree["observed_data"]["y"].values, y)
    want = weights * norm.logpdf(y, f.values, model.noise_)
    assert_relative(tree["log_likelihood"]["y"].values, want, 1e-10)
    held = tree["constant_data"]
    for name, value in model.constants_.items():
        assert_close(held["constant"].sel(mode=name).item(), value)
    assert_close(held["lengthscale"].sel(continuous_mode="time").item(), model.lengthscales_["time"])
    assert_close(held["noise"].item(), model.noise_)


@every_kind
def test_the_likelihood_of_the_tree_averages_to_the_predictive_density(kind: str) -> None:
    pytest.importorskip("xarray")
    model, table, y = fitted(kind)
    averaged = np.log(np.exp(model.posterior_["log_likelihood"]["y"].values[0]).mean(axis=0))
    error = np.abs(averaged - model.log_predictive(table, y))
    assert_below(np.median(error), 0.05, "distance of the logarithms")


def test_another_fit_has_another_tree() -> None:
    pytest.importorskip("xarray")
    model, table, y = fitted()
    before = model.posterior_
    model.fit(table, y + 1)
    assert model.posterior_ is not before
    assert_close(model.posterior_["observed_data"]["y"].values, y + 1)


# 2026-11: ArviZ announces its next version when imported
@pytest.mark.filterwarnings("ignore:\\s*ArviZ is undergoing:FutureWarning")
def test_arviz_summarizes_the_tree_and_leaves_one_out() -> None:
    arviz = pytest.importorskip("arviz")
    rng = np.random.default_rng(0)
    x = rng.integers(0, 6, 90).astype(float)
    y = np.sin(x) + 0.5 * rng.normal(size=90)
    model = FunctionalTucker(max_iter=30, tol=1e-3).fit(x[:, None], y)
    data = arviz.from_datatree(model.posterior_)
    mean = arviz.summary(data, var_names=["f"], kind="stats")["mean"].to_numpy()
    assert_below(np.abs(mean - model.predict(x[:, None])).max(), 0.05 * y.std(), "distance of the mean")
    # without a row, at the same hyperparameters, its density follows from the inverse covariance
    inverse = np.linalg.inv(twin(model).observed(scaled(model, [x])))
    variance = y.var() / np.diag(inverse)
    off = y.std() * (inverse @ ((y - y.mean()) / y.std())) / np.diag(inverse)
    want = norm.logpdf(off, scale=np.sqrt(variance)).sum()
    assert_below(abs(arviz.loo(data).elpd_loo - want), 0.5, "distance of the elpd")


# --- bad input --------------------------------------------------------------------------------------------


def test_values_that_do_not_fit_the_rows_are_refused() -> None:
    model, table, y = fitted()
    for method in ("log_predictive", "pit", "calibration"):
        with pytest.raises(DataError) as error:
            getattr(model, method)(table, y[:-1])
        assert_says(error, f"FunctionalTucker.{method}", "one value per row", "(39,)", "40 rows")
        with pytest.raises(DataError) as error:
            getattr(model, method)(table, np.where(np.arange(40) == 3, np.nan, y))
        assert_says(error, f"FunctionalTucker.{method}", "1 NaN or infinite", "Leave these rows out")
    for level in (0.0, 1.0, -2.0):
        with pytest.raises(DataError) as error:
            model.calibration(table, y, level)
        assert_says(error, "`level` must lie between 0 and 1", str(level))


def test_before_fit_there_is_no_posterior() -> None:
    with pytest.raises(NotFittedError):
        _ = FunctionalTucker().posterior_
    assert not hasattr(FunctionalTucker(), "posterior_")


def test_a_mode_called_like_a_part_of_the_tree_is_refused() -> None:
    pytest.importorskip("xarray")
    model = FunctionalTucker(max_iter=0).fit({"draw": [0.0, 1.0]}, [0.0, 1.0])
    with pytest.raises(DataError) as error:
        _ = model.posterior_
    assert_says(error, "FunctionalTucker.posterior_", "'draw'", "Rename the column")
