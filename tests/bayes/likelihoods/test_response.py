"""Values that live between bounds, and labels that act alike."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from scipy.integrate import quad
from scipy.stats import norm

from tenfac import ConvergenceWarning, DataError, FunctionalTucker
from tenfac.bayes.likelihoods.response import KINDS, Response
from tests.bayes.toys import smooth_table, twin
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

Y = np.random.default_rng(0).gamma(2.0, 3.0, 40)
WEIGHTS = np.random.default_rng(1).integers(1, 4, 40).astype(float)
every_kind = pytest.mark.parametrize("kind", KINDS)


# --- one response -----------------------------------------------------------------------------------------


@every_kind
def test_latent_values_have_mean_zero_and_variance_one(kind: str) -> None:
    latent = Response.learn(kind, Y, WEIGHTS, 0.05).latent(Y)
    repeated = np.repeat(latent, WEIGHTS.astype(int))
    assert_below(abs(repeated.mean()), 1e-13, "mean")
    assert_close(repeated.std(), 1.0)


@every_kind
def test_observed_undoes_latent_and_log_slope_is_its_derivative(kind: str) -> None:
    response = Response.learn(kind, Y, WEIGHTS, 0.05)
    assert_close(response.observed(response.latent(Y)), Y)
    step = 1e-6
    slope = (response.latent(Y + step) - response.latent(Y - step)) / (2 * step)
    assert_relative(np.exp(response.log_slope(Y)), slope, 1e-7)


def test_bounds_lie_a_margin_beyond_the_values() -> None:
    beyond = 0.05 * (Y.max() - Y.min())
    low, high = Y.min() - beyond, Y.max() + beyond
    want = {"identity": (-np.inf, np.inf), "log": (low, np.inf), "logit": (low, high)}
    for kind in KINDS:
        assert_equal(Response.learn(kind, Y, WEIGHTS, 0.05).bounds, want[kind])


def test_equal_smallest_values_stand_for_the_interval_of_as_many_others() -> None:
    y = np.array([2.0, 2.0, 2.0, 2.5, 3.5, 4.0, 9.0, 10.0, 10.0])
    response = Response.learn("logit", y, np.ones(9), 1e-6)
    assert_close(np.array(response.bounds), np.array([2.0 - 2.0, 10.0 + 6.0]))
    wide = Response.learn("logit", y, np.ones(9), 1.0)
    assert_close(np.array(wide.bounds), np.array([2.0 - 8.0, 10.0 + 8.0]))


@every_kind
@pytest.mark.parametrize(("mean", "std"), [(0.0, 0.5), (-2.0, 0.1), (1.5, 1.0), (0.3, 0.0), (0.5, 6.0)])
def test_moments_are_the_integrals_over_the_latent_gaussian(kind: str, mean: float, std: float) -> None:
    response = Response.learn(kind, Y, WEIGHTS, 0.05)
    got = response.moments(np.array([mean]), np.array([std**2]))

    def moment(power: int, center: float) -> float:
        if std == 0:
            return (float(response.observed(np.array(mean))) - center) ** power

        def integrand(z: float) -> float:
            y = float(response.observed(np.array(mean + std * z)))
            return (y - center) ** power * norm.pdf(z)

        # the integrand of a log-normal second moment peaks at z = 2 std
        return quad(
            integrand, -12, 24, epsabs=1e-13, epsrel=1e-12, limit=400, points=[-mean / max(std, 1), 0]
        )[0]

    average = moment(1, 0.0)
    assert_relative(got[0], np.array([average]), 1e-7)
    assert_below(abs(got[1][0] - np.sqrt(moment(2, average))), 1e-6 * abs(average), "std")


# --- in the estimator -------------------------------------------------------------------------------------


def fractions(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Noisy sigmoids of two indices, and the function without noise."""
    rng = np.random.default_rng(seed)
    X = rng.uniform(0, 1, (120, 2)).round(1)
    f = 6 * (X[:, 0] - 0.5) + np.sin(4 * X[:, 1])
    return X, 1 / (1 + np.exp(-(f + 0.2 * rng.normal(size=120)))), 1 / (1 + np.exp(-f))


@cache
def fit_of_fractions(kind: str, scale: float = 1.0) -> FunctionalTucker:
    X, y, _ = fractions(1)
    return FunctionalTucker(response=kind, tol=1e-3).fit(X, scale * y)


def test_a_logit_response_fits_fractions_better_and_stays_between_its_bounds() -> None:
    X, _, f = fractions(1)
    plain, bent = fit_of_fractions("identity"), fit_of_fractions("logit")
    assert_above(bent.log_evidence_, plain.log_evidence_ + 20, "log evidence")
    error = [np.sqrt(np.mean((model.predict(X) - f) ** 2)) for model in (plain, bent)]
    assert_below(error[1], error[0], "RMSE")
    low, high = bent.bounds_
    far = bent.predict([[30.0, 0.5], [-30.0, 0.5]])
    assert low < far.min()
    assert far.max() < high


