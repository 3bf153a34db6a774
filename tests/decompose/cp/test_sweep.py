"""Starts of ALS: when one is done, what is taken back, and what is kept; degeneracy of components."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.decompose.cp import sweep as als
from tenfac.decompose.cp.degenerate import degeneracy
from tenfac.decompose.cp.mttkrp import DenseTensor
from tenfac.decompose.cp.nonnegative import nonnegative_step
from tenfac.decompose.cp.sweep import Starts
from tests.checks import assert_above, assert_close, assert_equal, assert_relative, assert_says

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
