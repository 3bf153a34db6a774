"""New observations of every likelihood and noise: densities, transforms, scores and draws agree."""

from __future__ import annotations

import warnings
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.special import expit

from tenfac import ConvergenceWarning, DataError, FunctionalTucker, load, save
from tenfac.bayes.likelihoods.added import Gaussian, SliceNoise, StudentT
from tenfac.bayes.likelihoods.counts import Binomial, Poisson
from tenfac.bayes.likelihoods.response import Response
from tenfac.bayes.predictive import predictive, without_rows
from tenfac.bayes.unseen import Unseen
from tests.checks import assert_below, assert_close, assert_equal, assert_relative, assert_says

RNG = np.random.default_rng(0)
PLAIN, BENT, LOG = (
    Response.learn(kind, RNG.gamma(2.0, 3.0, 40), np.ones(40), 0.1) for kind in ("identity", "logit", "log")
)
RATE, SHARE = Response("log", 0.0, 0.0, 1.2, 0.8), Response("logit", 0.0, 1.0, -0.4, 1.3)
SLICED = SliceNoise(PLAIN, 0.04, np.inf, 6.0, np.array([20.0, 3.0]), np.array([10.0, 90.0]))
ALL = {
    "gaussian": Gaussian(PLAIN, 0.3),
    "gaussian, bent": Gaussian(BENT, 0.3),
    "gaussian, log": Gaussian(LOG, 0.3),
    "student": StudentT(PLAIN, 0.2, 3.0),
    "student, bent": StudentT(BENT, 0.2, 3.0),
    "slices": SLICED,
    "poisson": Poisson(RATE),
    "bernoulli": Binomial(SHARE, False),
    "binomial": Binomial(SHARE),
}
every_likelihood = pytest.mark.parametrize("likelihood", ALL.values(), ids=ALL.keys())


def rows(likelihood: Any, count: int, mean: float = 0.4, variance: float = 0.7) -> Unseen:
    """The same row so many times."""
    trials = np.full(count, 12.0) if likelihood is ALL["binomial"] else None
    codes = np.zeros(count, dtype=int)
    return Unseen(likelihood, np.full(count, mean), np.full(count, variance), codes, trials)


def drawn(unseen: Unseen, seed: int = 1) -> np.ndarray:
    rng = np.random.default_rng(seed)
    f = unseen.mean + np.sqrt(unseen.variance) * rng.standard_normal(unseen.mean.size)
    return unseen.own.sample(f, rng)


# --- given the moments of f -------------------------------------------------------------------------------


@every_likelihood
def test_transforms_of_draws_are_uniform_and_scores_of_draws_normal(likelihood: Any) -> None:
    unseen = rows(likelihood, 1500)
    y = drawn(unseen)
    assert_below(1e-4, stats.kstest(unseen.pit(y, np.random.default_rng(2)), "uniform").pvalue, "bound of p")
    z = unseen.score(y, np.random.default_rng(2))
    assert_below(1e-4, stats.kstest(z, "norm").pvalue, "bound of p of the scores")


@pytest.mark.parametrize("variance", [1e-6, 0.7, 30.0])
@pytest.mark.parametrize("name", ["poisson", "binomial"])
def test_probabilities_below_a_count_are_sums_of_those_of_the_counts(name: str, variance: float) -> None:
    unseen = rows(ALL[name], 13, variance=variance)
    y = np.arange(13.0) / (12 if name == "binomial" else 1)
    less, equal = unseen.own.below(y, unseen.mean, unseen.variance)
    probability = np.exp(unseen.log_density(y))
    assert_close(equal, probability)
    assert_below(np.abs(less - np.append(0.0, np.cumsum(probability)[:-1])).max(), 1e-9, "error")
    if name == "binomial":
        assert_below(abs(probability.sum() - 1), 1e-9, "error of the sum")


