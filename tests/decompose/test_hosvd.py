"""ST-HOSVD: exactness, tolerance, certified error, dtypes, and every input that must be refused."""

from __future__ import annotations

import tracemalloc
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tenfac import ConvergenceWarning, DataError, RankError, ShapeError, tucker
from tenfac.core import truncate as module
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
from tests.oracles import best_rank_by_mode, smooth, true_error, tucker_dense


def test_full_rank_is_exact_and_keeps_library_and_dtype(make):
    X = make(4, 5, 3)
    t = tucker(X, X.shape)
    assert_close(t.to_tensor(), X)
    for factor in t.factors:
        assert_same_kind(factor, X)
        assert_close(factor.T @ factor, np.eye(factor.shape[0]), like=X)


def test_a_tensor_of_low_rank_is_recovered_exactly(make):
    X = make.asarray(tucker_dense(make(2, 3, 2), [make(9, 2), make(8, 3), make(7, 2)]))
    t = tucker(X, (2, 3, 2))
    assert_close(t.to_tensor(), X)
    assert_below(t.info.rel_error, 20 * make.eps, "certified error")
    assert_equal(tucker(X, tol=1e-5).rank, (2, 3, 2))


def test_the_error_is_between_the_bounds_of_the_hosvd(make):
    X = make(9, 8, 7)
    ranks = (3, 4, 5)
    tails = []
    for n, r in enumerate(ranks):
        s = np.linalg.svd(np.moveaxis(to_numpy(X), n, 0).reshape(X.shape[n], -1), compute_uv=False)
        tails.append(np.sum(s[r:].astype(float) ** 2))
    norm = np.linalg.norm(to_numpy(X))
    error = true_error(tucker(X, ranks), X) * norm
    assert_below(error, np.sqrt(sum(tails)) * 1.0001, "error against the root of all tails")
    assert_above(error, np.sqrt(max(tails)) * 0.9999, "error against the largest tail")


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5, 1e-6, 1e-7, 1e-8, 1e-10, 1e-12, 1e-13, 1e-14])
def test_tolerance_is_kept_with_nearly_the_smallest_ranks(tol):
    X = smooth()
    t = tucker(X, tol=tol)
    assert_below(true_error(t, X), tol, "true error")
    assert_equal(t.info.converged, True)
    for got, best in zip(t.rank, best_rank_by_mode(X, tol), strict=True):
        assert_below(got, best + 1, "rank")


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5, 1e-6])
def test_tolerance_is_kept_in_float32_with_the_ranks_of_float64(make, tol):
    X = make.asarray(smooth())
    t = tucker(X, tol=tol)
    assert_same_kind(t.core, X)
    assert_below(true_error(t, X), tol, "true error")
    assert_equal(t.rank, tucker(smooth(), tol=tol).rank)


@pytest.mark.parametrize("tol", [1e-1, 1e-3, 1e-5, 1e-6, 1e-8, 1e-10, 1e-12, 1e-13])
def test_the_reported_error_is_the_true_error_within_one_percent(tol):
    X = smooth()
    t = tucker(X, tol=tol)
    allowed = 0.01 if tol > 2e-13 else 0.1  # below a thousand eps the truth itself is rounded
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), allowed, "reported over true error - 1")


@pytest.mark.parametrize("rank", [1, 3, 6, 8, 10, 12])
def test_the_reported_error_at_a_given_rank_is_true_and_near_that_of_an_exact_svd(rank):
    X = smooth()
    t = tucker(X, rank)
    true = true_error(t, X)
    assert_below(abs(t.info.rel_error / true - 1), 0.01, "reported over true error - 1")
    with mock.patch.object(module, "_gram_basis", module._qr_basis):
        assert_below(true, 1.01 * true_error(tucker(X, rank), X), "error against that of the QR path")


def test_the_reported_error_is_true_in_float32(make):
    X = make.asarray(smooth())
    for tol in (1e-1, 1e-3, 1e-5, 1e-6):
        t = tucker(X, tol=tol)
        assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")


