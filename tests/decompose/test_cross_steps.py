"""One step of cross approximation at a time: fibres, fits, tests, and when it ends."""

from __future__ import annotations

from functools import reduce

import numpy as np
import pytest

from tenfac import tucker, tucker_cross
from tenfac.decompose import cross as module
from tests.checks import assert_above, assert_below, assert_close, assert_equal, quietly
from tests.oracles import true_error


def peaked(size=60):
    """Values with a peak in a corner, and their best approximation of rank one: core and bases."""
    x = np.linspace(0, 1, size)
    values = 1 / (x[:, None] + 2 * x + 0.02)
    u, s, v = np.linalg.svd(values)
    return values, np.array([[s[0]]]), [u[:, :1], v[:1].T]


def state(values, seed=0, tol=1e-6, limit=10_000):
    rng = np.random.default_rng(seed)
    sampler = module.Sampler(values, values.shape, 1000, "tucker_cross")
    return module._Cross(sampler, tol, module.Progress("tucker_cross", limit), rng)


def test_the_estimate_of_the_error_is_unbiased_and_finds_the_worst_entries():
    values, core, bases = peaked()
    rest = values - bases[0] @ core @ bases[1].T
    true = np.linalg.norm(rest) / np.linalg.norm(values)
    cross = state(values)
    error, worst = cross._test(core, bases, 40_000)
    assert_below(abs(error / true - 1), 0.02, "estimated over true error - 1")
    least = np.sort(np.abs(rest).ravel())[-8]  # of 3600, nearly all of which were drawn
    assert_above(np.abs(rest[tuple(worst.T)]).min(), least * 0.5, "error at the worst entries")
    assert_above(np.abs(rest[tuple(worst[0])]), np.abs(rest).max() * 0.999, "error at the worst entry")
    exact = state(bases[0] @ core @ bases[1].T)
    assert_below(exact._test(core, bases, 500)[0], 1e-14, "error of what is exact")
    assert_equal(
        state(np.zeros((9, 8)))._test(np.zeros((1, 1)), [np.eye(9)[:, :1], np.eye(8)[:, :1]], 50)[0], 0.0
    )


def test_new_fibres_are_distinct_and_not_read_yet_and_go_through_the_worst_entries():
    cross = state(np.ones((6, 9, 7)))
    cross.rows = [np.array([0, 3]), np.array([1, 4]), np.array([2, 5])]
    cross.columns[1] = np.array([[0, 2], [3, 5], [1, 1]])
    cross.worst = np.array([[5, 8, 6], [3, 0, 5]])
    new = cross._propose(1, 6)
    assert_equal((new.shape, len(np.unique(new, axis=0))), ((6, 2), 6))
    assert_equal(new[0].tolist(), [5, 6])
    known = {(0, 2), (3, 5), (1, 1)}
    assert_equal(known & set(map(tuple, new.tolist())), set())
    rows = [fibre for fibre in map(tuple, new.tolist()) if fibre in {(0, 5), (3, 2)}]
    assert_equal(rows, list(map(tuple, new.tolist()))[1:3])  # then through the rows, two of which are left
    cross.columns[1] = np.array(list(np.ndindex(6, 7)))
    assert_equal(len(cross._propose(1, 6)), 0)


def test_the_leverage_of_rows_is_the_diagonal_of_the_projector():
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((9, 3)) * np.arange(1, 10)[:, None])[0]
    for turned in (basis, 1j * basis):
        assert_close(module._leverage(turned), np.diag(basis @ basis.T) / 3)


def test_what_new_fibres_have_outside_the_bases_is_the_error_of_a_round():
    x = np.arange(1.0, 41.0)
    for scale in (1e-3, 1e3):
        cross = state(scale * np.outer(x, x))
        assert_close(cross._grow(), 1.0)
        assert_below(cross._grow(), 1e-14, "outside of the bases")
        assert_equal([basis.shape for basis in cross.bases], [(40, 1)] * 2)
        assert_equal(cross._new_evals(), cross.sampler.n_evals)
        assert_equal(cross._new_evals(), 0)
    zeros = state(np.zeros((40, 30)))
    assert_equal(zeros._grow(), 0.0)
    noise = state(np.random.default_rng(0).standard_normal((100, 80)), limit=10**6)
    noise._grow()
    assert_above(noise._grow(), 0.5, "outside of the bases")
    assert_equal([len(columns) for columns in noise.columns], [8 + 12] * 2)  # eight, and half of the rank


def scripted(rounds, fits, tol=0.01):
    """A cross approximation whose rounds and fits have these errors; None where there is no room for one."""
    cross = state(np.ones((9, 8)), tol=tol)
    rounds, fits = iter(rounds), iter(fits)

    def grow():
        cross.columns[0] = np.zeros((len(cross.columns[0]) + 1, 1))
        return next(rounds)

    def fit():
        error = next(fits)
        return None if error is None else (np.ones((1, 1)), [], error)

    cross._grow, cross._fit = grow, fit
    return cross.run()[2:]


def test_the_best_fit_is_returned_and_what_ended_the_search_is_said():
    small = [0.001] * 9
    assert_equal(
        scripted(small, [0.5, 0.2, 0.009]), (0.009, "max_evals reached")
    )  # the tolerance, if it is met
    assert_equal(scripted(small, [0.5, 0.2, 0.3, None]), (0.2, "max_evals reached"))
    assert_equal(scripted([0.001, 0.001, None], [0.5, 0.3, 0.4]), (0.3, "max_evals reached"))
    assert_equal(scripted(small, [0.5, 0.1, 0.3, 0.2, 0.3, 0.2, 0.01]), (0.1, "error stopped falling"))
    assert_equal(scripted(small, [0.5, 0.1, 0.3, 0.2, 0.3, 0.01]), (0.01, "max_evals reached"))
    assert_equal(scripted([0.4, 0.006, 0.004], [0.002]), (0.002, "max_evals reached"))  # no fit before


