"""Appending: as good as decomposing all data, with an error that counts everything lost so far."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfac import (
    Chebyshev,
    ConvergenceWarning,
    DataError,
    Discrete,
    RankError,
    ShapeError,
    Tucker,
    tucker,
    tucker_append,
)
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
)
from tests.oracles import best_rank_by_mode, true_error, tucker_dense


def smooth(n=24):
    x = np.linspace(0, 1, n)
    return 1 / (x[:, None, None] + 2 * x[:, None] + x + 0.05)


def split(X, mode, at):
    return np.split(X, [at], axis=mode)


@pytest.mark.parametrize("mode", [0, 1, -1])
@pytest.mark.parametrize("tol", [1e-2, 1e-4, 1e-8, 1e-11])
def test_the_tolerance_holds_for_all_data_with_the_ranks_of_all_data(mode, tol):
    X = smooth()
    old, new = split(X, mode, 15)
    t = tucker_append(tucker(old, tol=tol / 10), new, mode, tol=tol)
    assert_equal((t.shape, t.info.converged, t.info.reason), (X.shape, True, "tolerance met"))
    assert_below(true_error(t, X), tol, "true error")
    assert_below(true_error(t, X), t.info.rel_error, "true error against the reported bound")
    assert_below(t.info.rel_error, tol, "reported bound")
    for got, best in zip(t.rank, best_rank_by_mode(X, tol), strict=True):
        assert_below(got, best + 1, "rank")


def test_at_a_given_rank_it_is_as_good_as_decomposing_all_data():
    X = smooth() + 1e-3 * np.random.default_rng(0).standard_normal((24, 24, 24))
    old, new = split(X, 0, 20)
    t = tucker_append(tucker(old, 6), new, 0, rank=5)
    assert_equal((t.rank, t.info.reason), ((5, 5, 5), "rank reached"))
    assert_below(true_error(t, X), 1.01 * tucker(X, 5).info.rel_error, "error against that of all data")
    assert_below(true_error(t, X), t.info.rel_error, "true error against the reported bound")
    assert_below(t.info.rel_error, 3 * true_error(t, X), "reported bound against the true error")


def test_many_slices_one_by_one_stay_within_the_reported_bound():
    X = smooth()
    t = tucker(X[:12], tol=1e-7)
    for n in range(12, 24):
        t = tucker_append(t, X[n : n + 1], 0, tol=1e-5)
        assert_below(true_error(t, X[: n + 1]), t.info.rel_error, "true error against the reported bound")
    assert_equal(t.shape, X.shape)
    assert_below(t.info.rel_error, 1e-5, "reported bound")


def test_slices_of_a_known_subspace_do_not_raise_the_rank_and_new_ones_do():
    rng = np.random.default_rng(0)
    factors = [rng.standard_normal((size, 2)) for size in (12, 9, 8)]
    X = tucker_dense(rng.standard_normal((2, 2, 2)), factors)
    t = tucker(X[:10], tol=1e-10)
    assert_equal(tucker_append(t, X[10:], 0, tol=1e-8).rank, (2, 2, 2))
    other = rng.standard_normal((1, 9, 1)) * rng.standard_normal((1, 1, 8))
    assert_equal(tucker_append(t, other, 0, tol=1e-8).rank, (3, 3, 3))


def test_library_and_dtype_are_kept_and_factors_are_orthonormal(make):
    X = make(9, 6, 5)
    t = tucker_append(tucker(X[:6], (6, 6, 5)), X[6:], 0, rank=(9, 6, 5))
    assert_same_kind(t.core, X)
    assert_close(t.to_tensor(), X)
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(factor.shape[1]), like=X)


@pytest.mark.parametrize("scale", [1e-300, 1e-130, 1e130, 1e300])
@pytest.mark.parametrize("how", [{"tol": 1e-4}, {"rank": 3}])
def test_scaling_all_data_scales_the_result(scale, how):
    X = smooth(12)
    t, want = (tucker_append(tucker(Y[:8], tol=1e-6), Y[8:], 0, **how) for Y in (X * scale, X))
    assert_relative(t.to_tensor() / scale, want.to_tensor(), 1e-9)
    assert_equal(t.rank, want.rank)
    error = np.linalg.norm(t.to_tensor() / scale - X) / np.linalg.norm(X)
    assert_below(error, t.info.rel_error, "true error against the reported bound")


@pytest.mark.parametrize(("old", "new"), [(1.0, 1e-200), (1e-200, 1.0), (1.0, 1e200), (1e-150, 0.0)])
def test_slices_of_another_scale_than_the_tensor_are_appended(old, new):
    X = np.concatenate([smooth(12)[:8] * old, smooth(12)[8:] * new])
    t = tucker_append(tucker(X[:8], tol=1e-6), X[8:], 0, tol=1e-4)
    largest = max(old, new)
    assert_relative(t.to_tensor() / largest, X / largest, 1e-4)
    assert_below(t.info.rel_error, 1e-4, "reported bound")


def test_complex_data_and_mixed_precision():
    rng = np.random.default_rng(0)
    X = rng.standard_normal((8, 5, 4)) + 1j * rng.standard_normal((8, 5, 4))
    assert_close(tucker_append(tucker(X[:5], (5, 5, 4)), X[5:], 0, rank=X.shape).to_tensor(), X)
    t = tucker_append(tucker(X.real[:5].astype("float32"), 2), X.real[5:], 0, rank=2)
    assert_equal(str(t.dtype), "float64")


def test_an_unknown_error_of_the_start_is_said_and_counted_as_none():
    X = smooth(12)
    t = tucker(X[:8], tol=1e-9)
    t = tucker_append(Tucker(t.core, t.factors), X[8:], 0, tol=1e-3)
    assert_says(t.info.warnings[0], "counts t as exact")


def test_an_error_of_the_start_above_the_tolerance_is_said():
    X = smooth()
    with pytest.warns(ConvergenceWarning, match=r"above tol=.*decompose all data anew") as caught:
        t = tucker_append(tucker(X[:20], tol=1e-2), X[20:], 0, tol=1e-6)
    assert_equal((len(caught), caught[0].filename, t.info.converged), (1, __file__, False))
    assert_says(t.info.reason, "error of t above tolerance")
    assert_below(true_error(t, X), t.info.rel_error, "true error against the reported bound")


@pytest.mark.parametrize("known", [True, False])
def test_where_nothing_more_is_lost_the_reported_error_is_that_of_the_start(known):
    X = np.random.default_rng(0).standard_normal((9, 4, 3))
    old, new = split(X, 0, 5)
    t = tucker(old, (2, 3, 2))
    got = tucker_append(t if known else Tucker(t.core, t.factors), new, 0, rank=(6, 4, 3))
    want = true_error(got, X) if known else 0.0  # as much of the whole as t lost of its part
    assert_below(abs(got.info.rel_error - want), 1e-9, "reported minus true error")


@pytest.mark.parametrize("scale", [1e-9, 1e9])
def test_the_scale_of_data_whose_start_is_too_coarse_does_not_matter(scale):
    X = smooth(12)
    made = []
    for Y in (X, scale * X):
        with pytest.warns(ConvergenceWarning):
            made.append(tucker_append(tucker(Y[:8], tol=0.1), Y[8:], 0, tol=1e-3))
    assert_equal(made[1].rank, made[0].rank)
    assert_below(abs(made[1].info.rel_error / made[0].info.rel_error - 1), 1e-9, "reported errors")
    assert_below(true_error(made[0], X), made[0].info.rel_error, "error")
    rest = np.linalg.norm((made[0].to_tensor() - X)[8:]) / np.linalg.norm(X)
    assert_below(rest, 1e-3, "error of the new slices")


def test_a_coarse_tolerance_leaves_the_error_and_the_rank_that_it_allows():
    X = smooth() + 0.3 * np.random.default_rng(0).standard_normal((24, 24, 24))
    t = tucker_append(tucker(X[:12], tol=0.02), X[12:], 0, tol=0.2)
    assert_equal(t.info.converged, True)
    assert_above(t.info.rel_error, 0.1, "reported bound")
    assert_below(np.prod(t.rank), 1.5 * np.prod(tucker(X, tol=0.14).rank), "numbers of the core")


def test_zeros_are_appended_to_zeros():
    t = tucker_append(tucker(np.zeros((3, 4)), 1), np.zeros((2, 4)), 0, tol=0.1)
    assert_equal(t.to_tensor(), np.zeros((5, 4)))


@settings(max_examples=20)
@given(st.integers(1, 4), st.integers(0, 2), st.integers(0, 999), st.floats(0.01, 0.8))
def test_any_tolerance_is_kept_for_any_mode_and_number_of_slices(n, mode, seed, tol):
    X = np.random.default_rng(seed).standard_normal((6, 6, 6))
    old, new = split(X, mode, 6 - n)
    t = tucker_append(tucker(old, tol=tol / 2), new, mode, tol=tol)
    assert_below(true_error(t, X), tol, "true error")
    assert_below(true_error(t, X), t.info.rel_error + 1e-12, "true error against the reported bound")


@pytest.mark.parametrize(
    ("call", "kind", "parts"),
    [
        (lambda t: tucker_append(t, np.ones((2, 4, 4)), 0, rank=1), ShapeError, ["(J, 4, 3)", "(2, 4, 4)"]),
        (lambda t: tucker_append(t, np.ones((4, 3)), 0, rank=1), ShapeError, ["(J, 4, 3)", "X_new[None]"]),
        (lambda t: tucker_append(t, np.ones((2, 4, 3)), 3, rank=1), ShapeError, ["mode", "3"]),
        (lambda t: tucker_append(t, np.ones((2, 4, 3)), 0), RankError, ["either rank"]),
        (lambda t: tucker_append(t, np.full((2, 4, 3), np.nan), 0, rank=1), DataError, ["24 of 24"]),
        (lambda t: tucker_append(t.core, np.ones((2, 4, 3)), 0, rank=1), TypeError, ["ndarray"]),
        (lambda t: tucker_append(t, np.ones((2, 0, 3)), 0, rank=1), ShapeError, ["X_new", "(2, 0, 3)"]),
        (
            lambda t: tucker_append(
                Tucker(t.core[None], [f[None] for f in t.factors]), np.ones((2, 4, 3)), 0, rank=1
            ),
            ShapeError,
            ["batch of shape (1,)", "one by one"],
        ),
    ],
)
def test_wrong_input_is_refused(call, kind, parts):
    with pytest.raises(kind) as error:
        call(tucker(np.ones((5, 4, 3)), 1))
    assert_says(error, "tucker_append:", *parts)


def test_functions_are_refused_and_the_end_of_the_range_of_modes_is_taken():
    t = Tucker(np.ones((1, 1)), [np.ones((3, 1)), np.ones((4, 1))], [Chebyshev(3), Discrete(4)])
    with pytest.raises(ShapeError) as error:
        tucker_append(t, np.ones((3, 1)), 1, tol=0.1)
    assert_says(error, "tucker_append", "discrete modes only", "(None, 4)")
    assert_equal(tucker_append(tucker(np.ones((3, 4)), 1), np.ones((3, 1)), 1, tol=0.1).shape, (3, 5))
