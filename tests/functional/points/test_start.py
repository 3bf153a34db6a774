"""The first fit to scattered points: cross-validation over ridges, decays and the terms they choose."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tenfac.functional.points import start as module
from tenfac.functional.points.start import PolynomialFit, Prior, _likeliest, first_fit
from tests.checks import assert_above, assert_below, assert_close, assert_equal

RNG = np.random.default_rng(3)
N = 50
X = RNG.uniform(-1, 1, (N, 2))
BASES = [np.polynomial.chebyshev.chebvander(x, 7) for x in X.T]
WEIGHTS = RNG.uniform(0.2, 3, N)
WEIGHTS /= WEIGHTS.mean()
NOISE = RNG.standard_normal(N)


def smoothers(fit: PolynomialFit, prior: Prior, ridges: np.ndarray) -> list[np.ndarray]:
    """Matrices from weighted values to the weighted fit, a free constant and the terms of a fit."""
    scales = [decay ** -np.arange(8.0) for decay in prior.decays]
    columns = [BASES[0][:, i] * BASES[1][:, j] * scales[0][i] * scales[1][j] for i, j in fit.index]
    rows = np.stack([np.ones(N), *columns], axis=1) * np.sqrt(WEIGHTS)[:, None]
    free = np.ones(rows.shape[1])
    free[0] = 0
    inverse = [np.linalg.inv(rows.T @ rows + ridge * np.diag(free)) for ridge in ridges]
    return [rows @ some @ rows.T for some in inverse]


@pytest.mark.parametrize("noise", [0.03, 0.3, 30.0])
def test_the_ridge_is_the_smoothest_of_those_that_generalised_cross_validation_finds_best(
    noise: float,
) -> None:
    y = np.exp(X[:, 0]) * np.cos(2 * X[:, 1]) + noise * NOISE
    prior = Prior((1.9, 1.6))
    fit = PolynomialFit(BASES, WEIGHTS, prior)
    ridges = module._RIDGES[-24:] * N
    target, scores = np.sqrt(WEIGHTS) * y, []
    for hat in smoothers(fit, prior, ridges):
        free = 1 - np.trace(hat) / N
        scores.append(np.mean((target - hat @ target) ** 2) / max(free, 0.02) ** 2)
    score, ridge = fit.best(y, prior)
    near = np.flatnonzero(np.array(scores) <= min(scores) / 0.99)
    assert_below(abs(ridge / ridges[near[-1]] - 1), 1e-9, "relative difference of the ridge")
    assert_below(abs(score / scores[near[-1]] - 1), 1e-6, "relative difference of the score")


def test_a_fit_without_terms_is_the_weighted_mean() -> None:
    bases = [np.ones((N, 1)), np.ones((N, 1))]
    fit = PolynomialFit(bases, WEIGHTS, Prior((2.0, 2.0)))
    mean = float(WEIGHTS @ NOISE) / N
    assert_close(fit.coefficients(NOISE, Prior((2.0, 2.0)), 0.0), np.array([[mean]]))


def test_without_a_ridge_terms_that_are_the_same_at_the_points_do_no_harm() -> None:
    x = np.linspace(-1, 1, 40)
    basis = np.stack([x**0, x, x, x**2, x**2 - x], axis=1)
    fit = PolynomialFit([basis], np.ones(40), Prior((1.5,)))
    for unit in (1.0, 1e-6, 1e6):
        found = fit.coefficients(unit * (x**2 + 3 * x - 1), Prior((1.5,)), 0.0)
        assert_below(np.abs(basis @ found / unit - (x**2 + 3 * x - 1)).max(), 1e-10, "error")
        assert_below(np.abs(found / unit).max(), 10, "largest coefficient")
    small = PolynomialFit([basis * [1, 1e-6, 1e-6, 1e-6, 1e-6]], np.ones(40), Prior((1.5,)))
    found = small.coefficients(x**2 + 3 * x - 1, Prior((1.5,)), 0.0)
    assert_below(np.abs(found[1:] * 1e-6).max(), 10, "largest coefficient")
    assert_below(np.abs(small.coefficients(x, Prior((1.5,)), 0.0)[1:3] * 1e-6 - 0.5).max(), 0.5, "share")


def test_labels_are_expected_to_add_up_to_the_same_whatever_their_number() -> None:
    sums = [float(np.sum(Prior((0.0,)).scales((size,))[0][1:] ** 2)) for size in (2, 3, 11)]
    assert_close(np.array(sums), np.full(3, sums[0]))
    assert_equal(Prior((0.0,)).scales((4,))[0][0], 1.0)
    assert_below(sums[0], 1.0, "of the constant")


def test_the_likeliest_products_are_those_of_the_largest_scales_largest_first() -> None:
    scales = [decay ** -np.arange(6.0) for decay in (1.3, 1.71, 2.2)]
    every = list(itertools.product(range(6), repeat=3))
    every.sort(key=lambda k: -np.prod([s[i] for s, i in zip(scales, k, strict=True)]))
    for limit in (1, 2, 17, 216):
        assert_equal([tuple(k) for k in _likeliest(scales, limit).tolist()], every[:limit])


@pytest.mark.parametrize("rough", [0, 1])
def test_a_variable_in_which_a_function_is_rougher_gets_a_slower_decay_and_more_terms(rough: int) -> None:
    y = np.exp(X[:, 1 - rough] / 2) / (1.02 - X[:, rough]) + 0.1 * NOISE
    bases = [np.polynomial.chebyshev.chebvander(x, 15) for x in X.T]
    fit, prior, ridge = first_fit(bases, [False, False], y, WEIGHTS)
    assert_above(prior.decays[1 - rough] / prior.decays[rough], 1.2, "ratio of the decays")
    assert_above(fit.shape[rough] - fit.shape[1 - rough], 2, "difference of the degrees")
    assert_equal(fit.index, PolynomialFit(bases, WEIGHTS, prior).index)
    score, same = fit.best(y, prior)
    assert_equal(ridge, same)
    for decay in (2.5, 1.75, 1.15):
        other = PolynomialFit(bases, WEIGHTS, Prior((decay, decay)))
        assert_above(other.best(y, Prior((decay, decay)))[0] / score, 1.0, "mean square with one decay")


@pytest.mark.parametrize("near", [1.05, 1.3, 3.0])
def test_the_decay_of_one_variable_is_one_of_those_tried_and_the_best(near: float) -> None:
    x = np.cos(np.linspace(0, np.pi, N))
    bases = [np.polynomial.chebyshev.chebvander(x, 30)]
    y = 1 / (near - x) + 1e-6 * NOISE
    fit, prior, ridge = first_fit(bases, [False], y, np.ones(N))
    tried = {decay: fit.best(y, Prior((decay,))) for decay in module._DECAYS}
    assert prior.decays[0] in tried
    score, same = tried[prior.decays[0]]
    assert_equal(ridge, same)
    assert_below(score, min(s for s, _ in tried.values()) / 0.99**2, "mean square")


def test_labels_have_no_decay_and_do_not_change_that_of_the_others() -> None:
    x = np.linspace(-1, 1, N)
    label = np.eye(5)[np.arange(N) % 5]
    bases = [
        np.concatenate([np.ones((N, 1)), label[:, 1:]], axis=1),
        np.polynomial.chebyshev.chebvander(x, 9),
    ]
    fit, prior, _ = first_fit(bases, [True, False], np.exp(x) * (1 + label[:, 2]), np.ones(N))
    assert_equal((prior.decays[0], fit.shape[0]), (0.0, 5))
    assert_above(prior.decays[1], 1.5, "decay")