def test_a_search_has_stalled_after_four_fits_without_a_new_best():
    assert_equal(module._has_stalled([1.0, 2.0, 2.0, 2.0, 2.0]), True)
    for errors in ([1.0, 2.0, 2.0, 2.0], [3.0, 2.0, 1.0], [1.0], [2.0, 1.0, 2.0, 2.0, 2.0]):
        assert_equal(module._has_stalled(errors), False)


@pytest.mark.parametrize("limit", [700, 1500, 4000, 6000])
def test_noise_takes_the_entries_allowed_and_no_more(limit):
    noise = np.random.default_rng(0).standard_normal((70, 40, 30))
    t = quietly(tucker_cross, noise, noise.shape, 1e-6, max_evals=max(limit, 1200))
    assert_below(t.info.n_evals, max(limit, 1200), "evaluations")
    assert_above(t.info.n_evals, 0.4 * limit, "evaluations")


def test_a_smooth_function_keeps_to_any_limit_too():
    x = np.linspace(0, 1, 60)
    for limit in range(1500, 7000, 500):
        cross = state(1 / (x[:, None, None] + 2 * x[:, None] + x + 0.1), tol=1e-3, limit=limit)
        error = cross.run()[2]
        assert_below(cross.sampler.n_evals, limit, "evaluations")
        assert_below(error, 0.3, "estimated error")


def test_a_core_that_would_take_too_many_entries_is_fitted_smaller():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((60, 50))
    for limit, fits in ((1450, True), (1200, True), (1102, False)):
        cross = state(X, limit=limit)
        cross.sampler.n_evals = 1000
        cross.n_test, cross.reserve = 20, 100
        cross.bases = [np.linalg.qr(rng.standard_normal((size, 10)))[0] for size in X.shape]
        cross.rows = [module._choose_rows(basis, 2) for basis in cross.bases]
        fit = cross._fit()
        assert_equal(fit is not None, fits)
        if fits:
            read = cross.sampler.n_evals - 1000 - 20
            assert_below(read, limit - 1100, "entries of the core")
            assert_above(read, 0.4 * (limit - 1100), "entries of the core")


@pytest.mark.parametrize("tol", [1e-2, 1e-4])
def test_a_fit_that_passes_is_cut_to_the_ranks_that_the_tolerance_needs(tol):
    x = np.linspace(0, 1, 150)
    X = 1 / (x[:, None] + 2 * x + 0.05)
    made = []
    plain = module._Cross._fit
    cross = state(X, tol=tol, limit=20_000)
    cross._fit = lambda: (made.append(plain(cross)), made[-1])[1]
    core, bases, error, _ = cross.run()
    assert_equal(len(made), 1)
    rest = X - bases[0] @ core @ bases[1].T
    true = np.linalg.norm(rest) / np.linalg.norm(X)
    assert_below(true, 1.1 * tol, "true error")
    assert_below(abs(error / true - 1), 0.3, "estimated over true error - 1")
    assert_below(max(core.shape), max(tucker(X, tol=0.75 * tol).rank), "rank")


@pytest.mark.parametrize("tol", [0.3, 1e-2, 1e-5])
def test_few_entries_are_decomposed_as_an_array_is(tol):
    X = peaked()[0] + 1e-3 * np.random.default_rng(0).standard_normal((60, 60))
    t = tucker_cross(X, X.shape, tol)
    assert_equal(t.rank, tucker(X, tol=tol).rank)


def test_what_rounding_to_float32_loses_is_left_of_the_tolerance_and_counted():
    rng = np.random.default_rng(0)
    noise = rng.standard_normal((60, 50))
    X = np.outer(rng.standard_normal(60), rng.standard_normal(50))
    X = (1e3 * (X / np.linalg.norm(X) + 4e-6 * noise / np.linalg.norm(noise))).astype(np.float32)
    for tol in (1.2e-6, 2e-6, 3e-6):
        t = tucker_cross(X, X.shape, tol)
        assert_equal((str(t.dtype), t.info.converged), ("float32", True))
        assert_below(true_error(t, X), t.info.rel_error, "true error against the reported")
        assert_below(t.info.rel_error, tol, "reported error")
        assert_above(t.info.rel_error, 0.6 * tol, "reported error")


@pytest.mark.parametrize("scale", [1e-150, 1e150])
def test_the_scale_of_the_entries_is_that_of_the_core(scale):
    X = peaked()[0]
    t, want = tucker_cross(scale * X, X.shape, 1e-6), tucker_cross(X, X.shape, 1e-6)
    assert_close(t.to_tensor() / scale, want.to_tensor(), 1e4)
    assert_equal(tucker_cross(0 * X, X.shape, 1e-6).info.rel_error, 0.0)


def test_the_tolerance_is_met_after_rounding_in_many_modes_too():
    like, other = np.array([[0.68921092, 0.72456077], [-0.72456077, 0.68921092]])  # rounds the most
    d, tol = 12, 1.2e-6
    dropped = 0.9 * tol / np.sqrt(d)
    X = reduce(np.multiply.outer, [like] * d)
    for n in range(d - 1):  # one part for each mode, hardly too small to count
        X = X + dropped * reduce(np.multiply.outer, [other if m in (n, d - 1) else like for m in range(d)])
    X = X.astype("float32")
    t = tucker_cross(X, X.shape, tol)
    assert_equal((t.info.reason, t.info.converged), ("tolerance met", True))
    assert_below(true_error(t, X), tol, "true error")