def test_probabilities_below_large_counts_of_a_broad_rate_are_right() -> None:
    y = np.array([1e3, 1e5, 1e7])
    less, _ = Poisson(RATE).below(y, np.full(3, 12.0), np.full(3, 4.0))
    want = stats.norm.cdf((np.log(y) - 1.2 - 0.8 * 12.0) / 1.6)  # the counts are as good as their rates
    assert_below(np.abs(less - want).max(), 1e-3, "distance from a log-normal")


@pytest.mark.parametrize("name", ["student", "student, bent", "slices"])
def test_the_probability_below_is_the_integral_of_the_density(name: str) -> None:
    unseen = rows(ALL[name], 2)
    ends = np.array([3.0, 9.0])
    less, _ = unseen.own.below(ends, unseen.mean, unseen.variance)
    nodes, weights = np.polynomial.legendre.leggauss(60)
    y = 6.0 + 3.0 * nodes
    density = np.exp(rows(ALL[name], 60).log_density(y))
    assert_relative(np.diff(less), np.array([3.0 * weights @ density]), 1e-7)


@every_likelihood
def test_given_f_the_density_is_that_of_a_known_function(likelihood: Any) -> None:
    unseen = rows(likelihood, 50, variance=0.0)
    y = drawn(unseen)
    repeats = unseen.trials if unseen.trials is not None else np.full(50, 3.0)
    factor = 1.0 if unseen.trials is not None else 3.0
    want = factor * unseen.log_density(y)
    assert_relative(unseen.own.given(y, unseen.mean, repeats), want, 1e-6)


@every_likelihood
def test_moments_and_crps_are_those_of_draws(likelihood: Any) -> None:
    unseen = rows(likelihood, 300)
    y = drawn(unseen)
    draws = np.sort(drawn(rows(likelihood, 20_000), seed=3))
    mean, std = unseen.moments()
    assert_below(abs(draws.mean() - mean[0]) / std[0], 4 / np.sqrt(20_000), "distance of the mean")
    if "student" not in type(likelihood).__name__.lower():
        assert_below(abs(draws.std() / std[0] - 1), 0.1, "distance of the std")
    apart = 2 * np.arange(1 - 20_000, 20_000, 2) @ draws / 20_000**2
    want = np.abs(draws - y[:, None]).mean(axis=1) - 0.5 * apart
    assert_below(abs(unseen.crps(y).mean() / want.mean() - 1), 0.03, "relative distance of the CRPS")


def test_rows_of_one_slice_share_its_scale() -> None:
    latent = np.zeros((4000, 4))
    slices = np.array([7, 7, 9, 9])
    wild = replace(SLICED, dof=1.0)
    draws = wild.sample_jointly(latent, np.full(4, -1), slices, np.random.default_rng(0))
    size = np.log(np.abs(PLAIN.latent(draws)))
    correlation = np.corrcoef(size.T)
    assert_below(0.4, correlation[0, 1], "least correlation within a slice")
    assert_below(abs(correlation[0, 2]), 0.07, "correlation between slices")
    assert_below(
        1e-4,
        stats.kstest(PLAIN.latent(draws[:, 0]) / 0.2, stats.t(1.0).cdf).pvalue,
        "bound of p of the tails",
    )


# --- of a fitted model ------------------------------------------------------------------------------------

SETTINGS: dict[str, dict[str, Any]] = {
    "gaussian": {},
    "scaled slices": {"terms": ["residual"], "discrete": None},
    "student_t": {"likelihood": "student_t"},
    "slice": {"noise": "slice"},
    "poisson": {"likelihood": "poisson"},
    "bernoulli": {"likelihood": "bernoulli"},
    "binomial": {"likelihood": "binomial"},
}
every_fit = pytest.mark.parametrize("name", SETTINGS)