def test_the_reported_error_of_an_exact_fit_is_neither_zero_nor_above_rounding():
    X = tucker_dense(np.ones((1, 1, 1)), [np.linspace(1, 2, 20)[:, None]] * 3) + smooth(20)
    t = tucker(X, 20)
    assert_below(t.info.rel_error, 1e-14, "reported error")
    low = tucker_dense(np.ones((1, 1)), [np.linspace(1, 2, 30)[:, None]] * 2)
    for t in (tucker(low, 1), tucker(low.astype("float32"), 1)):
        assert_below(t.info.rel_error, 10 * np.finfo(t.dtype).eps, "reported error")
        assert_above(t.info.rel_error, 1e-3 * np.finfo(t.dtype).eps, "reported error")


def test_the_reported_error_at_full_rank_is_the_rounding_and_not_zero(make):
    X = make(12, 11, 10)
    t = tucker(X, X.shape)
    assert_above(t.info.rel_error, true_error(t, X) / 5, "reported error")
    assert_below(t.info.rel_error, true_error(t, X) * 5, "reported error")


def test_rounding_above_the_tolerance_is_said_once():
    with (
        mock.patch.object(module, "_residual2", return_value=1.0),
        pytest.warns(ConvergenceWarning, match=r"above tol=.*Raise tol") as caught,
    ):
        t = tucker(smooth(8), tol=1e-7)
    assert_equal(len(caught), 1)
    assert_equal(caught[0].filename, __file__)
    assert_equal((t.info.converged, len(t.info.warnings)), (False, 1))


def test_unused_error_budget_is_passed_on():
    # modes 0 and 1 need their full rank and lose nothing, so all of the budget is left to mode 2
    mixed = np.linalg.qr(np.random.default_rng(0).standard_normal((12, 12)))[0] * 10.0 ** -np.arange(12)
    tol = 1.1 * np.linalg.norm(mixed[:, 3:]) / np.linalg.norm(mixed)
    assert_equal(tucker(mixed.reshape(4, 3, 12), tol=tol).rank, (4, 3, 3))


def test_complex_data_are_decomposed(make):
    X = make.complex(6, 5, 4)
    assert_close(tucker(X, X.shape).to_tensor(), X)
    t = tucker(X, 3)
    with mock.patch.object(module, "_gram_basis", module._qr_basis):
        assert_below(true_error(t, X), 1.01 * true_error(tucker(X, 3), X), "error against the QR path")
    assert_same_kind(t.core, X)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")
    for factor in t.factors:
        assert_close(to_numpy(factor).conj().T @ to_numpy(factor), np.eye(3), like=to_numpy(factor[:0]))


@pytest.mark.parametrize("dtype", ["int64", "int8", "bool"])
def test_integers_are_decomposed_as_float64(dtype):
    X = (np.arange(60).reshape(3, 4, 5) % 7 > 2).astype(dtype)
    assert_close(tucker(X, (3, 4, 5)).to_tensor(), X.astype("float64"))


def test_one_to_six_modes_and_modes_of_size_one(make):
    for shape in (
        (7,),
        (5, 6),
        (1, 4, 5),
        (4, 1, 1),
        (2, 3, 1, 4),
        (2, 3, 2, 3, 2),
        (2, 1, 2, 3, 2, 2),
        (1, 1),
    ):
        X = make(*shape)
        assert_close(tucker(X, shape).to_tensor(), X)
        t = tucker(X, tol=0.5)
        assert_below(true_error(t, X), 0.5, f"true error for shape {shape}")
        assert_below(abs(t.info.rel_error - true_error(t, X)), 0.01, "reported minus true error")


