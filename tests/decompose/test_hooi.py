"""HOOI: monotone, stationary, never worse than its start, and an error that is true at any size."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfac import ConvergenceWarning, DataError, RankError, ShapeError, Tucker, hooi, tucker
from tenfac.decompose import hooi as module
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_same_kind,
    assert_says,
    to_numpy,
)
from tests.oracles import smooth, true_error, tucker_dense


def noise(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def textbook_hooi(X, ranks, sweeps):
    """Kolda and Bader, figure 4.4: full SVDs of full unfoldings, from the HOSVD."""
    unfold = lambda T, n: np.moveaxis(T, n, 0).reshape(T.shape[n], -1)  # noqa: E731
    factors = [np.linalg.svd(unfold(X, n))[0][:, :r] for n, r in enumerate(ranks)]
    for _ in range(sweeps):
        for n, r in enumerate(ranks):
            others = [np.eye(X.shape[m]) if m == n else f.T for m, f in enumerate(factors)]
            factors[n] = np.linalg.svd(unfold(tucker_dense(X, others), n))[0][:, :r]
    core = tucker_dense(X, [f.T for f in factors])
    return np.linalg.norm(tucker_dense(core, factors) - X) / np.linalg.norm(X)


def test_the_error_never_rises_and_ends_where_the_textbook_ends():
    X = noise(9, 8, 7)
    t = hooi(X, (3, 2, 4), tol=1e-10, max_iter=1000)
    assert_below(max(np.diff(t.info.history)), 0, "rise of the error")
    assert_equal(t.info.converged, True)
    assert_below(
        true_error(t, X), textbook_hooi(X, (3, 2, 4), 1000) * (1 + 1e-6), "error over the textbook's"
    )
    assert_below(true_error(t, X), 0.995 * tucker(X, (3, 2, 4)).info.rel_error, "error over the start")


def test_library_and_dtype_are_kept_and_the_factors_orthonormal(make):
    X = make(7, 6, 5, 4)
    t = hooi(X, (3, 2, 2, 3), tol=1e-3)
    assert_same_kind(t.core, X)
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(factor.shape[1]), like=X)
    core = tucker_dense(X, [to_numpy(f).T for f in t.factors])
    assert_close(t.core, core, like=X)


@pytest.mark.parametrize("rank", [1, 3, 6, 8, 10, 12])
def test_the_reported_error_is_the_true_error_at_any_size(rank):
    X = smooth()
    t = hooi(X, rank)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")
    assert_below(true_error(t, X), tucker(X, rank).info.rel_error * (1 + 1e-6), "error over that of tucker")


def test_the_reported_error_is_true_in_float32(make):
    X = make.asarray(smooth())
    for rank in (2, 4):
        t = hooi(X, rank, tol=1e-4)
        assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")


def test_one_sweep_ends_at_the_same_point_as_another_start_continued():
    X = noise(8, 8, 8)
    first = hooi(X, 3, tol=1e-9, max_iter=2000)
    again = hooi(X, 3, init=first, tol=1e-9, max_iter=2000)
    assert_below(again.info.n_iter, 2, "sweeps from the end point")
    assert_relative(again.to_tensor(), first.to_tensor(), 1e-3)


def test_a_start_with_skew_factors_is_used_by_its_subspaces():
    X = noise(8, 7, 6)
    skew = Tucker(noise(2, 2, 2), [noise(size, 2, seed=1) for size in X.shape])
    t = hooi(X, 2, init=skew, tol=1e-3)
    bases = [np.linalg.qr(f)[0] for f in skew.factors]
    lost = np.linalg.norm(X) ** 2 - np.linalg.norm(tucker_dense(X, [b.T for b in bases])) ** 2
    assert_below(abs(t.info.history[0] - np.sqrt(lost) / np.linalg.norm(X)), 1e-12, "first of the history")
    assert_above(t.info.history[0] - t.info.rel_error, 1e-3, "fall of the error")


def test_complex_data_are_decomposed(make):
    X = make.complex(6, 5, 4)
    t = hooi(X, 2, tol=1e-3)
    assert_same_kind(t.core, X)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-3, "reported over true error - 1")
    assert_below(t.info.rel_error, tucker(X, 2).info.rel_error, "error against tucker")


def test_too_few_sweeps_are_said_and_the_best_value_is_returned():
    X = noise(10, 10, 10)
    with pytest.warns(ConvergenceWarning, match=r"2 sweeps.*Raise max_iter or tol") as caught:
        t = hooi(X, 3, max_iter=2, tol=1e-9)
    assert_equal((len(caught), caught[0].filename), (1, __file__))
    assert_equal((t.info.converged, t.info.n_iter, len(t.info.history)), (False, 2, 3))
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-9, "reported over true error - 1")


@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_scaling_the_data_scales_the_core(scale):
    X = noise(6, 5, 4)
    assert_close(hooi(X * scale, 2).core / scale, hooi(X, 2).core, factor=1e6)


@pytest.mark.parametrize("shape", [(9, 8), (7, 6, 5), (5, 5, 4, 4), (3, 3, 3, 3, 3, 3)])
def test_a_sweep_takes_two_products_with_the_data(shape, monkeypatch):
    sizes, plain = [], module._project
    monkeypatch.setattr(module, "_project", lambda X, *a: (sizes.append(X.shape), plain(X, *a))[1])
    X = noise(*shape)
    factors = list(tucker(X, 2).factors)
    core = module._sweep(X, factors, range(X.ndim))
    assert_equal(sizes.count(shape), 2)
    assert_below(len(sizes), 2 * len(shape) - 2, "products")
    assert_close(core, tucker_dense(X, [f.T for f in factors]))


def test_a_sweep_that_gains_no_more_than_rounding_is_the_last(make):
    X = make(6, 6, 6)
    for rank, most in ((5, 1000), (6, 2)):
        t = hooi(X, rank, tol=1e-15, max_iter=most)
        assert_equal(t.info.converged, True)
        assert_below(t.info.history[-2] - t.info.rel_error, 100 * make.eps, "last fall of the error")


def test_rounding_shows_more_in_a_difference_of_squares_than_in_a_residual():
    wide, single = np.dtype("float64"), np.dtype("float32")
    least = module._rounding(1e-5, wide)  # of a residual, which is formed below 1e-4
    assert_equal([module._rounding(error, wide) for error in (0.0, 1e-8, 1e-4)], [least] * 3)
    for error in (2e-4, 1e-2, 0.5):
        assert_close(module._rounding(error, wide) * error, least)
    assert_above(module._rounding(1e-5, single), 1e8 * least, "rounding of float32")


def test_a_zero_tensor_and_a_tensor_at_full_rank_are_done_in_one_sweep(make):
    zero = hooi(make(3, 4) * 0, 2)
    assert_equal((zero.info.rel_error, zero.info.converged), (0.0, True))
    X = make(4, 3, 5)
    assert_close(hooi(X, X.shape).to_tensor(), X)


def test_one_to_five_modes(make):
    for shape in ((5,), (6, 5), (1, 4, 5), (3, 2, 3, 2), (2, 3, 2, 3, 2)):
        X = make(*shape)
        t = hooi(X, tuple(min(2, size) for size in shape), tol=1e-3)
        assert_below(abs(t.info.rel_error - true_error(t, X)), 1e-3, f"error for shape {shape}")


@settings(max_examples=20)
@given(st.lists(st.integers(2, 5), min_size=2, max_size=4), st.integers(0, 999))
def test_it_is_never_worse_than_its_start(shape, seed):
    X = noise(*shape, seed=seed)
    ranks = tuple(max(size - 2, 1) for size in shape)
    t = hooi(X, ranks, tol=1e-3)
    assert_below(true_error(t, X), tucker(X, ranks).info.rel_error + 1e-12, "error against tucker")


@pytest.mark.parametrize(
    ("kwargs", "kind", "parts"),
    [
        ({"rank": 9}, RankError, ["hooi:", "mode 1", "3"]),
        ({"rank": 2, "tol": 0}, RankError, ["hooi:", "tol"]),
        ({"rank": 2, "max_iter": 0}, ValueError, ["hooi:", "max_iter", "0"]),
        ({"rank": 2, "init": "svd"}, TypeError, ["hooi:", "str"]),
        (
            {"rank": 2, "init": Tucker(np.ones((1, 1)), [np.ones((9, 1))] * 2)},
            ShapeError,
            ["hooi:", "(9, 3)"],
        ),
        (
            {"rank": 2, "init": Tucker(np.ones((1, 1)), [np.ones((9, 1)), np.ones((3, 1))])},
            ShapeError,
            ["hooi:", "rank (2, 2)", "rank (1, 1)"],
        ),
    ],
)
def test_wrong_settings_are_refused(kwargs, kind, parts):
    with pytest.raises(kind) as error:
        hooi(np.ones((9, 3)), **kwargs)
    assert_says(error, *parts)


def test_a_start_that_is_a_batch_or_not_finite_is_refused():
    X = np.random.default_rng(0).standard_normal((2, 5, 6, 7))
    batch = tucker(X, 3, batch=1)
    with pytest.raises(ShapeError) as error:
        hooi(X[0], 3, init=batch)
    assert_says(error, "hooi:", "init", "batch of shape (2,)")
    broken = Tucker(batch.core[0], [np.full((size, 3), np.nan) for size in (5, 6, 7)])
    with pytest.raises(DataError) as error:
        hooi(X[0], 3, init=broken)
    assert_says(error, "hooi:", "init", "finite")


def test_missing_entries_are_counted_and_located():
    X = np.ones((3, 4))
    X[1, 2] = np.nan
    with pytest.raises(DataError) as error:
        hooi(X, 1)
    assert_says(error, "hooi:", "1 of 12", "(1, 2)", "NaN")
    with pytest.raises(ShapeError):
        hooi(np.ones((3, 0)), 1)
