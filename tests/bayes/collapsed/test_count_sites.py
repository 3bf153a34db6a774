"""Counts: the posterior of highest bound, found by a general optimiser, and the evidence by sampling."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats
from scipy.optimize import minimize
from scipy.special import expit, logsumexp

from tenfac import FunctionalTucker
from tenfac.bayes.collapsed.count_sites import CountSites
from tenfac.bayes.collapsed.hyper import log_prior
from tenfac.bayes.collapsed.site_loop import learn_sites
from tenfac.bayes.likelihoods.named import start_counts
from tests.bayes.toys import distinct_table, scaled, twin
from tests.checks import assert_above, assert_below, assert_relative

KINDS = ("poisson", "bernoulli", "binomial")
every_kind = pytest.mark.parametrize("kind", KINDS)
_Z, _W = np.polynomial.hermite_e.hermegauss(60)
_W = _W / _W.sum()


def table(kind: str, sizes: tuple[int, int] = (2, 5), count: int = 8, seed: int = 3):
    """Counts over two modes, and weights: repeats, or trials."""
    X, y = distinct_table(sizes, count, seed)
    rng = np.random.default_rng(seed)
    eta = (y - y.mean()) / y.std()
    weights = rng.integers(1, 4, count) * (5.0 if kind == "binomial" else 1.0)
    if kind == "poisson":
        return X, rng.poisson(np.exp(1 + eta)).astype(float), weights
    if kind == "bernoulli":
        return X, (rng.random(count) < expit(2 * eta)).astype(float), weights
    return X, rng.binomial(weights.astype(int), expit(eta)) / weights, weights


def log_probability(kind: str, y: np.ndarray, weights: np.ndarray, eta: np.ndarray) -> np.ndarray:
    """Log probability of every row, for ``eta`` of shape (N,) or (N, K)."""
    y, weights = (part.reshape(-1, *[1] * (eta.ndim - 1)) for part in (y, weights))
    if kind == "poisson":
        return weights * stats.poisson.logpmf(y, np.exp(eta))
    if kind == "bernoulli":
        return weights * stats.bernoulli.logpmf(y.astype(int), expit(eta))
    return stats.binom.logpmf(np.round(y * weights), weights, expit(eta))


def start_of(kind: str, X, y, weights, **more):
    """A fit whose hyperparameters stay where they start, solved to rounding."""
    settings = {"discrete": [0], "max_iter": 0, "tol": 1e-13, **more}
    return FunctionalTucker(likelihood=kind, **settings).fit(X, y, sample_weight=weights)


def prior_of(model: FunctionalTucker, X: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and covariance of the linear scale at the rows."""
    points = scaled(model, list(X.T))
    offset, spread = model._response.offset, model._response.spread
    return np.full(len(X), offset), spread**2 * twin(model).covariance(points, points)


def best_gaussian(kind: str, y, weights, prior_mean, cov):
    """Mean, covariance and bound of the best Gaussian, by BFGS on a mean and a triangular factor."""
    root, count = np.linalg.cholesky(cov), y.size
    lower = np.tril_indices(count)

    def unpack(x):
        factor = np.zeros((count, count))
        factor[lower] = x[count:]
        return x[:count], factor

    def loss(x):
        white, factor = unpack(x)  # in units of the prior
        scale = root @ factor
        mean, std = prior_mean + root @ white, np.sqrt(np.square(scale).sum(axis=1))
        expected = log_probability(kind, y, weights, mean[:, None] + std[:, None] * _Z) @ _W
        logdet = np.log(np.square(np.diag(factor)) + 1e-300).sum()
        divergence = 0.5 * (np.square(factor).sum() + white @ white - count - logdet)
        return divergence - expected.sum()

    start = np.concatenate([np.zeros(count), 0.7 * np.eye(count)[lower]])
    found = minimize(loss, start, method="BFGS", options={"gtol": 1e-4})
    white, factor = unpack(found.x)
    scale = root @ factor
    return prior_mean + root @ white, scale @ scale.T, -found.fun


@every_kind
def test_the_posterior_is_the_gaussian_of_highest_bound(kind: str) -> None:
    X, y, weights = table(kind)
    model = start_of(kind, X, y, weights)
    mean, cov, bound = best_gaussian(kind, y, weights, *prior_of(model, X))
    positions = model._read_positions(X)
    got, variance, _ = model._prediction.at(positions)
    offset, spread = model._response.offset, model._response.spread
    assert_relative(offset + spread * got, mean, 1e-3)
    assert_relative(spread * np.sqrt(variance), np.sqrt(np.diag(cov)), 1e-3)
    assert_below(abs(model.log_evidence_ - bound), 1e-5 * abs(bound), "error of the bound")