@pytest.mark.parametrize("kind", ["log", "logit"])
def test_log_evidence_is_the_dense_one_of_the_bent_values_with_its_jacobian(kind: str) -> None:
    X, y = smooth_table((4, 5), (0,), 40, seed=3)
    model = FunctionalTucker(discrete=[0], response=kind, tol=1e-2).fit(X, np.exp(y / 9))
    response, task = model._response, model._task
    assert_close(response.latent(np.exp(y / 9)), task.y, factor=1e4)
    want = twin(model).log_evidence(list(task.positions), task.y) + response.log_slope(np.exp(y / 9)).sum()
    assert_relative(model.log_evidence_, want, 1e-8)


def test_predictions_of_a_bent_response_are_the_moments_of_the_dense_posterior() -> None:
    X, y = smooth_table((4, 5), (0,), 40, seed=3)
    model = FunctionalTucker(discrete=[0], response="log", tol=1e-2).fit(X, np.exp(y / 9))
    task = model._task
    mean, cov = twin(model).predict(list(task.positions), task.y, list(task.positions))
    for noise in (np.exp(model._prediction.hyper.noise), 0.0):
        want = model._response.moments(mean, np.diag(cov) + noise)
        got = model.predict(X, return_std=True, include_noise=noise > 0)
        for one, other in zip(got, want, strict=True):
            assert_relative(one, other, 1e-5)
    assert_equal(model.predict(X), got[0])


@pytest.mark.slow
def test_noise_of_a_bent_response_is_in_the_unit_of_y() -> None:
    small, large = (fit_of_fractions("logit", scale).noise_ for scale in (1.0, 1e200))
    assert_relative(large / 1e200, small, 1e-3)
    assert_above(small, 0.03, "noise; 0.2 on the logit scale has slope 1 / 4 in the middle")
    assert_below(small, 0.06, "noise")


@pytest.mark.slow
def test_a_floor_near_the_smallest_value_is_found() -> None:
    rng = np.random.default_rng(2)
    X = rng.uniform(0, 1, (120, 1))
    y = 7 + np.exp(3 * np.sin(6 * X[:, 0]) + 0.1 * rng.normal(size=120))
    model = FunctionalTucker(response="log").fit(X, y)
    assert_below(abs(model.bounds_[0] - 7), 0.05, "distance of the floor")
    assert_above(model.log_evidence_, FunctionalTucker().fit(X, y).log_evidence_ + 100, "log evidence")


def test_counts_do_not_draw_the_floor_to_their_smallest_value() -> None:
    rng = np.random.default_rng(3)
    X = rng.integers(0, 40, (300, 1)) / 40
    rate = np.exp(-1 + 1.5 * np.sin(6 * X[:, 0]))
    y = rng.poisson(rate).astype(float)
    model = FunctionalTucker(response="log", tol=1e-3).fit(X, y)
    assert_below(model.bounds_[0], -0.49, "floor, half a count below zero at least")
    assert_below(np.sqrt(np.mean((model.predict(X) - rate) ** 2)), 0.5 * rate.std(), "RMSE of the rate")


@pytest.mark.slow
def test_a_floor_is_found_over_decades() -> None:
    rng = np.random.default_rng(4)
    X = rng.uniform(0, 1, (200, 1))
    y = np.exp(5 * np.sin(6 * X[:, 0]) + 0.1 * rng.normal(size=200))
    model = FunctionalTucker(response="log").fit(X, y)
    plain = FunctionalTucker().fit(X, np.log(y))
    assert_below(abs(model.bounds_[0]), 0.01, "distance of the floor from zero")
    assert_above(model.log_evidence_, plain.log_evidence_ - np.log(y).sum() - 5, "log evidence")


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("level", [0.0, 3.0, -1e17, 1e200, 1e-200])
def test_constant_values_have_a_sane_posterior(kind: str, level: float) -> None:
    X = np.arange(6.0)[:, None]
    model = FunctionalTucker(response=kind).fit(X, np.full(6, level))
    mean, std = model.predict([[2.5], [40.0]], return_std=True, include_noise=True)
    largest = abs(level) or 1.0
    assert_below(np.abs(mean / largest - np.sign(level)).max(), 1.0, "distance of the mean")
    assert (std > 0).all()
    assert np.isfinite(std).all()


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_a_logit_response_of_huge_and_tiny_values_is_that_of_ordinary_ones(scale: float) -> None:
    X, *_ = fractions(1)
    want, got = fit_of_fractions("logit"), fit_of_fractions("logit", scale)
    for one, other in zip(got.predict(X, return_std=True), want.predict(X, return_std=True), strict=True):
        assert_relative(one / scale, other, 1e-6)