def test_a_zero_tensor_has_a_zero_core_and_orthonormal_factors(make):
    X = make(3, 4) * 0
    for t, rank in ((tucker(X, tol=0.1), (1, 1)), (tucker(X, (2, 3)), (2, 3))):
        assert_equal(t.rank, rank)
        assert_equal(t.to_tensor(), X)
        assert_equal(t.info.rel_error, 0.0)
        assert_close(t.factors[0].T @ t.factors[0], np.eye(rank[0]), like=X)


@pytest.mark.parametrize("view", ["F", "transposed", "strided", "reversed", "read-only", "memory map"])
def test_memory_layout_does_not_matter_and_the_input_is_left_alone(view, tmp_path):
    X = smooth(12)[:, :10, :8] + np.arange(12)[:, None, None]
    views = {
        "F": lambda: np.asfortranarray(X),
        "transposed": lambda: np.ascontiguousarray(X.transpose(2, 0, 1)).transpose(1, 2, 0),
        "strided": lambda: np.repeat(X, 2, axis=1)[:, ::2],
        "reversed": lambda: np.ascontiguousarray(X[::-1])[::-1],
        "read-only": lambda: np.array(X),
        "memory map": lambda: np.memmap(tmp_path / "x", dtype="float64", mode="w+", shape=X.shape),
    }
    Y = views[view]()
    if view == "memory map":
        Y[...] = X
    if view == "read-only":
        Y.flags.writeable = False
    got, want = tucker(Y, tol=1e-4), tucker(X, tol=1e-4)
    assert_equal(got.rank, want.rank)
    assert_close(got.to_tensor(), want.to_tensor())
    assert_equal(np.asarray(Y), X)


def test_blocks_of_columns_do_not_change_the_result(make):
    X = make.asarray(smooth(20)[:, :15, :18])
    for tol in (1e-3, 1e-6) if make.dtype == "float32" else (1e-3, 1e-9):
        want = tucker(X, tol=tol)
        with mock.patch.object(module, "_COLUMNS", 1):
            got = tucker(X, tol=tol)
        assert_equal(got.rank, want.rank)
        assert_relative(got.to_tensor(), want.to_tensor(), 20 * make.eps + 0.1 * tol)


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e-150, 1e150, 1e200, 1e300])
def test_scaling_the_data_scales_the_core(scale):
    X = smooth(12)
    t = tucker(X * scale, tol=1e-7)
    assert_equal(t.rank, tucker(X, tol=1e-7).rank)
    assert_close(t.to_tensor() / scale, tucker(X, tol=1e-7).to_tensor(), factor=1e4)
    assert_below(t.info.rel_error, 1e-7, "reported error")


def test_extreme_float32_scales_are_decomposed():
    X = smooth(12)
    for scale in (1e-30, 1e30):
        t = tucker((X * scale).astype("float32"), tol=1e-3)
        assert_equal(t.rank, tucker(X, tol=1e-3).rank)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_missing_and_infinite_entries_are_counted_and_located(make, value, word):
    X = to_numpy(make(5, 6, 7)).copy()
    X[0, 1, 4] = X[2, 3, 3] = value
    with pytest.raises(DataError) as error:
        tucker(make.asarray(X), 2)
    assert_says(error, "2 of 210", "(0, 1, 4)", word, "tucker_complete", "FunctionalTucker")


def test_nan_in_complex_data_is_found():
    X = np.ones((2, 2), dtype=complex)
    X[1, 0] = complex(0, np.nan)
    with pytest.raises(DataError) as error:
        tucker(X, 1)
    assert_says(error, "1 of 4", "(1, 0)")


def test_a_rank_above_the_size_is_refused_with_the_mode_and_a_rank_that_fits():
    with pytest.raises(RankError) as error:
        tucker(np.ones((1, 4, 5)), (2, 4, 5))
    assert_says(error, "mode 0", "at most its size, 1", "got 2", "(1, 4, 5)")


def test_ranks_of_numpy_types_are_accepted():
    X = smooth(6)
    for rank in (np.int64(2), np.array([2, 2, 2]), [np.int32(2)] * 3, (2, 2, 2)):
        assert_equal(tucker(X, rank).rank, (2, 2, 2))


