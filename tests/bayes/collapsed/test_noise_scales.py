"""Student-t noise and noise by slice, against dense updates and against the integral over all scales."""

from __future__ import annotations

from dataclasses import replace
from itertools import product

import numpy as np
import pytest
from scipy import stats
from scipy.special import gammaln

from tenfac import FunctionalTucker
from tenfac.bayes.collapsed.hyper import Hyper
from tenfac.bayes.collapsed.noise_scales import Scales
from tests.bayes.toys import distinct_table, scaled, smooth_table, twin
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative

ALL = [("student_t", "constant"), ("gaussian", "slice"), ("student_t", "slice")]
every_noise = pytest.mark.parametrize(
    ("likelihood", "noise"), ALL, ids=[f"{likelihood}-{noise}" for likelihood, noise in ALL]
)


def start_of(
    likelihood: str, noise: object, X: np.ndarray, y: np.ndarray, tol: float = 1e-13, **more: object
):
    """A fit whose hyperparameters stay where they start."""
    model = FunctionalTucker(discrete=[0], max_iter=0, tol=tol, likelihood=likelihood, noise=noise)
    return model.fit(X, y, **more)


def dense_scales(model: FunctionalTucker, cov: np.ndarray, y: np.ndarray, slices: np.ndarray, rounds: int):
    """Posterior mean and covariance of f at the rows, and the bound, by the textbook updates.

    The bound is the expected log likelihood less the divergences of f and of all precisions.
    """
    groups = [np.arange(y.size)] if model.likelihood == "student_t" else []
    groups += [slices] if model.noise != "constant" else []
    noise, a = np.exp(model._prediction.hyper.noise), 2.5
    gammas = [(np.ones(g.max() + 1), np.ones(g.max() + 1)) for g in groups]
    means = lambda: [(s / r)[g] for (s, r), g in zip(gammas, groups, strict=True)]  # noqa: E731
    for _ in range(rounds):
        total = cov + np.diag(noise / np.prod(means(), axis=0))
        gain = np.linalg.solve(total, cov).T
        f, f_cov = gain @ y, cov - gain @ cov
        squares = ((y - f) ** 2 + np.diag(f_cov)) / noise
        for k, group in enumerate(groups):
            rest = squares * np.prod([m for j, m in enumerate(means()) if j != k], axis=0)
            gammas[k] = a + np.bincount(group) / 2, a + np.bincount(group, rest) / 2
    precision = np.prod(means(), axis=0)
    logs = sum(stats_log_mean(*gamma)[group] for gamma, group in zip(gammas, groups, strict=True))
    expected = 0.5 * np.sum(logs - np.log(2 * np.pi * noise) - precision * squares)
    whitened = np.linalg.solve(cov, f_cov)
    f_divergence = 0.5 * (np.trace(whitened) - y.size - np.linalg.slogdet(whitened)[1])
    f_divergence += 0.5 * f @ np.linalg.solve(cov, f)
    divergences = sum(gamma_divergence(s, r, a).sum() for s, r in gammas)
    return f, f_cov, expected - f_divergence - divergences


def stats_log_mean(shape: np.ndarray, rate: np.ndarray) -> np.ndarray:
    return np.array([stats.loggamma(s).mean() for s in shape]) - np.log(rate)


def gamma_divergence(shape: np.ndarray, rate: np.ndarray, a: float) -> np.ndarray:
    """From Gamma(shape, rate) to Gamma(a, a)."""
    log_mean = stats_log_mean(shape, rate)
    own = shape * np.log(rate) - gammaln(shape) + (shape - 1) * log_mean - shape
    return own - (a * np.log(a) - gammaln(a) + (a - 1) * log_mean - a * shape / rate)


@every_noise
def test_posterior_and_bound_are_those_of_dense_updates(likelihood: str, noise: str) -> None:
    X, y = distinct_table((3, 8), 20, seed=2)
    y[5] += 20.0
    model = start_of(likelihood, noise, X, y)
    assert_equal(model.exact_mode_, 1)
    points, target = scaled(model, list(X.T)), model._response.latent(y)
    slices = np.unique(X[:, 1], return_inverse=True)[1]
    gp = twin(model)
    f, f_cov, bound = dense_scales(model, gp.covariance(points, points), target, slices, 1000)
    mean, std = model.predict(X, return_std=True)
    assert_relative(mean, model._response.observed(f), 1e-5)
    assert_relative(std, model._response.spread * np.sqrt(np.diag(f_cov)), 1e-5)
    want = bound + model._response.log_slope(y).sum()
    assert_below(abs(model.log_evidence_ - want), 1e-7 * abs(want), "error of the bound")