@cache
def fitted(name: str) -> tuple[FunctionalTucker, np.ndarray, np.ndarray, np.ndarray | None]:
    rng = np.random.default_rng(3)
    X = np.column_stack([np.tile(np.arange(5.0), 20), np.repeat(np.arange(20.0), 5) / 4])
    f, trials = np.sin(X[:, 1]) * (1 + 0.3 * X[:, 0]), None
    scale = np.exp(rng.normal(size=20))[np.repeat(np.arange(20), 5)]
    y = f + 0.3 * scale * rng.standard_normal(100)
    if name == "poisson":
        y = rng.poisson(np.exp(1 + f)).astype(float)
    elif name == "bernoulli":
        y = (rng.random(100) < expit(f)).astype(float)
    elif name == "binomial":
        trials = rng.integers(1, 9, 100).astype(float)
        y = rng.binomial(trials.astype(int), expit(f)) / trials
    model = FunctionalTucker(**{"discrete": [0], "max_iter": 3, "tol": 1e-3, **SETTINGS[name]})
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y, sample_weight=trials)
    return model, X, y, trials


@every_fit
def test_all_scores_of_a_fit_tell_of_the_same_distribution(name: str, tmp_path: Any) -> None:
    model, X, y, trials = fitted(name)
    X = X + [0.0, 0.1] * (np.arange(100)[:, None] % 2)  # seen and new slices
    weights = {} if trials is None else {"sample_weight": trials}
    got = model.calibration(X, y, **weights)
    assert_close(got["nll"], -float(model.log_predictive(X, y, **weights).mean()))
    assert_equal(got["pit"], model.pit(X, y, **weights))
    assert_below(np.abs(got["pit"] - 0.5).max(), 0.5, "distance of a transform from the middle")
    mean, std = model.predict(X, return_std=True, include_noise=True)
    assert_close(got["mae"], float(np.abs(y - mean).mean()), factor=1e4)
    found = predictive(model, X, None if name == "binomial" else y)
    assert_equal(found.observation_std, std)
    assert ((found.low <= found.observation_mean) & (found.observation_mean <= found.high)).all()
    draws = model.sample(X[:4], 4000, include_noise=True)
    kurtosis = stats.kurtosis(draws, axis=0, fisher=False)
    assert_below(
        np.abs((draws.mean(axis=0) - mean[:4]) / std[:4]).max(), 4.5 / np.sqrt(4000), "mean of draws"
    )
    if name not in ("student_t", "slice"):  # whose standard deviation is not that of draws
        doubt = np.sqrt(kurtosis / 4000)
        assert_below(np.abs((draws.var(axis=0) / std[:4] ** 2 - 1) / doubt).max(), 4.5, "variance of draws")
    save(model, tmp_path / "a")
    assert_equal(load(tmp_path / "a").log_predictive(X, y, **weights), model.log_predictive(X, y, **weights))


@every_fit
def test_the_tree_has_the_likelihood_of_every_row_given_f(name: str, tmp_path: Any) -> None:
    pytest.importorskip("xarray")
    model, X, y, trials = fitted(name)
    save(model, tmp_path / "a")
    back = load(tmp_path / "a")
    tree = back.posterior_
    assert_close(tree["observed_data"]["y"].values, y, factor=100)
    weights = {} if trials is None else {"sample_weight": trials}
    given = tree["log_likelihood"]["y"].values[0]
    averaged = np.log(np.mean(np.exp(given), axis=0))
    error = np.abs(averaged - model.log_predictive(X, y, **weights))
    assert_below(np.median(error), 0.1, "distance of the averages from the predictive density")
    if name == "scaled slices":
        _, variance, noisy = model._prediction.at(model._read_positions(X))
        std = model._response.spread * np.sqrt(noisy - variance)
        assert_relative(given, stats.norm.logpdf(y, tree["posterior"]["f"].values[0], std), 1e-8)
    assert_equal("noise" in tree["constant_data"], name not in ("poisson", "bernoulli", "binomial"))
    assert_equal("slice_scale" in tree["constant_data"], name in ("slice", "scaled slices"))