@pytest.mark.parametrize(
    "kwargs", [{}, {"rank": 2, "tol": 0.1}, {"rank": 0}, {"rank": -1}, {"rank": [2, 2]}, {"tol": 0}]
)
def test_wrong_rank_and_tol_are_refused(kwargs):
    with pytest.raises(RankError) as error:
        tucker(np.ones((3, 3, 3)), **kwargs)
    assert_says(error, "tucker:")


def test_a_tolerance_below_the_dtype_names_the_one_that_can_be_reached():
    with pytest.raises(RankError) as error:
        tucker(np.ones((3, 3), dtype="float32"), tol=1e-7)
    assert_says(error, "1e-06", "float64")


@pytest.mark.parametrize(
    ("X", "kind"), [(np.float64(3.0), ShapeError), (np.ones((3, 0)), ShapeError), ([[1.0]], TypeError)]
)
def test_what_is_no_tensor_is_refused(X, kind):
    with pytest.raises(kind):
        tucker(X, 1)


def test_the_report_says_how_it_went():
    t = tucker(smooth(10), tol=1e-3)
    assert_says(repr(t.info), "converged", "tolerance met", "rel_error=")
    assert_above(t.info.seconds, 0, "seconds")
    assert_equal(tucker(smooth(10), 2).info.reason, "rank reached")


def test_the_order_of_modes_is_the_cheapest_of_all():
    import itertools

    rng = np.random.default_rng(0)
    for _ in range(50):
        shape = rng.integers(2, 60, 4)
        ranks = [int(rng.integers(1, size + 1)) for size in shape]

        def work(order, shape=shape, ranks=ranks):
            size, total = float(np.prod(shape)), 0.0
            for n in order:
                total += size * (shape[n] + ranks[n])
                size *= ranks[n] / shape[n]
            return total

        best = min(map(work, itertools.permutations(range(4))))
        assert_below(work(module._mode_order(tuple(shape), ranks)), best * (1 + 1e-12), "work")


def test_extra_memory_is_a_fraction_of_the_tensor():
    X = np.random.default_rng(0).standard_normal((120, 120, 120))
    tracemalloc.start()
    tucker(X, 10)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 0.3 * X.nbytes, "peak bytes")


def test_gradients_reach_the_data():
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(smooth(5)[:, :4, :3].copy()).requires_grad_()
    fit = lambda X: (tucker(X, 2).to_tensor() - X).square().sum()  # noqa: E731
    assert torch.autograd.gradcheck(fit, [X])


@settings(max_examples=30)
@given(
    st.lists(st.integers(1, 6), min_size=1, max_size=4),
    st.integers(0, 999),
    st.floats(1e-3, 0.9),
    st.booleans(),
)
def test_any_tolerance_is_kept_and_the_error_certified_for_any_shape(shape, seed, tol, low_rank):
    rng = np.random.default_rng(seed)
    X = rng.standard_normal(shape)
    if low_rank:
        X = X[:1] * np.arange(1, shape[0] + 1).reshape(-1, *[1] * (len(shape) - 1))
    t = tucker(X, tol=tol)
    true = true_error(t, X)
    assert_below(true, tol, "true error")
    assert_below(abs(t.info.rel_error - true), 0.01 * true + 1e-14, "reported minus true error")


@settings(max_examples=30)
@given(st.permutations(range(3)), st.integers(0, 999))
def test_permuting_the_modes_permutes_the_decomposition(order, seed):
    X = np.random.default_rng(seed).standard_normal((4, 5, 6))
    tol = 0.5
    got, want = tucker(X.transpose(order), tol=tol), tucker(X, tol=tol)
    assert_equal(got.rank, tuple(want.rank[n] for n in order))
    assert_relative(got.to_tensor(), want.to_tensor().transpose(order), 1e-10)
