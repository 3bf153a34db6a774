"""Sparse Bayesian learning with one variance per unknown, against dense formulas and scikit-learn."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tenfac.bayes.sparse.observed import observe
from tenfac.bayes.sparse.sequential import Sequential
from tenfac.bayes.sparse.unstructured import column_cost, fit_unstructured
from tenfac.core.errors import ConvergenceWarning, DataError, ShapeError

from ...checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says
from .toys_masked import dense, dense_evidence, dense_posterior, nmse, problem

ROWS, COLUMNS = (4, 5, 3), (5, 6, 4)


def state_after_changes(
    complex_: bool, masked: bool
) -> tuple[Sequential, np.ndarray, np.ndarray, np.ndarray]:
    """A state that columns came to, changed in and left; dense matrix, measurements and variances."""
    factors, y, _ = problem(0, ROWS, COLUMNS, snapshots=2, complex_=complex_)
    mask = np.random.default_rng(1).random(ROWS) < 0.7 if masked else np.ones(ROWS, dtype=bool)
    data = observe(factors, y, mask)
    state = Sequential(data, 0.1)
    gammas = np.zeros(math.prod(COLUMNS))
    for j, gamma in [(3, 1.0), (50, 0.5), (7, 2.0), (50, 3.0), (3, 0.0), (110, 0.2), (7, 0.1), (8, 0.0)]:
        state.set(j, gamma)
        gammas[j] = gamma
    return state, dense(factors, mask), y[mask] / data.scale, gammas


@pytest.mark.parametrize(("complex_", "masked"), [(False, False), (True, True)])
def test_statistics_and_posterior_after_changes_equal_the_dense_formulas(
    complex_: bool, masked: bool
) -> None:
    state, matrix, y, gammas = state_after_changes(complex_, masked)
    inverse = np.linalg.inv(0.1 * np.eye(len(matrix)) + (matrix * gammas) @ matrix.conj().T)
    want_s = np.sum(matrix.conj() * (inverse @ matrix), axis=0).real
    mean, covariance = dense_posterior(matrix, y, gammas, 0.1)
    for _ in range(2):
        assert_close(state.s, want_s, 1000)
        assert_close(state.q, matrix.conj().T @ inverse @ y, 1000)
        assert_close(state.mean, mean[state.active], 1000)
        assert_close(state.covariance, covariance[np.ix_(state.active, state.active)], 1000)
        state.refresh()
    want = dense_evidence(
        matrix, y * state.data.scale, gammas * state.data.scale**2, 0.1 * state.data.scale**2
    )
    assert_close(state.evidence, want, 1000)


def test_the_gain_of_every_change_is_what_the_evidence_then_gains() -> None:
    state, matrix, y, gammas = state_after_changes(True, True)
    gains, best = state.gains(1.5)
    before = dense_evidence(matrix, y, gammas, 0.1)
    for j in (3, 7, 50, 110, int(np.argmax(gains)), 20):
        changed = gammas.copy()
        changed[j] = best[j]
        price = 1.5 * (int(best[j] > 0) - int(gammas[j] > 0))
        assert_close(gains[j], dense_evidence(matrix, y, changed, 0.1) - before - price, 1e4, scale=10.0)
    assert_above(gains.max(), 1.0, "some change gains")


@pytest.mark.parametrize("complex_", [False, True])
def test_a_solution_has_the_dense_posterior_and_evidence_and_is_a_maximum(complex_: bool) -> None:
    factors, y, _ = problem(2, ROWS, COLUMNS, snapshots=3, complex_=complex_)
    mask = np.random.default_rng(3).random(ROWS) < 0.8
    found = fit_unstructured(
        factors, np.where(mask[..., None], y, np.nan), mask=mask, prune_alpha=None, tol=1e-12
    )
    matrix, flat = dense(factors, mask), y[mask]
    gammas = np.zeros(math.prod(COLUMNS))
    places = np.ravel_multi_index(found.indices.T, COLUMNS)
    gammas[places] = found.gammas
    mean, covariance = dense_posterior(matrix, flat, gammas, found.noise**2)
    assert_close(found.mean, mean[places], 1e5)
    assert_close(found.covariance, covariance[np.ix_(places, places)], 1e5)
    assert_close(found.evidence, dense_evidence(matrix, flat, gammas, found.noise**2), 1e4)
    for change in (gammas * 1.01, gammas / 1.01, gammas + 1e-4 * gammas.max()):
        assert_below(dense_evidence(matrix, flat, change, found.noise**2), found.evidence, "evidence nearby")
    for noise in (found.noise**2 * 1.01, found.noise**2 / 1.01):
        assert_below(dense_evidence(matrix, flat, gammas, noise), found.evidence, "evidence nearby")


@pytest.mark.parametrize("alpha", [None, 0.05])
def test_evidence_never_decreases(alpha: float | None) -> None:
    factors, y, _ = problem(4, (6, 8), (12, 15), 8, noise=0.05)
    found = fit_unstructured(factors, y, prune_alpha=alpha)
    assert_above(np.diff(found.trace).min(), 0.0, "gain of a round")
    cost = column_cost(180, alpha)
    assert_close(found.trace[-1], found.evidence - cost * len(found.gammas))
    assert_close(max(found.starts), found.trace[-1])


def test_a_noise_step_that_lowers_the_evidence_is_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Sequential, "noise_steps", lambda self: (9 * self.noise, self.noise / 9))
    factors, y, _ = problem(4, (6, 8), (12, 15), 8, noise=0.05)
    found = fit_unstructured(factors, y, prune_alpha=None)
    assert_above(np.diff(found.trace).min(), 0.0, "gain of a round")


def test_random_positions_are_found_where_a_box_cannot_hold_them() -> None:
    factors, y, x = problem(1, (8, 12, 15), (15, 15, 15), 50)
    found = fit_unstructured(factors, y)
    assert_below(nmse(found, x, (15, 15, 15)), 0.02, "NMSE")
    assert_below(len(found.gammas), 55, "columns")
    assert_relative(found.noise**2, 0.01 * np.mean(y**2) / 1.01, 0.15)


def test_snapshots_share_the_support() -> None:
    factors, y, x = problem(5, (6, 7), (12, 13), 20, snapshots=8)
    found = fit_unstructured(factors, y)
    assert_equal(np.ravel_multi_index(found.indices.T, (12, 13)), np.flatnonzero(x[:, 0]))


def test_measurements_times_a_number_change_nothing_else() -> None:
    factors, y, _ = problem(6, (6, 8), (12, 15))
    found = fit_unstructured(factors, y)
    for scale in (1e6, 1e-6):
        scaled = fit_unstructured(factors, y * scale)
        assert_equal(scaled.indices, found.indices)
        assert_close(scaled.mean / scale, found.mean, 1e5)
        assert_close(scaled.noise / scale, found.noise, 1e5)
        assert_close(scaled.evidence, found.evidence - 48 * np.log(scale), 1e4)


def test_a_mask_is_leaving_out_rows() -> None:
    factors, y, _ = problem(7, (40,), (60,))
    mask = np.random.default_rng(8).random(40) < 0.8
    masked = fit_unstructured(factors, y, mask=mask, noise=1e-1)
    cut = fit_unstructured([factors[0][mask]], y[mask], noise=1e-1)
    assert_equal(masked.indices, cut.indices)
    assert_close(masked.mean, cut.mean, 1e4)
    assert_close(masked.evidence, cut.evidence, 1e4)


def test_columns_of_zeros_are_not_used_and_one_of_two_equal_columns_is() -> None:
    factors, y, _ = problem(9, (30,), (20,), 3)
    twice = np.hstack([factors[0], np.zeros((30, 2)), factors[0]])
    found = fit_unstructured([twice], y)
    alone = fit_unstructured(factors, y)
    assert_equal(np.sort(found.indices % 22, axis=0), alone.indices)


def test_noiseless_measurements_are_recovered() -> None:
    factors, y, x = problem(10, (8, 9), (12, 12), 4, noise=0.0)
    assert_below(nmse(fit_unstructured(factors, y), x, (12, 12)), 1e-12, "NMSE")


def test_measurements_that_are_all_zero_give_an_empty_model() -> None:
    found = fit_unstructured([np.eye(3), np.eye(2)], np.zeros((3, 2, 1)))
    assert_equal((found.indices.shape, found.noise, found.evidence), ((0, 2), 0.0, math.inf))
    given = fit_unstructured([np.eye(3)], np.zeros((3, 1)), noise=2.0**0.5)
    assert_close(given.evidence, -1.5 * np.log(4 * np.pi))


def test_results_come_back_in_the_library_and_precision_of_the_measurements(make: Any) -> None:
    factors, y, _ = problem(11, (6, 8), (10, 9), 3)
    found = fit_unstructured([make.asarray(f) for f in factors], make.asarray(y))
    want = fit_unstructured(factors, y)
    assert_equal(found.indices, make.index(want.indices))
    assert_close(found.mean, want.mean, 1000, like=make.asarray(y))
    assert_close(found.gammas, want.gammas, 1000, like=make.asarray(y))


@pytest.mark.slow
def test_more_exact_than_ard_regression_of_scikit_learn() -> None:
    from sklearn.linear_model import ARDRegression

    factors, y, x = problem(12, (8, 9, 7), (10, 10, 10), 20)
    ours = nmse(fit_unstructured(factors, y), x, (10, 10, 10))
    peer = ARDRegression(fit_intercept=False, max_iter=30).fit(dense(factors), y.reshape(-1)).coef_
    theirs = float(np.sum((peer - x[:, 0]) ** 2) / np.sum(x**2))
    assert_below(ours, 0.5 * theirs, "NMSE against half that of scikit-learn")


def test_stopping_early_warns() -> None:
    factors, y, _ = problem(13, (6, 8), (12, 15), 8)
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        found = fit_unstructured(factors, y, max_iter=1)
    assert not found.converged


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"noise": -1.0}, DataError, ["noise", "-1.0", "positive"]),
        ({"prune_alpha": 2.0}, DataError, ["prune_alpha", "2.0"]),
        ({"n_starts": 3}, DataError, ["n_starts", "3"]),
        ({"mask": np.zeros((3, 2), dtype=bool)}, DataError, ["False everywhere"]),
        ({"mask": np.ones((3, 3), dtype=bool)}, ShapeError, ["mask", "(3, 2)", "(3, 3)"]),
        ({"max_bytes": 10}, DataError, ["bytes", "Raise max_bytes"]),
        ({"Y": np.full((3, 2, 1), np.nan)}, DataError, ["finite", "mask=np.isfinite"]),
        ({"Y": np.ones((3, 2))}, ShapeError, ["Y", "(3, 2)", "Y[..., None]"]),
        ({"factors": [np.ones(3), np.eye(2)]}, ShapeError, ["factors[0]"]),
        ({"factors": [np.full((3, 3), np.inf), np.eye(2)]}, DataError, ["factors[0]", "finite"]),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    given: dict[str, Any] = {"factors": [np.eye(3), np.eye(2)], "Y": np.ones((3, 2, 1))} | change
    with pytest.raises(error) as caught:
        fit_unstructured(given.pop("factors"), given.pop("Y"), **given)
    assert_says(caught, *words)