@pytest.mark.parametrize("name", ["gaussian", "scaled slices", "student_t", "slice", "poisson"])
@pytest.mark.parametrize("include_noise", [False, True])
def test_the_diagonal_of_a_covariance_is_the_variance(name: str, include_noise: bool) -> None:
    model, X, _, _ = fitted(name)
    points = X[:12] + [0.0, 0.1] * (np.arange(12)[:, None] % 2)
    mean, cov = model.predict(points, return_cov=True, include_noise=include_noise)
    want, std = model.predict(points, return_std=True, include_noise=include_noise)
    assert_close(mean, want, factor=1e5)
    assert_close(np.sqrt(np.diag(cov)), std, factor=1e6)
    if include_noise:
        plain = model.predict(points, return_cov=True)[1]
        assert_close(cov - np.diag(np.diag(cov)), plain - np.diag(np.diag(plain)), factor=1e3)


def test_a_probability_has_no_covariance_in_closed_form() -> None:
    model, X, _, _ = fitted("bernoulli")
    with pytest.raises(DataError) as error:
        model.predict(X, return_cov=True)
    assert_says(error, "likelihood of a probability", "sample")


def test_values_that_counts_cannot_have_are_refused() -> None:
    model, X, y, trials = fitted("binomial")
    for method in ("log_predictive", "pit", "calibration"):
        ask = getattr(model, method)
        for values, weights, says in (
            (y, None, "whole numbers of successes"),
            (y, trials + 0.5, "whole numbers of trials"),
            (y, trials[:-1], "one per row"),
            (2 + y, trials, "shares of successes"),
        ):
            with pytest.raises(DataError) as error:
                ask(X, values, sample_weight=weights)
            assert_says(error, f"FunctionalTucker.{method}", says)
    with pytest.raises(DataError) as error:
        predictive(model, X, y)
    assert_says(error, "whole numbers of successes")
    with pytest.raises(DataError) as error:
        fitted("poisson")[0].log_predictive(X, y + 0.1)
    assert_says(error, "whole numbers from 0 up")
    with pytest.raises(DataError) as error:
        fitted("gaussian")[0].log_predictive(X, y, sample_weight=trials)
    assert_says(error, "number of trials of likelihood='binomial'", "'gaussian'")


def test_what_another_inference_answers_is_right_and_the_rest_refused_in_words() -> None:
    model, X, y, _ = fitted("student_t")
    model = FunctionalTucker(**model.get_params())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        model.fit(X, y)
        assert model.posterior_ is not None
        model.set_params(inference="cep", likelihood="gaussian", rank=1, max_iter=3).fit(X, y)
        plain = FunctionalTucker(**model.get_params()).fit(X, y)
    assert_equal(sorted(vars(model)), sorted(vars(plain)))
    mean, std = model.predict(X, return_std=True, include_noise=True)
    assert_relative(model.log_predictive(X, y), stats.norm.logpdf(y, mean, std), 1e-9)
    assert_relative(model.pit(X, y), stats.norm.cdf(y, mean, std), 1e-9)
    assert_relative(predictive(model, X, y).z, (y - mean) / std, 1e-9)
    assert_close(model.calibration(X, y)["nll"], -float(model.log_predictive(X, y).mean()))
    assert_equal((model.dof_, model.slice_dof_, model.slice_scales_), (np.inf, np.inf, {}))
    for ask, what in (
        (lambda: model.predict(X, return_cov=True), "covariance between points"),
        (lambda: model.sample(X), "joint draws"),
        (lambda: model.predict_derivative(X, 1), "derivatives"),
        (lambda: model.mode_functions(1), "FunctionalTucker.mode_functions: the mean is a sum of products"),
        (lambda: model.mean_tucker(), "FunctionalTucker.mean_tucker: the mean is a sum of products"),
        (lambda: model.posterior_, "joint draws"),
        (lambda: model.partial_fit(X, y), "takes no rows after the fit"),
    ):
        with pytest.raises(DataError) as error:
            ask()
        assert_says(error, "FunctionalTucker", "inference='cep'", what, "inference='collapsed'")