def test_the_report_counts_the_work_of_all_margins_tried() -> None:
    model = fit_of_fractions("log")
    assert_above(model.info_.n_evals, 8, "evaluations")
    assert_above(model.info_.n_evals, model.n_iter_ - 1, "evaluations")


@pytest.mark.parametrize("setting", ["logits", None, 3, ["log"], np.array(["log", "logit"])])
def test_an_unknown_response_is_refused(setting) -> None:
    with pytest.raises(DataError) as error:
        FunctionalTucker(response=setting).fit([[0.0], [1.0]], [1.0, 2.0])
    assert_says(error, "`response` must be one of", repr(setting))


# --- labels that act alike --------------------------------------------------------------------------------


def table_of_labels(seed: int) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Rank-one table of labels with a fifth hidden, three noisy values of every other cell."""
    rng = np.random.default_rng(seed)
    values = np.outer(rng.normal(size=12), rng.normal(size=10))
    cells = np.argwhere(rng.random(values.shape) < 0.8)
    hidden = np.array([c for c in np.ndindex(values.shape) if c not in set(map(tuple, cells))])
    X = np.repeat(cells, 3, axis=0)
    y = values[tuple(X.T)] + 0.05 * rng.normal(size=len(X))
    return X.astype(float), y, hidden.astype(float), values[tuple(hidden.T)]


def test_learned_likeness_completes_a_table_of_labels_that_exchangeable_labels_cannot() -> None:
    X, y, hidden, want = table_of_labels(0)
    errors = {}
    for rank in (0, 1):
        model = FunctionalTucker(discrete=[0, 1], label_rank=rank).fit(X, y)
        errors[rank] = np.sqrt(np.mean((model.predict(hidden) - want) ** 2)) / want.std()
    assert_above(errors[0], 0.6, "relative error of exchangeable labels")
    assert_below(errors[1], 0.2, "relative error of learned likeness")


def test_label_covariances_are_the_learned_prior_and_raise_the_evidence() -> None:
    X, y, *_ = table_of_labels(1)
    plain = FunctionalTucker(discrete=[0, 1]).fit(X, y)
    alike = FunctionalTucker(discrete=[0, 1], label_rank=2).fit(X, y)
    assert_above(alike.log_evidence_, plain.log_evidence_ + 30, "log evidence")
    assert_equal(list(alike.label_covariances_), alike.mode_names_)
    hyper = alike._learned.hyper
    for n, cov in enumerate(alike.label_covariances_.values()):
        loadings = hyper.loadings[n]
        assert_equal(loadings.shape, ((12, 2), (10, 2))[n])
        want = np.exp(hyper.modes[n, 0]) + np.eye(len(cov)) + np.einsum("ir,jr->ij", loadings, loadings)
        assert_close(cov, want)
    assert_equal(plain.label_covariances_, {})


def test_loadings_are_learned_also_where_the_first_stage_ran_out_of_iterations() -> None:
    X, y, *_ = table_of_labels(0)
    with pytest.warns(ConvergenceWarning, match="max_iter=8"):
        model = FunctionalTucker(discrete=[0, 1], label_rank=2, max_iter=8).fit(X, y)
    assert_equal([part.shape for part in model._learned.hyper.loadings], [(12, 2), (10, 2)])


def test_loadings_that_do_not_raise_the_evidence_are_left_out() -> None:
    rng = np.random.default_rng(0)
    X = np.array(list(np.ndindex(8, 7)), dtype=float)
    y = rng.normal(size=len(X))
    plain = FunctionalTucker(discrete=[0, 1], tol=1e-4).fit(X, y)
    alike = FunctionalTucker(discrete=[0, 1], tol=1e-4, label_rank=2).fit(X, y)
    assert_above(alike.log_evidence_, plain.log_evidence_ - 1e-9, "log evidence")


def test_label_rank_is_cut_to_one_less_than_the_labels_and_ignores_continuous_modes() -> None:
    X, y = smooth_table((3, 6), (0,), 60, seed=2)
    model = FunctionalTucker(discrete=[0], label_rank=9, max_iter=30, tol=1e-4).fit(X, y)
    assert_equal([part.shape for part in model._learned.hyper.loadings], [(3, 2), (1, 0)])


@pytest.mark.parametrize("rank", [-1, 1.5, True, "2"])
def test_a_label_rank_that_is_no_count_is_refused(rank) -> None:
    with pytest.raises(DataError) as error:
        FunctionalTucker(label_rank=rank).fit([[0.0], [1.0]], [1.0, 2.0])
    assert_says(error, "`label_rank` must be an integer from 0 up", repr(rank))