def test_the_bound_is_below_the_evidence_and_close_to_it() -> None:
    X, y = distinct_table((2, 3), 3, seed=1)
    model = start_of("student_t", "constant", X, y)
    points, target = scaled(model, list(X.T)), model._response.latent(y)
    cov, noise = twin(model).covariance(points, points), np.exp(model._prediction.hyper.noise)
    u = stats.gamma.ppf((np.arange(30) + 0.5) / 40, 2.5, scale=1 / 2.5)
    total = cov + noise * np.array([np.diag(1 / np.array(scales)) for scales in product(u, repeat=3)])
    fit = np.einsum("i,kij,j->k", target, np.linalg.inv(total), target)
    densities = np.exp(-0.5 * (fit + np.linalg.slogdet(2 * np.pi * total)[1]))
    evidence = np.log(densities.mean()) + model._response.log_slope(y).sum()
    assert_above(evidence, model.log_evidence_ + 1e-3, "log evidence")
    assert_below(evidence, model.log_evidence_ + 1.0, "log evidence, three rows")


@every_noise
def test_a_weight_is_the_row_given_that_often(likelihood: str, noise: str) -> None:
    X, y = smooth_table((3, 6), (0,), 30, seed=4)
    weights = np.random.default_rng(0).integers(0, 4, 30)
    again = np.repeat(np.arange(30), weights)
    one = start_of(likelihood, noise, X, y, 1e-9, sample_weight=weights)
    other = start_of(likelihood, noise, X[again], y[again], 1e-9)
    for got, want in zip(one.predict(X, return_std=True), other.predict(X, return_std=True), strict=True):
        assert_relative(got, want, 1e-6)
    assert_below(abs(one.log_evidence_ - other.log_evidence_), 1e-8 * abs(other.log_evidence_), "bound")


@every_noise
def test_the_order_of_rows_and_the_unit_of_y_do_not_matter(likelihood: str, noise: str) -> None:
    X, y = smooth_table((3, 6), (0,), 30, seed=4)
    order = np.random.default_rng(0).permutation(30)
    one, other = (
        start_of(likelihood, noise, X, y, 1e-9),
        start_of(likelihood, noise, X[order], 100 * y[order] - 7, 1e-9),
    )
    for include in (False, True):
        mean, std = one.predict(X, return_std=True, include_noise=include)
        got, got_std = other.predict(X, return_std=True, include_noise=include)
        assert_relative((got + 7) / 100, mean, 1e-7)
        assert_relative(got_std / 100, std, 1e-7)
    assert_below(
        abs(other.log_evidence_ + 30 * np.log(100) - one.log_evidence_),
        1e-8 * abs(one.log_evidence_),
        "bound",
    )


def test_learned_degrees_of_freedom_and_scale_are_those_of_the_noise() -> None:
    rng = np.random.default_rng(0)
    for dof in (3.0, 1e9):
        squares = (0.2 * rng.standard_t(dof, 20_000)) ** 2
        found, hyper = Scales.of_rows(np.ones(20_000)), Hyper.start(1)
        for _ in range(3):
            found, hyper = found.learned(squares * np.exp(-hyper.noise), hyper)
            found = found.updated(squares * np.exp(-hyper.noise))
        assert_below(abs(np.exp(0.5 * hyper.noise) - 0.2), 0.006, "error of the scale")
        assert_above(found.dof, 0.9 * min(dof, 100), "degrees of freedom")
        assert_below(found.dof, 1.1 * dof, "degrees of freedom")


def test_learning_the_scales_raises_the_bound_and_ends_where_nothing_beside_is_higher() -> None:
    rng = np.random.default_rng(1)
    codes, weights = np.repeat(np.arange(30), 10), rng.integers(1, 3, 300).astype(float)
    squares = rng.gamma(2.0, 1.0, 30)[codes] * rng.normal(size=300) ** 2
    start = Scales.of_slices(weights, codes, 30)
    hyper = Hyper.start(1)
    found, learned = start.learned(squares * np.exp(-hyper.noise), hyper)

    def bound(scales: Scales, noise: float) -> float:
        at = scales.updated(squares * np.exp(-noise))
        residual = weights @ (at.mean * squares) * np.exp(-noise) + weights.sum() * noise
        prior = ((noise + 3.0) / 3.0) ** 2
        return at.bound - 0.5 * (residual - weights @ np.log(at.mean)) - 0.5 * prior

    best = bound(found, learned.noise)
    assert_above(best, bound(start, hyper.noise) + 1.0, "bound")
    for step in (0.97, 1.03):
        assert_below(bound(replace(found, dof=step * found.dof), learned.noise), best, "bound, other dof")
        assert_below(bound(found, learned.noise + np.log(step)), best, "bound, other noise")


def test_a_row_scale_of_weight_two_counts_as_two() -> None:
    squares = np.array([0.5, 9.0, 2.0])
    once = Scales.of_rows(np.array([1.0, 2.0, 1.0])).updated(squares)
    twice = Scales.of_rows(np.ones(4)).updated(squares[[0, 1, 1, 2]])
    assert_close(once.bound, twice.bound)
    assert_close(once.mean, twice.mean[[0, 1, 3]])
