"""Densities, moments and draws of new observations, against one-dimensional integrals."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import quad

from tenfac import DataError
from tenfac.bayes.likelihoods.added import Gaussian, Likelihood, SliceNoise, StudentT
from tenfac.bayes.likelihoods.counts import Binomial, Poisson
from tenfac.bayes.likelihoods.named import NoiseShape, likelihood_of
from tenfac.bayes.likelihoods.response import Response
from tests.checks import assert_below, assert_close, assert_equal, assert_relative, assert_says

Y = np.random.default_rng(0).gamma(2.0, 3.0, 40)
PLAIN, BENT = (Response.learn(kind, Y, np.ones(40), 0.1) for kind in ("identity", "logit"))
RATE = Response("log", 0.0, 0.0, 1.2, 0.8)
SHARE = Response("logit", 0.0, 1.0, -0.4, 1.3)
MOMENTS = [(0.3, 0.0), (0.3, 0.04), (-1.0, 1.0), (2.0, 9.0)]
every_moment = pytest.mark.parametrize(("mean", "variance"), MOMENTS)


def over_f(function: Callable[[np.ndarray], np.ndarray], mean: float, variance: float) -> float:
    """Average of a function of f over its Gaussian, by Gauss-Legendre on 600 panels."""
    if variance == 0:
        return float(function(np.array([mean]))[0])
    nodes, weights = np.polynomial.legendre.leggauss(12)
    edges = np.linspace(-10, 10, 601)
    z = (edges[:-1, None] + (nodes + 1) / 60).ravel()
    density = np.tile(weights / 60, 600) * stats.norm.pdf(z)
    return float(function(mean + np.sqrt(variance) * z) @ density)


def got(likelihood: Likelihood, y: list[float], mean: float, variance: float) -> np.ndarray:
    count = len(y)
    return likelihood.log_density(np.array(y), np.full(count, mean), np.full(count, variance))


# --- noise added to f -------------------------------------------------------------------------------------


@every_moment
@pytest.mark.parametrize("response", [PLAIN, BENT], ids=["identity", "logit"])
@pytest.mark.parametrize("dof", [0.5, 2.1, 4.0, 300.0])
def test_student_density_is_the_average_over_f(response, dof, mean, variance) -> None:
    y = [0.5, 6.0, 14.0]
    want = []
    for value in np.array(y):
        at = np.array([value])
        latent, slope = float(response.latent(at)[0]), float(response.log_slope(at)[0])
        density = over_f(lambda f, u=latent: stats.t.pdf((u - f) / 0.3, dof) / 0.3, mean, variance)
        want.append(np.log(density) + slope)
    assert_close(got(StudentT(response, 0.09, dof), y, mean, variance), np.array(want), factor=1e8)


def test_the_density_of_an_outlier_far_away_is_that_of_the_tail() -> None:
    far = PLAIN.observed(np.array([30.0, 1e4, 1e8]))
    want = stats.t.logpdf(np.array([30.0, 1e4, 1e8]) / 0.3, 3.0) - np.log(0.3) - np.log(PLAIN.spread)
    assert_close(StudentT(PLAIN, 0.09, 3.0).log_density(far, np.zeros(3), np.zeros(3)), want, factor=1e8)


@every_moment
def test_gaussian_density_is_that_of_the_sum(mean: float, variance: float) -> None:
    want = stats.norm.logpdf(PLAIN.latent(Y[:3]), mean, np.sqrt(variance + 0.5)) - np.log(PLAIN.spread)
    assert_close(got(Gaussian(PLAIN, 0.5), Y[:3].tolist(), mean, variance), want)


def test_nothing_is_expected_beyond_floor_and_ceiling() -> None:
    low, high = BENT.bounds
    for likelihood in (Gaussian(BENT, 0.1), StudentT(BENT, 0.1, 4.0)):
        assert_equal(got(likelihood, [low - 1, low, high, high + 1], 0.0, 1.0), np.full(4, -np.inf))


def test_moments_of_a_student_observation_have_the_variance_of_its_noise() -> None:
    mean, variance = np.array([0.2, -1.0]), np.array([0.5, 0.0])
    average, std = StudentT(PLAIN, 0.09, 5.0).observed_moments(mean, variance)
    assert_close(average, PLAIN.observed(mean))
    assert_close(std, PLAIN.spread * np.sqrt(variance + 0.09 * 5 / 3))


def test_few_degrees_of_freedom_have_the_std_of_the_gaussian_of_the_same_wide_interval() -> None:
    dof = np.array([0.7, 2.0, 2.01, 30.0])
    _, std = StudentT(PLAIN, np.full(4, 0.09), dof).observed_moments(np.zeros(4), np.zeros(4))
    wide = stats.t.ppf(stats.norm.cdf(3), dof) / 3
    want = np.where(dof < 5, wide, np.sqrt(dof / np.maximum(dof - 2, 1e-3)))
    assert_close(std, PLAIN.spread * 0.3 * want, factor=1e6)


@pytest.mark.parametrize("dof", [2.5, 8.0])
def test_moments_of_a_bent_student_observation_are_integrals(dof: float) -> None:
    average, std = StudentT(BENT, 0.09, dof).observed_moments(np.array([0.7]), np.array([0.0]))

    def moment(power: int, center: float) -> float:
        def integrand(t: float) -> float:
            return (float(BENT.observed(np.array(0.7 + 0.3 * t))) - center) ** power * stats.t.pdf(t, dof)

        return sum(quad(integrand, a, b, limit=200)[0] for a, b in [(-np.inf, -5), (-5, 5), (5, np.inf)])

    assert_relative(average, np.array([moment(1, 0.0)]), 1e-4)
    assert_relative(std, np.array([np.sqrt(moment(2, average[0]))]), 1e-3)


def test_a_student_observation_of_a_logarithm_has_no_moments_and_says_so() -> None:
    response = Response.learn("log", Y, np.ones(40), 0.1)
    with pytest.raises(DataError) as error:
        StudentT(response, 0.1, 4.0).observed_moments(np.zeros(1), np.zeros(1))
    assert_says(error, "response='log'", "include_noise=True", "likelihood='gaussian'")


# --- slices -----------------------------------------------------------------------------------------------

SLICED = SliceNoise(PLAIN, 0.04, np.inf, 6.0, np.array([20.0, 3.0]), np.array([10.0, 90.0]))


def test_a_slice_has_the_student_noise_of_its_posterior_and_a_new_one_that_of_all() -> None:
    rows = SLICED.at(np.array([0, 1, -1]))
    assert_close(rows.dof, np.array([40.0, 6.0, 6.0]))
    assert_close(rows.variance, 0.04 * np.array([0.5, 30.0, 1.0]))
    assert_close(SLICED.scales, np.array([0.5, 30.0]))
    new = SLICED.log_density(Y[:2], np.zeros(2), np.ones(2))
    assert_close(new, StudentT(PLAIN, 0.04, 6.0).log_density(Y[:2], np.zeros(2), np.ones(2)))


def test_rows_and_slices_of_heavy_tails_are_close_to_their_double_mixture() -> None:
    both = replace(SLICED, row_dof=4.0)
    rng = np.random.default_rng(0)
    u = rng.gamma(20.0, 1 / 10.0, 400_000) * rng.gamma(2.0, 1 / 2.0, 400_000)
    noise = rng.normal(size=u.size) * np.sqrt(0.04 / u)
    rows = both.at(np.zeros(3, int))
    want = np.quantile(np.abs(noise), [0.5, 0.95, 0.999])
    scaled = np.sqrt(rows.variance) * stats.t.ppf([0.75, 0.975, 0.9995], rows.dof)
    assert_relative(scaled, want, 0.06)


# --- counts -----------------------------------------------------------------------------------------------


@every_moment
def test_poisson_probabilities_are_averages_over_f_and_sum_to_one(mean: float, variance: float) -> None:
    counts = [0.0, 1.0, 5.0, 60.0, 4000.0]
    likelihood = Poisson(RATE)
    want = [
        over_f(lambda f, k=k: stats.poisson.pmf(k, np.exp(1.2 + 0.8 * f)), mean, variance) for k in counts
    ]
    seen = np.array(want) > 1e-200
    probability = np.exp(got(likelihood, counts, mean, variance))
    assert_relative(probability[seen], np.array(want)[seen], 1e-8)
    if variance < 1:
        assert_close(
            np.exp(got(likelihood, np.arange(400.0).tolist(), mean, variance)).sum(), 1.0, factor=1e6
        )


@every_moment
@pytest.mark.parametrize("trials", [1, 12, 3000])
def test_binomial_probabilities_are_averages_over_f(trials: int, mean: float, variance: float) -> None:
    successes = np.unique(np.round(np.array([0, 0.25, 0.5, 1]) * trials))
    want = [
        over_f(lambda f, k=k: stats.binom.pmf(k, trials, 1 / (1 + np.exp(0.4 - 1.3 * f))), mean, variance)
        for k in successes
    ]
    size = successes.size
    arrays = np.full(size, mean), np.full(size, variance)
    probability = np.exp(Binomial(SHARE).log_density(successes / trials, *arrays, trials=trials))
    assert_below(np.abs(probability - want).max(), 1e-9 * max(want), "error of the probabilities")


@every_moment
@pytest.mark.parametrize(
    ("likelihood", "y"), [(Poisson(RATE), 3.0), (Binomial(SHARE), 0.3), (Binomial(SHARE), 1.0)]
)
def test_expectations_of_the_kernel_are_integrals_with_their_derivatives(likelihood, y, mean, variance):
    response = likelihood.response

    def kernel(part: int) -> Callable[[np.ndarray], np.ndarray]:
        return lambda f: likelihood.log_kernel(np.full(f.shape, y), response.offset + response.spread * f)[
            part
        ]

    parts = likelihood.expected(np.array([y]), np.array([mean]), np.array([variance]))
    for part, result in enumerate(parts):
        want = over_f(kernel(part), mean, variance) * response.spread**part
        assert_below(abs(result[0] - want), 1e-8 * max(1.0, abs(want)), f"error of part {part}")
    beside = 0.3 + np.array([-1e-5, 0.0, 1e-5]) / response.spread
    value, slope, curvature = (kernel(part)(beside) for part in range(3))
    assert_below(abs((value[2] - value[0]) / 2e-5 - slope[1]), 1e-6, "error of the slope")
    assert_below(abs((slope[0] - slope[2]) / 2e-5 - curvature[1]), 1e-6, "error of the curvature")


@pytest.mark.parametrize(
    "likelihood",
    [Gaussian(BENT, 0.2), StudentT(PLAIN, 0.2, 5.0), SLICED, Poisson(RATE), Binomial(SHARE, shares=False)],
    ids=lambda likelihood: type(likelihood).__name__,
)
def test_draws_have_the_moments_of_new_observations(likelihood: Likelihood) -> None:
    rng = np.random.default_rng(1)
    mean, variance = np.array([-0.5, 0.4]), np.array([0.3, 0.1])
    draws = likelihood.sample(mean + np.sqrt(variance) * rng.normal(size=(200_000, 2)), rng)
    average, std = likelihood.observed_moments(mean, variance)
    assert_equal(draws.shape, (200_000, 2))
    assert_below(
        np.abs((draws.mean(axis=0) - average) / std).max(), 5 / np.sqrt(200_000), "error of the mean"
    )
    assert_relative(draws.std(axis=0), std, 0.03)


def test_the_learned_likelihood_has_the_parts_that_were_learned() -> None:
    slices = NoiseShape(3.0, 6.0, np.ones(2), np.ones(2))
    assert_equal(likelihood_of("gaussian", PLAIN, 0.1, NoiseShape()), Gaussian(PLAIN, 0.1))
    assert_equal(likelihood_of("student_t", PLAIN, 0.1, NoiseShape(3.0)), StudentT(PLAIN, 0.1, 3.0))
    assert_equal(likelihood_of("student_t", PLAIN, 0.1, slices).row_dof, 3.0)
    assert_equal(likelihood_of("gaussian", PLAIN, 0.1, replace(slices, dof=None)).row_dof, np.inf)
    assert_equal(likelihood_of("poisson", RATE, 1.0, NoiseShape()), Poisson(RATE))
    assert_equal(likelihood_of("bernoulli", SHARE, 1.0, NoiseShape()), Binomial(SHARE, shares=False))
    assert_equal(likelihood_of("binomial", SHARE, 1.0, NoiseShape()), Binomial(SHARE, shares=True))