@pytest.mark.filterwarnings("ignore::tenfac.ConvergenceWarning")
def test_the_tree_of_a_program_is_that_of_its_draws() -> None:
    pytest.importorskip("pyro")
    pytest.importorskip("xarray")
    model = FunctionalTucker(inference="nuts", max_iter=4).fit([[0.0], [1.0], [2.0]], [1.0, 3.0, 2.0])
    assert_equal(dict(model.posterior_["posterior"].sizes)["observation"], 3)
    assert_equal("lengthscale" in model.posterior_["posterior"], True)
    assert_equal(model.sample([[0.5]], 5, include_noise=True).shape, (5, 1))


def test_added_rows_are_in_the_tree() -> None:
    pytest.importorskip("xarray")
    model = FunctionalTucker(max_iter=0).fit([[0.0], [2.0]], [1.0, 3.0])
    model.partial_fit([[1.0], [-1.0]], [5.0, 6.0])
    tree = model.posterior_
    assert_close(tree["observed_data"]["y"].values, np.array([1.0, 3.0, 5.0, 6.0]))
    assert_close(tree["posterior"]["f"].coords["0"].values, np.array([0.0, 2.0, 1.0, -1.0]))
    want = model.predict([[0.0], [2.0], [1.0], [-1.0]], return_std=True)
    off = (tree["posterior"]["f"].values[0].mean(axis=0) - want[0]) / want[1]
    assert_below(np.abs(off).max(), 4.5 / np.sqrt(500), "distance of the mean of draws")


def test_a_second_posterior_keeps_the_scales_of_its_slices() -> None:
    model, X, y, _ = fitted("scaled slices")
    assert_below(model.slice_dof_, 30.0, "degrees of freedom")
    held = np.arange(100) < 10  # two slices, whole
    other = without_rows(model, X, y, held)
    (scales,) = model.slice_scales_.values()
    assert_equal(other.slice_scales_[str(model.exact_mode_)], scales[2:])
    assert_equal(other._prediction.hyper.pack(), model._prediction.hyper.pack())
    changed = without_rows(model, X, np.where(held, 1e3, y), held)
    assert_equal(changed.predict(X), other.predict(X))


# --- the residual -----------------------------------------------------------------------------------------


def test_variances_beside_a_residual_are_the_diagonal_of_the_matrix() -> None:
    model, X, _, _ = fitted("scaled slices")
    prediction = model._prediction
    points = model._read_positions(np.tile(X[:30], (2, 1)) + np.repeat([[0.3, 0.0], [0.3, 0.1]], 30, axis=0))
    mean, variance, _ = prediction.at(points)
    want, cov, _ = prediction.cov(points)
    assert_close(mean, want, factor=1e6)
    assert_close(variance, np.diag(cov), factor=1e6)


def test_no_matrix_between_the_rows_of_a_slice_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    model, _, _, _ = fitted("scaled slices")
    largest = []
    residual = type(model._prediction.problem.residual)
    covariance = residual.covariance

    def watched(*args: Any) -> np.ndarray:
        out = covariance(*args)
        largest.append(out.size)
        return out

    monkeypatch.setattr(residual, "covariance", watched)
    rng = np.random.default_rng(0)
    model.predict(np.column_stack([rng.random(6000), np.repeat([0.5, 0.6], 3000)]), return_std=True)
    assert_below(max(largest), 3000 * 5, "numbers of the largest matrix")
    model.sample(np.column_stack([rng.random(2500), np.full(2500, 0.5)]), 2)
    assert_below(max(largest), 1024**2, "numbers of the largest matrix of draws")
