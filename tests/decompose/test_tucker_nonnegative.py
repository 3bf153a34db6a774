"""Nonnegative Tucker: never negative, monotone, stationary, and as good as what the data were made from."""

from __future__ import annotations

import itertools
from functools import reduce

import numpy as np
import pytest

from tenfac import ConvergenceWarning, DataError, RankError, ShapeError, tucker, tucker_nonnegative
from tenfac.decompose import tucker_nonnegative as module
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    quietly,
    to_numpy,
)
from tests.oracles import format_dense, true_error, tucker_dense, with_noise


def planted(shape=(9, 8, 10), rank=(2, 3, 2), noise=0.0, seed=0):
    """Sparse nonnegative core and factors, multiplied out."""
    rng = np.random.default_rng(seed)
    core = rng.random(rank) * (rng.random(rank) < 0.6)
    factors = [rng.random((n, r)) * (rng.random((n, r)) < 0.7) for n, r in zip(shape, rank, strict=True)]
    return with_noise(tucker_dense(core, factors), noise, rng)


def least(t):
    return min(float(to_numpy(part).min()) for part in (t.core, *t.factors))


def gradients(t, X):
    """Half the gradient of the squared error by the core and by every factor, with their values."""
    core, factors = to_numpy(t.core), [to_numpy(f) for f in t.factors]
    residual = format_dense(t) - X
    yield core, tucker_dense(residual, [f.T for f in factors])
    for n, factor in enumerate(factors):
        others = [np.eye(factor.shape[1]) if m == n else f for m, f in enumerate(factors)]
        regressors = np.moveaxis(tucker_dense(core, others), n, 0).reshape(factor.shape[1], -1)
        yield factor, np.moveaxis(residual, n, 0).reshape(factor.shape[0], -1) @ regressors.T


@pytest.mark.parametrize("seed", [0, 1])
def test_what_was_planted_is_fitted_to_the_noise(seed):
    X = planted(noise=0.1, seed=seed)
    t = tucker_nonnegative(X, (2, 3, 2))
    assert_equal(t.info.converged, True)
    assert_below(true_error(t, X), 0.1, "error, of 10 % noise")
    assert_above(true_error(t, X), tucker(X, (2, 3, 2)).info.rel_error * 0.99, "error against signed numbers")


def test_without_noise_the_error_goes_on_falling_towards_zero():
    t = quietly(tucker_nonnegative, planted(), (2, 3, 2), tol=1e-9, max_iter=400)
    assert_below(true_error(t, planted()), 1e-2, "error")


def test_the_error_never_rises_and_is_the_true_error():
    X = planted(noise=0.2)
    for sweeps in (1, 7, 60):
        t = quietly(tucker_nonnegative, X, (2, 3, 2), max_iter=sweeps, tol=1e-12)
        assert_below(
            max(np.diff(t.info.history), default=0.0), 1e-15, "rise of the error, but for its rounding"
        )
        assert_relative(np.float64(t.info.rel_error), np.float64(true_error(t, X)), 1e-9)


@pytest.mark.slow
def test_the_end_is_stationary_under_the_constraint():
    X = planted((6, 5, 7), noise=0.3)
    t = quietly(tucker_nonnegative, X, 2, tol=1e-12, max_iter=1000)
    for value, gradient in gradients(t, X):
        bound = 1e-4 * np.linalg.norm(X) ** 2
        assert_below(np.abs(value * gradient).max(), bound, "gradient where a number is above 0")
        assert_above(gradient.min(), -bound, "gradient, downhill into what is allowed")


def test_library_and_dtype_are_kept_and_nothing_is_negative(make):
    X = make.asarray(planted((5, 4, 6, 3), (2, 2, 3, 2), noise=0.1))
    t = quietly(tucker_nonnegative, X, (2, 2, 3, 2), max_iter=20)
    for part in (t.core, *t.factors):
        assert_same_kind(part, X)
    assert_above(least(t), 0.0, "smallest number")
    assert_relative(np.float64(t.info.rel_error), np.float64(true_error(t, X)), 1e-3)


def test_columns_have_norm_one():
    for factor in tucker_nonnegative(planted(noise=0.1), 2).factors:
        assert_close(np.linalg.norm(factor, axis=0), np.ones(2))


def test_one_to_five_modes():
    for shape in ((5,), (6, 5), (1, 4, 5), (3, 2, 3, 2), (2, 3, 2, 3, 2)):
        X = reduce(np.multiply.outer, [np.arange(1.0, n + 1) for n in shape])
        assert_below(true_error(tucker_nonnegative(X, 1), X), 1e-6, f"error of rank one, shape {shape}")


