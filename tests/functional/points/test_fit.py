"""Gauss-Newton steps at scattered points: against dense derivatives and dense least squares."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from tenfac.functional.points import fit
from tenfac.functional.points.fit import PointsProblem, State, _cholesky, _Tangent, _unit_diagonal
from tenfac.functional.points.search import Model, Search
from tenfac.functional.points.start import PolynomialFit, Prior
from tests.checks import assert_above, assert_below, assert_close, assert_equal

RNG = np.random.default_rng(0)
N, SIZES = 60, (4, 5)
BASES = [np.polynomial.chebyshev.chebvander(RNG.uniform(-1, 1, N), k - 1) for k in SIZES]
SCALES = [1.7 ** -np.arange(k) for k in SIZES]
WEIGHTS = RNG.uniform(0.5, 1.5, N)
WEIGHTS /= WEIGHTS.mean()
DENSE = np.einsum("ni,nj->nij", *BASES).reshape(N, -1) * np.outer(*SCALES).ravel()
Y = DENSE @ RNG.standard_normal(20) + 0.1 * RNG.standard_normal(N)


def problem() -> PointsProblem:
    return PointsProblem(BASES, SCALES, Y, WEIGHTS)


def state(rank: tuple[int, int]) -> State:
    factors = tuple(np.linalg.qr(RNG.standard_normal((k, r)))[0] for k, r in zip(SIZES, rank, strict=True))
    return State(RNG.standard_normal(rank), factors)


def ridge_regression(ridge: float) -> tuple[np.ndarray, np.ndarray]:
    """Coefficients and hat matrix (of the weighted rows) with a free constant."""
    rows = DENSE * np.sqrt(WEIGHTS)[:, None]
    penalty = ridge * np.eye(20)
    penalty[0, 0] = 0
    inverse = np.linalg.inv(rows.T @ rows + penalty)
    return inverse @ rows.T @ (np.sqrt(WEIGHTS) * Y), rows @ inverse @ rows.T


def test_the_tangent_is_the_derivative_of_the_step() -> None:
    here = state((2, 2))
    tangent, p = _Tangent(here), problem()
    step = RNG.standard_normal(tangent.size)
    h = 1e-6
    ends = [p.values(p.truncated(*tangent.moved(s * h * step), (2, 2))) for s in (1, -1)]
    slope = (ends[0] - ends[1]) / (2 * h)
    assert_below(np.abs(tangent.jacobian(p.bases) @ step - slope).max(), 1e-7, "difference")


def test_at_full_rank_it_is_ridge_regression() -> None:
    p = problem()
    full, steps, at_rest = p.solve(p.adopted(np.eye(4, 5), [np.eye(4), np.eye(5)], (4, 5)), 0.3, 10, 1e-5)
    assert_equal(at_rest, True)
    assert_close(p.values(full), DENSE @ ridge_regression(0.3)[0], 1e4)
    assert_below(steps, 3, "steps")


def test_leaving_rows_out_at_full_rank_is_exact() -> None:
    p = problem()
    full, _, _ = p.solve(p.adopted(np.eye(4, 5), [np.eye(4), np.eye(5)], (4, 5)), 0.3, 10, 1e-5)
    score, trace = p.leave_one_out(full, 0.3)
    hat = ridge_regression(0.3)[1]
    roots = np.sqrt(WEIGHTS)
    residual = (roots * Y - hat @ (roots * Y)) / (1 - np.diag(hat))
    assert_close(score, float(np.mean(residual**2)), 1e5)
    assert_close(trace, float(np.trace(hat)), 1e5)


def test_a_step_never_raises_the_objective_and_the_end_is_stationary() -> None:
    p, here = problem(), state((2, 2))
    before = p._objective(here, 0.1)
    for _ in range(5):
        here, after = p._step(here, 0.1, before)
        assert_below(after, before, "objective")
        before = after
    here, _, _ = p.solve(here, 0.1, 200, 1e-14)
    _, right, pull = p._normal(_Tangent(here), 0.1)
    assert_below(np.abs(right - pull).max(), 1e-4, "gradient")


def test_truncation_is_the_one_of_the_function_and_keeps_factors_orthonormal() -> None:
    p, here = problem(), state((3, 3))
    small = p.truncated(here.core, here.factors, (1, 1))
    plain = [f * s[:, None] for f, s in zip(here.factors, SCALES, strict=True)]
    u, s, vt = np.linalg.svd(plain[0] @ here.core @ plain[1].T)
    core, factors = p.coefficients(small)
    assert_close(factors[0] @ core @ factors[1].T, s[0] * np.outer(u[:, 0], vt[0]))
    assert_close(small.factors[0].T @ small.factors[0], np.eye(1))


def test_a_higher_rank_is_the_same_function() -> None:
    p, here = problem(), state((2, 2))
    core, factors = p.coefficients(here)
    grown = p.adopted(core, factors, (3, 4))
    assert_equal(grown.rank, (3, 4))
    assert_close(p.values(grown), p.values(here), 1e4)
    assert_close(grown.factors[1].T @ grown.factors[1], np.eye(4))


def test_the_polynomial_fit_has_fewer_terms_than_points() -> None:
    for count, terms in ((2, 2), (3, 2), (4, 3), (10, 8)):  # with the constant, which is fitted apart
        bases = [np.linspace(-1, 1, count)[:, None] ** np.arange(9)] * 2
        assert_equal(len(PolynomialFit(bases, np.ones(count), Prior((1.7, 1.7))).index), terms - 1)


def test_the_polynomial_fit_is_ridge_regression() -> None:
    prior = Prior((1.7, 1.7))
    fit = PolynomialFit(BASES, WEIGHTS, prior)
    assert_equal(len(fit.index), 19)
    got = fit.coefficients(Y, prior, 0.3)
    assert_close(got, (ridge_regression(0.3)[0] * np.outer(*SCALES).ravel()).reshape(4, 5), 1e5)


def test_the_path_of_ranks_ends_at_that_of_the_function() -> None:
    rng, prior, bases = np.random.default_rng(1), Prior((1.7, 1.7)), []
    for x in rng.uniform(-1, 1, (2, 120)):
        bases.append(np.polynomial.chebyshev.chebvander(x, 4))
    for rank in (1, 2, 3):
        tensor = rng.standard_normal((5, rank)) @ rng.standard_normal((rank, 5))
        y = np.einsum("ni,ij,nj->n", bases[0], tensor, bases[1])
        search = Search(bases, y, np.ones(120), PolynomialFit(bases, np.ones(120), prior))
        found = search._grown(Model((1, 1), (5, 5), prior, 1e-12), tensor, [np.eye(5)] * 2)
        assert_equal(found.model.rank, (rank, rank))
        assert_below(found.score / np.mean(y**2), 1e-15, "mean square left out")


def test_a_matrix_that_is_not_definite_gets_as_much_jitter_as_it_needs() -> None:
    matrix = np.array([[1.0, 1 + 1e-11], [1 + 1e-11, 1.0]])
    lower = _cholesky(matrix)
    assert_equal(lower[0, 1], 0.0)
    assert_below(np.abs(lower @ lower.T - matrix).max(), 2e-10, "jitter")


def test_fewer_rows_than_numbers_shorten_the_model_and_labels_are_kept() -> None:
    bases = [np.polynomial.chebyshev.chebvander(RNG.uniform(-1, 1, 20), 9) for _ in range(2)]
    prior = Prior((2.0, 0.0))
    search = Search(bases, RNG.standard_normal(20), np.ones(20), PolynomialFit(bases, np.ones(20), prior))
    assert_equal(search._shortened(Model((1, 1), (9, 5), prior, 1.0)).sizes, (9, 5))  # 13 numbers of 14
    assert_equal(search._shortened(Model((1, 1), (9, 7), prior, 1.0)).sizes, (8, 7))
    assert_equal(search._shortened(Model((2, 2), (9, 9), prior, 1.0)).sizes, (2, 9))  # 18 still: no shorter
    kept = Search(bases, search.y, search.weights, search.first, ["sizes"])
    assert_equal(kept._shortened(Model((1, 1), (9, 7), prior, 1.0)).sizes, (9, 7))


def test_a_model_fits_with_seven_tenths_of_the_rows_and_ranks_that_are_not_idle() -> None:
    bases = [np.ones((20, 30))] * 3
    search = Search(bases[:2], np.ones(20), np.ones(20), None)
    for rank, sizes, fits in (
        ((1, 1), (7, 8), True),
        ((1, 1), (8, 8), False),
        ((2, 2), (4, 6), False),
        ((2, 2), (4, 4), True),
        ((2, 2), (4, 1), False),
        ((0, 0), (4, 4), False),
        ((1, 2), (4, 4), False),
    ):
        assert_equal(search.fits(Model(rank, sizes, Prior((2.0, 2.0)), 0.0)), fits)
    many = Search(bases[:2], np.ones(5000), np.ones(5000), None)
    for size, fits in ((600, True), (602, False)):
        assert_equal(many.fits(Model((1, 1), (size, 601), Prior((2.0, 2.0)), 0.0)), fits)


def test_the_coefficients_of_many_variables_stay_in_a_box_of_bounded_size(monkeypatch) -> None:
    monkeypatch.setattr("tenfac.functional.points.start._BOX", 8)
    bases = [np.polynomial.chebyshev.chebvander(RNG.uniform(-1, 1, 40), 5) for _ in range(3)]
    fit = PolynomialFit(bases, np.ones(40), Prior((2.0,) * 3))
    assert_equal(fit.shape, (2, 2, 2))
    assert_equal(len(fit.index), 3)  # 32, 16, 8, 4 terms with the constant


def test_decays_stay_in_their_range_and_labels_have_none() -> None:
    prior = Prior((2.0, 0.0, 1.1))
    assert_equal(prior.changed(2.0).decays, (2.5, 0.0, 2.2))
    assert_equal(prior.changed(0.5).decays, (1.02, 0.0, 1.02))
    assert_equal(prior.changed(0.9, 2).decays, (2.0, 0.0, 1.1 * 0.9 if 1.1 * 0.9 > 1.02 else 1.02))
    assert_equal(prior.changed(3.0, 1).decays, (2.0, 0.0, 1.1))
    assert_equal(Prior((0.0,)).scales((1,))[0], np.array([1.0]))


def test_basis_functions_of_very_different_size_are_fitted_alike() -> None:
    x, scale = np.linspace(-1, 1, 60), 2.5 ** -np.arange(20.0)
    basis = np.polynomial.chebyshev.chebvander(x, 19)
    y = basis @ (scale * RNG.choice([-1, 1], 20))
    p = PointsProblem([basis], [scale], y, np.ones(60))
    found, _, _ = p.solve(State(np.ones(1), (np.eye(20, 1),)), 0.0, 30, 1e-5)
    assert_below(np.abs(p.values(found) - y).max(), 1e-9, "error")


# --- against tensors of all coefficients ------------------------------------------------------------------

ROOTS = np.sqrt(WEIGHTS)


def dense(here: State) -> np.ndarray:
    """All coefficients, in units of their prior, of two modes."""
    return here.factors[0] @ here.core @ here.factors[1].T


def test_the_objective_is_that_of_the_dense_problem_with_a_free_constant() -> None:
    p, here = problem(), state((2, 3))
    full = dense(here)
    want = np.sum(WEIGHTS * (Y - DENSE @ full.ravel()) ** 2) + 50.0 * (np.sum(full**2) - full[0, 0] ** 2)
    assert_close(p._objective(here, 50.0), float(want), 1e3)


def test_the_normal_equations_are_those_of_the_dense_problem_in_the_directions_of_the_tangent() -> None:
    p, here, ridge = problem(), state((2, 3)), 7.0
    tangent = _Tangent(here)
    entries = np.indices(SIZES).reshape(2, -1)
    moves = tangent.jacobian(
        [np.eye(k)[i] for k, i in zip(SIZES, entries, strict=True)]
    )  # of all coefficients
    free = np.ones(20)
    free[0] = 0
    rows = DENSE * ROOTS[:, None]
    gram, right, pull = p._normal(tangent, ridge)
    assert_close(gram, moves.T @ (rows.T @ rows + ridge * np.diag(free)) @ moves, 1e4)
    full = dense(here).ravel()
    assert_close(right, moves.T @ (rows.T @ (ROOTS * (Y - DENSE @ full))), 1e4)
    assert_close(pull, ridge * moves.T @ (free * full), 1e4)


def test_a_tangent_has_as_many_directions_as_tensors_of_its_rank() -> None:
    sizes, rank = (5, 4, 6), (2, 2, 3)
    factors = tuple(np.linalg.qr(RNG.standard_normal((k, r)))[0] for k, r in zip(sizes, rank, strict=True))
    tangent = _Tangent(State(RNG.standard_normal(rank), factors))
    assert_equal(tangent.size, 12 + 3 * 2 + 2 * 2 + 3 * 3)
    entries = np.indices(sizes).reshape(3, -1)
    moves = tangent.jacobian([np.eye(k)[i] for k, i in zip(sizes, entries, strict=True)])
    assert_equal(int(np.linalg.matrix_rank(moves)), tangent.size)


def test_steps_end_when_the_objective_falls_by_less_than_the_tolerance_or_at_the_limit() -> None:
    p = PointsProblem(BASES, SCALES, 1e-3 * Y, WEIGHTS)
    here = start = state((1, 1))
    objective, falls = p._objective(here, 0.1), []
    for _ in range(12):
        here, after = p._step(here, 0.1, objective)
        falls.append((objective - after) / after)
        objective = after
    for tol in (0.5, 1e-2, 1e-4):
        steps = 1 + int(np.flatnonzero(np.array(falls) <= tol)[0])
        _, count, at_rest = p.solve(start, 0.1, 50, tol)
        assert_equal((count, at_rest), (steps, True))
        assert_above(steps, 2, "steps")
        assert_equal(p.solve(start, 0.1, steps, tol)[1:], (steps, True))
        _, count, at_rest = p.solve(start, 0.1, steps - 1, tol)
        assert_equal((count, at_rest), (steps - 1, False))


def test_values_without_noise_are_met_to_rounding_however_loose_the_tolerance_is_at_rest() -> None:
    full = dense(state((2, 2)))
    p = PointsProblem(BASES, SCALES, DENSE @ full.ravel(), WEIGHTS)
    found, steps, at_rest = p.solve(p.adopted(np.eye(4, 5), [np.eye(4), np.eye(5)], (4, 5)), 0.0, 50, 0.0)
    assert_equal(at_rest, True)
    assert_below(steps, 6, "steps")
    assert_below(np.abs(p.values(found) - p.y).max(), 1e-13, "error")


def test_a_step_that_overshoots_is_damped_until_the_objective_falls() -> None:
    p = problem()
    for seed in range(20):
        rng = np.random.default_rng(seed)
        factors = tuple(np.linalg.qr(rng.standard_normal((k, 2)))[0] for k in SIZES)
        here = State(0.01 * rng.standard_normal((2, 2)), factors)
        before = p._objective(here, 1e-3)
        _, after = p._step(here, 1e-3, before)
        assert_below(after / before, 0.999, "objective after a step")


def test_columns_are_made_as_long_as_one_another_and_those_of_zeros_stay() -> None:
    columns = RNG.standard_normal((9, 3)) * [1e-6, 1.0, 0.0]
    matrix, scale = _unit_diagonal(columns.T @ columns)
    assert_close(np.diag(matrix), np.array([1.0, 1.0, 0.0]))
    assert_close((scale * columns).T @ (scale * columns), matrix)


def test_steps_that_help_in_no_way_are_damped_more_and_more_and_then_not_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p, here, tried = problem(), state((2, 2)), []
    monkeypatch.setattr(fit, "_cholesky", lambda matrix: tried.append(matrix) or _cholesky(matrix))
    p._objective = lambda *_: np.inf
    new, objective = p._step(here, 0.1, 3.0)
    assert_equal((new is here, objective), (True, 3.0))
    assert_close(np.diag(tried[0]), np.ones(len(tried[0])))
    for less, more in itertools.pairwise(tried):
        added = np.diag(more - less)
        assert_close(more - less, added.min() * np.eye(len(added)), 1e4, scale=1.0)
        assert_above(added.min(), 1e-4, "damping")


def test_leaving_rows_out_is_exact_whatever_the_size_of_basis_functions() -> None:
    x, scale = np.cos(np.linspace(0, np.pi, 60)), 2.5 ** -np.arange(10.0)
    basis = np.polynomial.chebyshev.chebvander(x, 9)
    y = np.cos(9 * x) + 0.1 * RNG.standard_normal(60)
    p = PointsProblem([basis], [scale], y, np.ones(60))
    found, _, _ = p.solve(State(np.ones(1), (np.eye(10, 1),)), 0.0, 30, 1e-5)
    score, trace = p.leave_one_out(found, 0.0)
    turn = np.linalg.qr(basis)[0]
    want = (y - turn @ (turn.T @ y)) / (1 - np.sum(turn**2, axis=1))
    assert_below(abs(score / np.mean(want**2) - 1), 1e-6, "relative difference")
    assert_below(abs(trace - 10), 1e-6, "difference of the trace")