@pytest.mark.parametrize("kind", ["binomial", *(pytest.param(k, marks=pytest.mark.slow) for k in KINDS[:2])])
def test_the_bound_is_below_the_evidence_and_close_to_it(kind: str) -> None:
    X, y, weights = table(kind)
    model = start_of(kind, X, y, weights)
    prior_mean, cov = prior_of(model, X)
    mean = model._prediction.at(model._read_positions(X))[0]
    draws = stats.multivariate_t(prior_mean, cov, df=5, seed=0)  # heavier than the prior: weights are bounded
    eta = draws.rvs(200_000)
    logs = log_probability(kind, y, weights, eta.T).sum(axis=0)
    logs += stats.multivariate_normal.logpdf(eta, prior_mean, cov) - draws.logpdf(eta)
    evidence = logsumexp(logs) - np.log(logs.size)
    shares = np.exp(logs - logsumexp(logs))
    error = np.sqrt(np.square(shares).sum())
    assert_below(error, 0.05, "relative error of the sampled evidence")
    assert_above(evidence + 4 * error, model.log_evidence_, "log evidence")
    assert_below(evidence - 4 * error, model.log_evidence_ + 0.3, "log evidence")
    offset, spread = model._response.offset, model._response.spread
    sampled = shares @ eta
    assert_below(np.abs(offset + spread * mean - sampled).max(), 0.2, "distance from the exact mean")


@every_kind
def test_a_weight_is_the_row_given_that_often_and_the_order_does_not_matter(kind: str) -> None:
    X, y, weights = table(kind, (3, 16), 40)
    again = np.repeat(np.arange(40), weights.astype(int))
    if kind == "binomial":  # trials, one by one
        ones = np.concatenate([np.arange(w) < round(w * p) for w, p in zip(weights, y, strict=True)])
        other = start_of("bernoulli", X[again], ones.astype(float), None)
    else:
        other = start_of(kind, X[again], y[again], None)
    one = start_of(kind, X, y, weights)
    for got, want in zip(one.predict(X, return_std=True), other.predict(X, return_std=True), strict=True):
        assert_relative(got, want, 1e-6)
    ways = stats.binom.logpmf(np.round(y * weights), weights, 0.5) + weights * np.log(2)
    want = other.log_evidence_ + (ways.sum() if kind == "binomial" else 0.0)
    assert_below(abs(one.log_evidence_ - want), 1e-7 * abs(want), "bound")
    order = np.random.default_rng(0).permutation(40)
    shuffled = start_of(kind, X[order], y[order], weights[order])
    assert_relative(shuffled.predict(X), one.predict(X), 1e-7)


@pytest.mark.parametrize("kind", ["poisson", pytest.param("binomial", marks=pytest.mark.slow)])
def test_learned_hyperparameters_are_a_maximum_of_the_bound(kind: str) -> None:
    X, y, weights = table(kind, (3, 8), 20, seed=5)
    model = FunctionalTucker(discrete=[0], likelihood=kind, tol=1e-8).fit(X, y, sample_weight=weights)
    assert model.info_.converged
    hyper = model._prediction.hyper
    best = model.log_evidence_ + log_prior(hyper)[0]
    assert hyper.noise == 0.0
    sites = CountSites.start(start_counts(kind, y, weights), y, weights)
    for entry in (0, 7):  # scale, lengthscale
        for step in (-0.1, 0.1):
            moved = hyper.pack()
            moved[entry] += step
            at = hyper.unpack(moved)
            solved = learn_sites(model._task, sites, 0, 1e-9, 0, at)
            value = solved.prediction.log_evidence + solved.beyond + log_prior(at)[0]
            assert_below(value, best + 1e-4, f"bound where entry {entry} moves by {step}")


@pytest.mark.slow
@pytest.mark.parametrize("level", [0.0, 1.0])
def test_a_table_of_equal_outcomes_has_a_sane_posterior(level: float) -> None:
    X, _ = distinct_table((3, 8), 20)
    for kind in KINDS:
        model = FunctionalTucker(discrete=[0], likelihood=kind).fit(X, np.full(20, level))
        mean, std = model.predict(X, return_std=True, include_noise=True)
        assert np.isfinite(mean).all()
        assert np.isfinite(std).all()
        assert (std > 0).all()
        assert_below(np.abs(mean - level).max(), 0.2, "distance of the mean")


def test_counts_over_five_decades_are_followed() -> None:
    x = np.linspace(0, 1, 60)
    rate = np.exp(5.8 * (1 + np.sin(6 * x)))
    y = np.random.default_rng(0).poisson(rate).astype(float)
    model = FunctionalTucker(likelihood="poisson").fit(x[:, None], y)
    large = rate > 100
    error = np.abs(np.log(model.predict(x[:, None])) - np.log(rate))
    assert_below(error[large].max(), 0.3, "error of the log rate")