def test_what_is_negative_cannot_be_fitted_and_zero_is():
    for X in (-planted(), np.zeros((3, 4, 2))):
        t = tucker_nonnegative(X, 2)
        assert_equal((bool((t.core == 0).all()), t.info.converged), (True, True))
        assert_equal(t.info.rel_error, 1.0 if X.any() else 0.0)


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e-3, 1e3, 1e160, 1e300])
def test_scaling_the_data_scales_the_core(scale):
    X = planted((5, 4, 3), 2 * np.ones(3, int), noise=0.2)
    got, want = (quietly(tucker_nonnegative, x, 2, max_iter=9).core for x in (X * scale, X))
    assert_close(got / scale, want, factor=1e6)


def test_the_seed_decides_the_start():
    X = planted(noise=0.2)
    first, same, other = (quietly(tucker_nonnegative, X, 2, max_iter=3, random_state=s) for s in (0, 0, 1))
    assert_equal(first.core, same.core)
    assert_above(np.abs(first.core - other.core).max(), 1e-6, "difference between starts")


def test_a_callback_sees_every_sweep_and_stops():
    seen = []
    t = tucker_nonnegative(planted(noise=0.1), 2, callback=lambda n, error: seen.append(error) or n == 3)
    assert_equal((tuple(seen), t.info.n_iter, t.info.converged), (t.info.history, 3, False))


def test_too_few_sweeps_are_said():
    with pytest.warns(ConvergenceWarning, match=r"2 sweeps.*Raise max_iter or tol") as caught:
        t = tucker_nonnegative(planted(noise=0.1), 2, max_iter=2, tol=1e-9)
    assert_equal((len(caught), caught[0].filename), (1, __file__))
    assert_equal((t.info.converged, len(t.info.history)), (False, 2))


@pytest.mark.parametrize(("curvature", "distance"), [(0.2, 0.022), (0.3, 0.006)])
def test_momentum_that_points_uphill_is_dropped(curvature, distance):
    # of a parabola with its minimum at 3; with all momentum kept the end is four times as far from it
    end = module._descend(lambda x: curvature * x, np.array([3 * curvature]), np.array([1.0]), 1.0, np)
    assert_below(abs(end[0] - 3), distance, "distance to the minimum")


def test_the_momentum_is_that_of_nesterov():
    paces = [1.0]
    while len(paces) < 11:  # t^2 - t is the square of the last
        paces.append(max(np.roots([1, -1, -(paces[-1] ** 2)])))
    curvature, here, ahead = 0.05, 1.0, 1.0
    for before, after in itertools.pairwise(paces):
        found = ahead - curvature * (ahead - 3)
        ahead = found + (before - 1) / after * (found - here)
        here = found
    end = module._descend(lambda x: curvature * x, np.array([3 * curvature]), np.array([1.0]), 1.0, np)
    assert_close(end, np.array([here]))


@pytest.mark.parametrize(("steepness", "taken"), [(1.9, True), (2.1, False), (2.9, False)])
def test_a_step_is_taken_where_it_ends_lower_than_it_began(steepness, taken, monkeypatch):
    monkeypatch.setattr(module, "_STEPS", 1)  # one step of length one down a parabola steeper than is said
    end = module._descend(lambda x: steepness * x, np.array([3.0 * steepness]), np.array([2.5]), 1.0, np)
    assert_equal(end[0] != 2.5, taken)


def test_the_residual_is_formed_only_where_the_error_is_small(monkeypatch):
    formed = []
    plain = module.residual_error
    monkeypatch.setattr(module, "residual_error", lambda *a: (formed.append(plain(*a)), formed[-1])[1])
    quietly(tucker_nonnegative, planted(noise=0.2), (2, 3, 2), max_iter=5)
    assert_equal(formed, [])
    X = reduce(np.multiply.outer, [np.arange(1.0, n + 1) for n in (3, 4, 5)])
    t = tucker_nonnegative(X, 1)
    assert_below(max(formed), 1.3e-4, "error where the residual is formed")
    assert_equal(t.info.rel_error, formed[-1])


def test_steps_that_end_higher_than_they_began_are_not_taken():
    start = np.array([2.9])
    end = module._descend(lambda x: 4 * x, np.array([12.0]), start, 1.0, np)  # four times as steep as is said
    assert_equal(end, start)


@pytest.mark.parametrize(
    ("X", "kwargs", "kind", "parts"),
    [
        (np.ones((9, 3)), {"rank": 9}, RankError, ["mode 1", "3"]),
        (np.ones((9, 3)), {"rank": 2, "tol": 0}, RankError, ["tol"]),
        (np.ones((9, 3)), {"rank": 2, "max_iter": 0}, ValueError, ["max_iter", "0"]),
        (np.ones((9, 3)) * 1j, {"rank": 2}, DataError, ["complex128", "abs(X)"]),
        (np.array([[1.0, np.nan]]), {"rank": 1}, DataError, ["1 of 2", "(0, 1)", "NaN"]),
        (np.ones((3, 0)), {"rank": 1}, ShapeError, ["(3, 0)"]),
    ],
)
def test_wrong_arguments_are_refused(X, kwargs, kind, parts):
    with pytest.raises(kind) as error:
        tucker_nonnegative(X, **kwargs)
    assert_says(error, "tucker_nonnegative:", *parts)
