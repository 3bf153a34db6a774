"""Kronecker sparse recovery when measurements are missing, against dense formulas."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import pytest

from tenfac.bayes.sparse import masked_fit
from tenfac.bayes.sparse.masked import Masked
from tenfac.bayes.sparse.masked_fit import fit_masked
from tenfac.bayes.sparse.observed import observe
from tenfac.bayes.sparse.solution import Solution
from tenfac.bayes.sparse.support_check import support_looks_kronecker
from tenfac.core.errors import ConvergenceWarning, DataError, ShapeError

from ...checks import assert_above, assert_below, assert_close, assert_equal, assert_says, quietly
from .toys_masked import dense, dense_evidence, dense_posterior, draw, problem

ROWS, COLUMNS = (4, 3, 3), (5, 2, 4)


def supports(found: Solution) -> list[list[int]]:
    return [np.flatnonzero(np.asarray(gamma)).tolist() for gamma in found.gammas]


def truth(x: np.ndarray, columns: tuple[int, ...]) -> list[list[int]]:
    return [np.unique(index).tolist() for index in np.nonzero(x[:, 0].reshape(columns))]


@pytest.mark.parametrize("complex_", [False, True])
@pytest.mark.parametrize(
    ("way", "share"), [("missing", 0.8), ("measured", 0.4), ("columns", 0.6), ("missing", 1.0)]
)
def test_evidence_statistics_and_mean_equal_the_dense_formulas(
    monkeypatch: pytest.MonkeyPatch, complex_: bool, way: str, share: float
) -> None:
    monkeypatch.setattr(Masked, "_cheapest", lambda _: way)
    rng = np.random.default_rng(1)
    factors = [draw(rng, shape, complex_) for shape in zip(ROWS, COLUMNS, strict=True)]
    y, mask = draw(rng, (*ROWS, 2), complex_), rng.random(ROWS) < share
    gammas = [rng.random(n) for n in COLUMNS]
    gammas[0][2] = 0.0
    data = observe(factors, y, mask)
    state = Masked(data, gammas, 0.3)
    matrix, flat, full = dense(factors, mask), y[mask] / data.scale, reduce(np.kron, gammas)
    inverse = np.linalg.inv(0.3 * np.eye(len(matrix)) + (matrix * full) @ matrix.conj().T)
    want = dense_evidence(matrix, y[mask], full * data.scale**2, 0.3 * data.scale**2)
    assert_close(state.evidence, want, 1000)
    a = full * np.mean(abs(matrix.conj().T @ inverse @ flat) ** 2, axis=1)
    b = full * np.sum(matrix.conj() * (inverse @ matrix), axis=0).real
    pairs, (misfit, trace) = state.statistics()
    for i, pair in enumerate(pairs):
        rest = tuple(k for k in range(3) if k != i)
        assert_close(pair[0], a.reshape(COLUMNS).sum(axis=rest), 1000)
        assert_close(pair[1], b.reshape(COLUMNS).sum(axis=rest), 1000)
    assert_close(misfit, np.mean(np.sum(abs(inverse @ flat) ** 2, axis=0)), 1000)
    assert_close(trace, np.trace(inverse).real, 1000)
    used = [np.flatnonzero(gamma) for gamma in gammas]
    mean = dense_posterior(matrix, flat, full, 0.3)[0].reshape(*COLUMNS, 2)[np.ix_(*used)]
    assert_close(state.posterior_mean(used), np.moveaxis(mean, -1, 0), 1000)


def test_statistics_are_the_derivative_of_the_evidence() -> None:
    factors, y, _ = problem(2, ROWS, COLUMNS, snapshots=2, complex_=True)
    data = observe(factors, y, np.random.default_rng(3).random(ROWS) < 0.7)
    gammas, step = [np.linspace(0.5, 1.5, n) for n in COLUMNS], 1e-5
    (a, b), noise = Masked(data, gammas, 0.2).statistics()[0][1], Masked(data, gammas, 0.2).statistics()[1]
    for j in range(2):
        sides = [np.array(gammas[1]) for _ in range(2)]
        sides[0][j] *= math.exp(step)
        sides[1][j] *= math.exp(-step)
        up, down = (Masked(data, [gammas[0], side, gammas[2]], 0.2).evidence for side in sides)
        assert_below(abs((up - down) / (2 * step) - 2 * (a[j] - b[j])), 1e-6, "error of the derivative")
    up, down = (Masked(data, gammas, 0.2 + s).evidence for s in (step, -step))
    assert_below(abs((up - down) / (2 * step) - 2 * (noise[0] - noise[1])), 1e-5, "error of the derivative")


@pytest.mark.parametrize(("share", "complex_"), [(0.85, False), (0.5, True)])
def test_the_support_is_found_from_an_incomplete_grid(share: float, complex_: bool) -> None:
    factors, y, x = problem(4, (6, 7, 5), (9, 8, 7), box=(2, 3, 2), complex_=complex_)
    mask = np.random.default_rng(5).random((6, 7, 5)) < share
    found = fit_masked(factors, np.where(mask[..., None], y, np.nan), mask)
    assert_equal(supports(found), truth(x, (9, 8, 7)))
    full = reduce(np.kron, [np.asarray(gamma) for gamma in found.gammas])
    assert_close(found.evidence, dense_evidence(dense(factors, mask), y[mask], full, found.noise**2), 1e4)
    assert_equal(found.trace[-1], found.evidence)  # the sweeps go on after columns were pruned
    assert_below(abs(math.log(found.noise**2 / (0.01 * np.mean(abs(y) ** 2)))), 0.3, "log error of the noise")


def test_evidence_never_decreases_without_pruning() -> None:
    factors, y, _ = problem(6, (6, 7), (12, 10), box=(3, 2), noise=0.1)
    mask = np.random.default_rng(7).random((6, 7)) < 0.7
    found = fit_masked(factors, y, mask, prune_alpha=None)
    assert found.converged
    assert_above(np.diff(found.trace).min(), 0.0, "gain of a sweep")


def test_steps_that_lower_the_evidence_are_not_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    ratio = masked_fit._ratio
    monkeypatch.setattr(masked_fit, "_ratio", lambda a, b: ratio(a, b) ** 4)
    factors, y, _ = problem(6, (6, 7), (12, 10), box=(3, 2), noise=0.1)
    mask = np.random.default_rng(7).random((6, 7)) < 0.7
    found = quietly(fit_masked, factors, y, mask, prune_alpha=None, max_iter=30)
    assert_above(np.diff(found.trace).min(), 0.0, "gain of a sweep")


def test_whole_rows_missing_are_rows_cut_from_the_factor() -> None:
    factors, y, _ = problem(8, (8, 9), (12, 10), box=(3, 2))
    mask = np.ones((8, 9), dtype=bool)
    mask[[2, 5]] = False
    masked = fit_masked(factors, y, mask)
    rows = [0, 1, 3, 4, 6, 7]
    cut = fit_masked([factors[0][rows], factors[1]], y[rows], np.ones((6, 9), dtype=bool))
    assert_equal(masked.gammas[0], cut.gammas[0])
    assert_equal((masked.evidence, masked.noise, masked.trace), (cut.evidence, cut.noise, cut.trace))


def test_one_mode_with_missing_measurements_is_fewer_measurements() -> None:
    factors, y, _ = problem(9, (40,), (50,), 4)
    mask = np.random.default_rng(10).random(40) < 0.7
    masked, cut = (
        fit_masked(factors, y, mask),
        fit_masked([factors[0][mask]], y[mask], np.ones(mask.sum(), bool)),
    )
    assert_close(masked.gammas[0], cut.gammas[0])


def test_measurements_times_a_number_change_nothing_else() -> None:
    factors, y, _ = problem(11, (6, 7), (9, 10), box=(2, 2))
    mask = np.random.default_rng(12).random((6, 7)) < 0.8
    found = fit_masked(factors, y, mask)
    for scale in (1e6,):
        scaled = fit_masked(factors, y * scale, mask)
        assert_close(scaled.gammas[1] / scale**2, found.gammas[1], 1e6)
        assert_close(scaled.evidence, found.evidence - mask.sum() * np.log(scale), 1e4)


def test_results_come_back_in_the_library_and_precision_of_the_measurements(make: Any) -> None:
    factors, y, x = problem(13, (6, 7), (9, 8), box=(2, 2), noise=1e-3)
    mask = np.random.default_rng(14).random((6, 7)) < 0.8
    like = make.asarray(y)
    found = fit_masked([make.asarray(f) for f in factors], like, mask)
    want = fit_masked(factors, y, mask)
    assert_equal(supports(found), truth(x, (9, 8)))
    for got, gamma in zip(found.gammas, want.gammas, strict=True):
        assert_close(got, gamma, 1e4, like=like)


def test_zero_measurements_give_an_empty_model() -> None:
    found = fit_masked([np.eye(3), np.eye(2)], np.zeros((3, 2, 1)), np.ones((3, 2), dtype=bool))
    assert_equal((supports(found), found.noise, found.evidence), ([[], []], 0.0, math.inf))


def test_stopping_early_warns() -> None:
    factors, y, _ = problem(15, (6, 7), (9, 10), box=(2, 2))
    with pytest.warns(ConvergenceWarning, match="Raise max_iter"):
        found = fit_masked(factors, y, np.ones((6, 7), dtype=bool), max_iter=2)
    assert_equal((found.converged, found.n_iter), (False, 2))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"noise": 0.0}, DataError, ["noise", "0.0", "positive"]),
        ({"mask": np.ones((2, 2), dtype=bool)}, ShapeError, ["mask", "(3, 2)", "(2, 2)"]),
        ({"max_bytes": 1}, DataError, ["bytes", "whole rows"]),
        ({"gammas": [np.ones(2), np.ones(2)]}, ShapeError, ["gammas", "(3, 2)"]),
        ({"gammas": [-np.ones(3), np.ones(2)]}, ShapeError, ["nonnegative"]),
    ],
)
def test_bad_input_is_refused(change: dict[str, Any], error: type[Exception], words: list[str]) -> None:
    mask = np.ones((3, 2), dtype=bool)
    mask[0, 1] = False
    given: dict[str, Any] = {
        "factors": [np.eye(3), np.eye(2)],
        "Y": np.ones((3, 2, 1)),
        "mask": mask,
    } | change
    with pytest.raises(error) as caught:
        fit_masked(given.pop("factors"), given.pop("Y"), given.pop("mask"), **given)
    assert_says(caught, *words)


@pytest.mark.parametrize("masked", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_box_looks_kronecker_and_random_positions_do_not(masked: bool) -> None:
    rows, columns = (8, 9, 7), (10, 10, 10)
    mask = np.random.default_rng(16).random(rows) < (0.9 if masked else 2.0)
    for box in ((2, 3, 2), None):
        factors, y, _ = problem(17, rows, columns, 12, box=box)
        found = fit_masked(factors, y, mask)
        both = support_looks_kronecker(factors, y, found, mask=mask)
        assert_equal(both.looks_kronecker, box is not None)
        assert_above(abs(both.log_odds), 10.0, "log odds")
        assert_equal((both.kronecker, both.unstructured), (found.evidence, both.solution.evidence))
