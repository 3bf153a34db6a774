"""Scores of Gaussian predictions, against their definitions."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from tenfac.bayes.metrics import gaussian_metrics
from tenfac.core.errors import DataError, ShapeError
from tests.checks import assert_below, assert_close, assert_equal, assert_says

Y = np.array([0.3, -2.0, 5.0, 1.0, 0.0])
MEAN = np.array([0.0, -2.0, 1.0, 1.5, 0.2])
STD = np.array([1.0, 0.5, 2.5, 0.01, 7.0])


def crps(y: float, mean: float, std: float) -> float:
    """``integral (F(u) - [u >= y])^2 du`` by quadrature, split where the integrand jumps."""
    low, high = min(mean, y) - 12 * std, max(mean, y) + 12 * std
    spots = sorted({mean, mean - 3 * std, mean + 3 * std})
    left, _ = quad(
        lambda u: norm.cdf(u, mean, std) ** 2, low, y, points=[p for p in spots if p < y], limit=500
    )
    right, _ = quad(
        lambda u: norm.sf(u, mean, std) ** 2, y, high, points=[p for p in spots if p > y], limit=500
    )
    return left + right


def test_crps_is_the_integral_that_defines_it() -> None:
    want = float(np.mean([crps(*row) for row in zip(Y, MEAN, STD, strict=True)]))
    assert_close(gaussian_metrics(Y, MEAN, STD)["crps"], want, factor=1e7)


def test_nll_is_the_mean_negative_log_density() -> None:
    want = float(-norm.logpdf(Y, MEAN, STD).mean())
    assert_close(gaussian_metrics(Y, MEAN, STD)["nll"], want)


def test_rmse_and_mae_are_their_formulas() -> None:
    scores = gaussian_metrics(Y, MEAN, STD)
    assert_close(scores["rmse"], float(np.sqrt((0.09 + 0 + 16 + 0.25 + 0.04) / 5)))
    assert_close(scores["mae"], (0.3 + 0 + 4 + 0.5 + 0.2) / 5)
    assert_equal(sorted(scores), ["coverage", "crps", "mae", "nll", "rmse"])


@pytest.mark.parametrize(("level", "want"), [(0.95, 0.8), (0.5, 0.6), (0.1, 0.4)])
def test_coverage_counts_values_inside_the_central_interval(level: float, want: float) -> None:
    # |z| = 0.3, 0, 1.6, 50, 0.03
    assert_close(gaussian_metrics(Y, MEAN, STD, level)["coverage"], want)


def test_coverage_of_draws_from_the_prediction_is_the_level() -> None:
    y = np.random.default_rng(0).normal(size=20_000)
    got = gaussian_metrics(y, np.zeros(y.size), np.ones(y.size), 0.9)["coverage"]
    assert_below(
        abs(got - 0.9), 4 * np.sqrt(0.9 * 0.1 / y.size), "distance from 90 %, bound of four binomial errors"
    )


def test_scores_scale_with_the_unit_of_y() -> None:
    one, other = gaussian_metrics(Y, MEAN, STD), gaussian_metrics(10 * Y + 3, 10 * MEAN + 3, 10 * STD)
    for name in ("rmse", "mae", "crps"):
        assert_close(other[name], 10 * one[name])
    assert_close(other["nll"], one["nll"] + float(np.log(10)))
    assert_equal(other["coverage"], one["coverage"])


@pytest.mark.parametrize("std", [0.0, -1.0, np.nan])
def test_a_std_that_is_not_positive_is_refused(std: float) -> None:
    with pytest.raises(DataError) as error:
        gaussian_metrics([0.0, 1.0], [0.0, 0.0], [1.0, std])
    assert_says(error, "every std must be positive", "include_noise=True")


@pytest.mark.parametrize("arrays", [([], [], []), ([1.0], [1.0, 2.0], [1.0]), ([[1.0]], [[1.0]], [[1.0]])])
def test_arrays_of_different_or_no_length_are_refused(arrays) -> None:
    with pytest.raises(ShapeError) as error:
        gaussian_metrics(*arrays)
    assert_says(error, "one length above zero", str(np.shape(arrays[1])))
