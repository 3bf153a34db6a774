"""Starts of ALS: when one is done, what is taken back, and what is kept; degeneracy of components."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.decompose.cp import sweep as als
from tenfac.decompose.cp.degenerate import degeneracy
from tenfac.decompose.cp.mttkrp import DenseTensor
from tenfac.decompose.cp.nonnegative import nonnegative_step
from tenfac.decompose.cp.sweep import Starts
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_says,
)
from tests.oracles import cp_dense, khatri_rao_dense

X = DenseTensor(np.random.default_rng(0).standard_normal((3, 4, 5)))


def starts(count=1, tol=1e-3):
    rng = np.random.default_rng(1)
    return Starts(X, [rng.standard_normal((count, 2, size)) for size in X.shape], tol)


def scripted(monkeypatch, errors):
    """Sweeps that return the factors they were given and the next errors."""
    rows = iter(errors)
    seen = []

    def sweep(target, factors, nonnegative):
        seen.append(factors)
        return [factor + 1 for factor in factors], np.array(next(rows), dtype=float)

    monkeypatch.setattr(als, "sweep", sweep)
    return seen


def test_a_start_is_done_after_two_small_falls_in_a_row(monkeypatch):
    scripted(monkeypatch, [[0.9], [0.8999], [0.5], [0.4999], [0.49985], [0.1]])
    s = starts()
    for wanted in (False, False, False, False, True):
        s.advance(1)
        assert_equal(bool(s.done[0]), wanted)
    s.advance(10)
    assert_equal(len(s.history), 5)


def test_a_sweep_that_raises_the_error_is_taken_back_and_the_next_is_not_extended(monkeypatch):
    seen = scripted(monkeypatch, [[0.9], [0.8], [0.85], [0.7]])
    s = starts()
    s.advance(2)
    before = s.factors[0]
    s.advance(1)
    assert_equal(s.factors[0], before)
    assert_equal(s.errors, np.array([0.8]))
    s.advance(1)
    assert_equal(seen[3][0], before)
    assert_above(np.abs(seen[2][0] - before).max(), 0.1, "extension of the sweep taken back")


def test_starts_do_not_influence_each_other():
    together = starts(3)
    together.advance(6)
    for n in range(3):
        alone = starts(3)
        alone.keep(np.array([n]))
        alone.advance(6)
        assert_close(alone.errors[0], float(together.errors[n]), factor=1e4)
        assert_relative(alone.factors[0][0], together.factors[0][n], 1e-8)
    kept = starts(3)
    kept.advance(3)
    kept.keep(np.array([2, 0]))
    kept.advance(3)
    assert_relative(kept.errors, together.errors[[2, 0]], 1e-9)
    assert_equal(kept.history[-1].shape, (2,))


def test_starts_that_raise_the_error_wait_while_the_others_go_on(monkeypatch):
    seen = scripted(monkeypatch, [[0.9, 0.9], [0.8, 0.8], [0.85, 0.7], [0.8, 0.6]])
    s = starts(2)
    s.advance(2)
    before = s.factors[1]
    s.advance(2)
    assert_equal(seen[3][1][0], before[0])
    assert_above(np.abs(seen[3][1] - seen[2][1])[1].min(), 1.0, "step of the start that goes on")


def shares_ahead(monkeypatch, errors):
    """How far each sweep from the third on goes ahead, in steps of the last two."""
    seen, here, shares = scripted(monkeypatch, [[error] for error in errors]), [], []
    s = starts(tol=0)
    for _ in errors:
        here.append(s.factors[0])
        s.advance(1)
    for n in range(2, len(errors)):
        step = (here[n] - here[n - 1]).mean()
        shares.append((seen[n][0] - here[n]).mean() / step if step else 0.0)
    return np.array(shares)


def test_sweeps_go_ever_further_ahead_up_to_a_whole_step_while_the_error_falls(monkeypatch):
    shares = shares_ahead(monkeypatch, 0.99 ** np.arange(30))
    assert_above(np.diff(shares).min(), -1e-9, "least growth")
    assert_above(shares[0], 0.05, "first share")
    assert_below(shares[0], 0.9, "first share")
    assert_close(shares[-10:], np.ones(10), factor=1e3)


def test_after_a_rise_sweeps_go_less_far_ahead_than_what_failed_and_for_some_while(monkeypatch):
    errors = list(0.99 ** np.arange(30))
    errors[3] = 2.0
    shares = shares_ahead(monkeypatch, errors)
    failed, then = shares[1], shares[3:]
    assert_below(then[0], 0.9 * failed, "share after the one that failed")
    assert_below(then[3], 1.3 * failed, "share some sweeps later")
    assert_above(then[-1], 1.3 * failed, "share at last")


@pytest.mark.parametrize(
    ("error", "known"),
    [(0.5, 2e-16), (0.01, 1e-14), (3e-4, 3e-13), (1e-6, 2e-16)],  # half a rounding of its square, or one
)
def test_a_fall_that_may_be_rounding_is_no_progress_whatever_the_tolerance(monkeypatch, error, known):
    for fall, done in ((0.9 * known, True), (30 * known, False)):
        scripted(monkeypatch, [[error - n * fall] for n in range(4)])
        s = starts(tol=0)
        s.advance(4)
        assert_equal((bool(s.done[0]), len(s.history)), (done, 3 if done else 4))


def test_an_exact_fit_ends_at_once(monkeypatch):
    scripted(monkeypatch, [[0.9], [0.0], [0.0]])
    s = starts(tol=0)
    s.advance(3)
    assert_equal((bool(s.exact[0]), len(s.history)), (True, 2))


def test_nonnegative_starts_stay_at_zero_or_above_where_they_go_ahead(monkeypatch):
    seen = []

    def falling(target, factors, nonnegative):
        seen.append(factors)
        return [np.maximum(factor - 0.5, 0) for factor in factors], np.array([0.9 / len(seen)])

    monkeypatch.setattr(als, "sweep", falling)
    s = Starts(
        X, [np.linspace(0, 2, 2 * size).reshape(1, 2, size) for size in X.shape], 0.0, nonnegative=True
    )
    s.advance(2)
    here = s.factors
    s.advance(1)
    for ahead, factor in zip(seen[2], here, strict=True):
        assert_equal(ahead >= 0, np.ones(ahead.shape, dtype=bool))
        assert_equal(ahead < factor, factor > 0)


def random_factors(dtype=float, seed=2, rank=3, shape=X.shape):
    rng = np.random.default_rng(seed)
    parts = [rng.standard_normal((2, rank, size)) for size in shape]
    return [part + 1j * rng.standard_normal(part.shape) for part in parts] if dtype is complex else parts


@pytest.mark.parametrize("dtype", [float, complex])
@pytest.mark.parametrize("scale", [0.7, 1e-3])
@pytest.mark.parametrize(("off", "formed"), [(1.0, 0), (1e-2, 0), (1e-6, 1)])
def test_the_errors_of_a_sweep_are_those_of_its_factors_and_each_term_has_one_norm_in_every_mode(
    monkeypatch, off, scale, formed, dtype
):
    factors = random_factors(dtype)
    near = cp_dense(None, [factor[0].T for factor in factors])
    dense = scale * (near + off * np.linalg.norm(near) / np.linalg.norm(X.array) * X.array)
    target, calls, distance = DenseTensor(dense), [], DenseTensor.distance
    monkeypatch.setattr(DenseTensor, "distance", lambda *given: calls.append(1) or distance(*given))
    balanced, errors = als.sweep(target, factors)
    assert_equal(len(calls), formed)  # residuals, where squares would cancel
    for s in range(2):
        own = [factor[s].T for factor in balanced]
        want = np.linalg.norm(dense - cp_dense(None, own)) / np.linalg.norm(dense)
        assert_relative(errors[s], np.float64(want), 1e-7)
        norms = np.stack([np.linalg.norm(factor, axis=0) for factor in own])
        assert_close(norms, np.broadcast_to(norms[0], norms.shape), factor=1e3)
    assert_below(errors[0], off, "error beside the solution")


def test_a_sweep_solves_each_mode_by_least_squares_in_turn():
    factors = random_factors()
    balanced, _ = als.sweep(X, factors)
    state = [factor[0].T for factor in factors]
    for n in range(3):
        a, b = (state[m] for m in range(3) if m != n)
        unfolded = np.moveaxis(X.array, n, 0).reshape(X.shape[n], -1)
        state[n] = np.linalg.lstsq(khatri_rao_dense([a, b]), unfolded.T)[0].T
    want = cp_dense(None, state)
    assert_relative(cp_dense(None, [factor[0].T for factor in balanced]), want, 1e-9)


def test_what_the_data_do_not_determine_stays_as_it_was():
    factors = [factor[:1, :2] for factor in random_factors()]
    for factor in factors[1:]:
        factor[:, 1] = factor[:, 0]  # two terms that differ in mode 0 only: their sum is determined
    (a, *others), norm = [factor[0] for factor in factors], 1.0
    for other in others:
        norm *= np.linalg.norm(other[0])
    both = np.einsum("ijk,j,k->i", X.array, *(other[0] / np.linalg.norm(other[0]) for other in others))
    apart = norm * (a[0] - a[1])
    want = np.stack([both + apart, both - apart])
    found = als.sweep(X, factors)[0][0][0]
    rows = [part / np.linalg.norm(part, axis=1, keepdims=True) for part in (found, want)]
    assert_relative(rows[0], rows[1], 0.05)


def test_a_component_that_is_zero_stays_zero():
    factors = random_factors()
    for factor in factors:
        factor[:, 1] = 0.0
    balanced, errors = als.sweep(X, factors)
    assert_equal(balanced[2][:, 1], np.zeros((2, 5)))
    without, want = als.sweep(X, [np.delete(factor, 1, axis=1) for factor in factors])
    assert_close(errors, want)
    assert_close(np.delete(balanced[0], 1, axis=1), without[0], factor=1e3)


def test_extension_saves_sweeps_on_nearly_parallel_terms():
    rng = np.random.default_rng(1)
    cosines = np.linalg.cholesky(np.full((4, 4), 0.9) + 0.1 * np.eye(4)).T
    factors = [np.linalg.qr(rng.standard_normal((8, 4)))[0] @ cosines for _ in range(3)]
    target = DenseTensor(np.einsum("ir,jr,kr->ijk", *factors))
    start = [rng.standard_normal((1, 4, 8)) for _ in range(3)]
    s = Starts(target, start, 1e-9)
    s.advance(150)
    plain = start
    for _ in range(150):
        plain, errors = als.sweep(target, plain)
    assert_above(errors[0] / s.errors[0], 100, "error of plain ALS over that of extended")


@pytest.mark.parametrize(
    ("weight", "cosine", "flagged"), [(20, -0.99, True), (5, -0.99, False), (20, 0.99, False)]
)
def test_degeneracy_needs_components_that_oppose_each_other_and_exceed_the_tensor(weight, cosine, flagged):
    a = np.array([[1.0, cosine], [0.0, np.sqrt(1 - cosine**2)]])
    same = np.array([[1.0, 1.0], [0.0, 0.0]])
    found = degeneracy(np.array([weight, weight]), [a, same, same], 10.0)
    assert_equal(found is not None, flagged)
    if flagged:
        assert_says(found, "congruence -0.9900", "2 and 2 times")


def test_a_nonnegative_step_lowers_the_residual_and_stays_at_zero_or_above():
    from scipy.optimize import nnls

    rng = np.random.default_rng(0)
    design, data = rng.random((9, 3)), rng.standard_normal((9, 4))
    found = (design.T @ design)[None], (design.T @ data)[None], np.ones((1, 3, 4))
    for _ in range(200):
        found = (*found[:2], nonnegative_step(*found))
    want = np.stack([nnls(design, column)[0] for column in data.T], axis=1)
    assert_relative(found[2][0], want, 1e-8)
    assert_equal(bool((found[2] >= 0).all()), True)
