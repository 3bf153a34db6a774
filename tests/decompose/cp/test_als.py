"""CP by ALS: recovery, honest errors, invariances, starts, sparse and nonnegative data, and the report."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from tenfac import CP, ConvergenceWarning, corcondia, cp, factor_match_score
from tenfac.decompose.cp import fit as stages
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
from tests.oracles import cp_dense, khatri_rao_dense, true_error, with_noise


def truth(shape=(7, 8, 9), rank=3, seed=0, collinearity=0.0):
    rng = np.random.default_rng([seed, rank])
    cosines = np.full((rank, rank), collinearity) + (1 - collinearity) * np.eye(rank)
    mixed = np.linalg.cholesky(cosines).T
    return CP(None, [np.linalg.qr(rng.standard_normal((size, rank)))[0] @ mixed for size in shape])


def noisy(t, noise=0.1, seed=0):
    return with_noise(cp_dense(t.weights, t.factors), noise, np.random.default_rng([seed, 1]))


# --- what is found ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(7, 8, 9), (45, 44, 43), (5, 4, 3, 6), (3, 4, 3, 5, 3)])
def test_the_terms_of_a_tensor_of_low_rank_are_recovered(make, shape):
    want = truth(shape)
    X = make.asarray(cp_dense(None, want.factors))
    t = cp(X, 3)
    got = CP(to_numpy(t.weights).astype(float), [to_numpy(f).astype(float) for f in t.factors])
    assert_above(factor_match_score(want, got), 0.9999, "factor match score")
    assert_below(true_error(t, X), 100 * make.eps, "true error")
    assert_equal((t.info.converged, t.rank, t.shape), (True, 3, shape))
    for array in (t.weights, *t.factors):
        assert_same_kind(array, X)


@pytest.mark.parametrize("seed", range(3))
def test_nearly_parallel_terms_are_recovered_to_rounding(seed):
    want = truth((20, 21, 22), 6, seed, collinearity=0.97)
    t = cp(cp_dense(None, want.factors), 6)
    assert_below(t.info.rel_error, 1e-12, "relative error")
    assert_above(factor_match_score(want, t), 0.9999, "factor match score")


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_the_default_fit_is_as_good_as_the_best_of_twenty_starts(seed):
    rng = np.random.default_rng(seed)
    X = noisy(CP(None, [rng.standard_normal((30, 10)) for _ in range(3)]), 0.2, seed)
    singles = [quietly(cp, X, 10, n_init=1, random_state=s).info.rel_error for s in range(20)]
    assert_above(max(singles) / min(singles), 1.05, "spread of the starts, or the test shows nothing")
    assert_below(cp(X, 10).info.rel_error, min(singles) * (1 + 1e-4), "relative error")


def test_a_fit_from_the_core_is_a_minimum_of_the_full_problem():
    X = noisy(truth((50, 45, 40), 4), 0.5)
    t = cp(X, 4, tol=1e-9)
    for n, factor in enumerate(t.factors):
        others = [f for m, f in enumerate(t.factors) if m != n]
        design = khatri_rao_dense(others)
        best = np.linalg.lstsq(design, np.moveaxis(X, n, 0).reshape(X.shape[n], -1).T, rcond=None)[0].T
        assert_relative(factor * t.weights, best, 1e-4, f"factor {n} against least squares")


def test_more_terms_than_a_mode_has_rows():
    want = truth((9, 9, 30), 7)
    X = np.einsum("ir,jr,kr->ijk", want.factors[0][:5], want.factors[1][:6], want.factors[2])
    t = cp(X, 7)
    assert_below(t.info.rel_error, 1e-9, "relative error")


@pytest.mark.parametrize("rank", [1, 2, 5])
def test_a_matrix_gives_its_singular_vectors(make, rank):
    X = make(6, 5)
    t = cp(X, rank)
    left, values, right = np.linalg.svd(to_numpy(X).astype(float))
    assert_close(t.weights, values[:rank], like=X)
    want = left[:, :rank] * values[:rank] @ right[:rank]
    assert_relative(t.to_tensor(), want, 100 * make.eps)
    assert_equal(t.info.reason, "exact by SVD")


def test_complex_terms_are_recovered(make):
    factors = [make.complex(size, 2, seed=2) for size in (5, 6, 7)]
    X = make.asarray(cp_dense(None, factors))
    t = cp(X, 2)
    assert_same_kind(t.factors[0], X)
    assert_below(true_error(t, X), 100 * make.eps, "true error")
    want = CP(None, [to_numpy(f).astype(complex) for f in factors])
    got = CP(to_numpy(t.weights).astype(complex), [to_numpy(f).astype(complex) for f in t.factors])
    assert_above(factor_match_score(want, got), 0.9999, "factor match score")


# --- how it is written ------------------------------------------------------------------------------------


def test_columns_have_norm_one_weights_fall_and_signs_are_settled(make):
    t = cp(make.asarray(noisy(truth())), 3)
    weights = to_numpy(t.weights)
    assert (np.diff(weights) <= 0).all()
    assert_above(weights.min(), 0.0, "weights")
    for n, factor in enumerate(map(to_numpy, t.factors)):
        assert_close(np.linalg.norm(factor, axis=0), np.ones(3), like=factor)
        top = factor[np.argmax(np.abs(factor), axis=0), range(3)]
        assert n == 0 or (top > 0).all()


@pytest.mark.parametrize("dtype", ["int64", "bool"])
def test_integers_are_fitted_as_float64(dtype):
    X = (np.arange(60).reshape(3, 4, 5) % 7 > 2).astype(dtype)
    assert_close(cp(X, 2).weights, cp(X.astype("float64"), 2).weights)


@pytest.mark.parametrize("shape", [(8, 9, 10), (42, 41, 40)])
@pytest.mark.parametrize("scale", [1e-300, 1e-160, 1e160, 1e300])
def test_scaling_the_data_scales_the_weights(shape, scale):
    X = noisy(truth(shape))
    t, want = cp(X * scale, 3), cp(X, 3)
    assert_relative(t.weights / scale, want.weights, 1e-5)
    assert_close(t.info.rel_error, want.info.rel_error, factor=1e9)


@pytest.mark.parametrize("scale", [1e-300, 1e-165, 1e-160, 1e160, 1e300])
def test_scaling_a_sparse_array_scales_the_weights(scale):
    X = sparse.coo_array(cp_dense(None, sparse_truth().factors))
    t, want = cp(X * scale, 3), cp(X, 3)
    assert_relative(t.weights / scale, want.weights, 1e-9)
    assert_below(t.info.rel_error, 1e-12, "relative error")
    assert_above(corcondia(X * scale, t), 99.99, "core consistency")
    again = cp(X * scale, 3, init=t)
    assert_relative(again.weights / scale, want.weights, 1e-9)
    assert_equal((again.info.reason, len(again.info.history)), ("exact to rounding", 1))


def test_a_zero_tensor_has_zero_weights(make):
    t = cp(make(3, 4, 5) * 0, 2)
    assert_equal(t.weights, make(2) * 0)
    assert_equal((t.info.rel_error, t.info.converged), (0.0, True))


@pytest.mark.parametrize("view", ["F", "strided", "reversed", "read-only"])
def test_memory_layout_does_not_matter_and_the_input_is_left_alone(view):
    X = noisy(truth((45, 44, 43)))
    Y = {
        "F": lambda: np.asfortranarray(X),
        "strided": lambda: np.repeat(X, 2, axis=1)[:, ::2],
        "reversed": lambda: np.ascontiguousarray(X[::-1])[::-1],
        "read-only": lambda: np.array(X),
    }[view]()
    Y.flags.writeable = view != "read-only"
    assert_relative(cp(Y, 3).to_tensor(), cp(X, 3).to_tensor(), 1e-7)
    assert_equal(np.asarray(Y), X)


@settings(max_examples=8)
@given(st.permutations(range(3)), st.integers(0, 99))
def test_permuting_the_modes_permutes_the_factors(order, seed):
    X = noisy(truth((6, 7, 8), 2, seed), 0.05, seed)
    want = cp(X, 2, tol=1e-10)
    got = cp(X.transpose(order), 2, tol=1e-10)
    back = CP(got.weights, [got.factors[order.index(n)] for n in range(3)])
    assert_above(factor_match_score(want, back), 1 - 1e-6, "factor match score")


# --- the error it reports ---------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0.5, 1e-2, 1e-5, 1e-8, 1e-12, 0.0])
@pytest.mark.parametrize("shape", [(8, 9, 10), (42, 41, 40)])
def test_the_reported_error_is_the_true_error(shape, noise):
    # TensorLy reports sqrt of a difference of squares: never below 1.6e-8, and 0.0 for float32
    X = noisy(truth(shape), noise)
    t = cp(X, 3)
    true = true_error(t, X)
    assert_below(abs(t.info.rel_error - true), 1e-6 * true + 5e-16, "reported minus true error")
    assert_below(true, 1.01 * noise + 1e-14, "true error")


@pytest.mark.parametrize("shape", [(8, 9, 10), (42, 41, 40)])
def test_the_reported_error_of_an_exact_float32_fit_is_neither_zero_nor_above_rounding(shape):
    X = cp_dense(None, truth(shape).factors).astype("float32")
    t = cp(X, 3)
    assert_equal(t.dtype, X.dtype)
    assert_below(t.info.rel_error, 1e-6, "reported error")
    assert_above(t.info.rel_error, 1e-9, "reported error")
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 0.01, "reported over true error - 1")


def test_the_history_falls_to_the_reported_error():
    for shape in ((8, 9, 10), (45, 44, 43)):
        t = cp(noisy(truth(shape)), 3)
        history = np.array(t.info.history)
        assert_equal(len(history), t.info.n_iter)
        assert_below(np.diff(history).max(), 1e-12, "largest rise")
        assert_below(abs(history[-1] / t.info.rel_error - 1), 1e-6, "last over reported error - 1")


def test_a_large_array_that_cannot_be_compressed_is_fitted(make, monkeypatch):
    monkeypatch.setattr(stages, "_SMALL", 10)
    X = make.asarray(noisy(truth((5, 6, 7), 5, 1), 0.01))
    t = cp(X, 5)
    assert_below(true_error(t, X), 0.01, "true error")
    assert_same_kind(t.weights, X)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-4, "reported over true error - 1")


# --- sparse and nonnegative -------------------------------------------------------------------------------


def sparse_truth(seed=0):
    rng = np.random.default_rng(seed)
    return CP(
        None, [np.where(rng.random((n, 3)) < 0.3, rng.standard_normal((n, 3)), 0) for n in (20, 15, 12)]
    )


def test_a_sparse_array_is_fitted_like_the_dense_one():
    X = cp_dense(None, sparse_truth().factors) + np.where(
        np.random.default_rng(1).random((20, 15, 12)) < 0.05, 0.1, 0
    )
    t, dense = cp(sparse.coo_array(X), 3), cp(X, 3)
    assert_below(abs(t.info.rel_error / dense.info.rel_error - 1), 1e-6, "sparse over dense error - 1")
    assert_above(factor_match_score(t, dense), 0.9999, "factor match score")
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")


def test_sparse_terms_are_recovered_in_float32_and_float64():
    want = sparse_truth()
    X = sparse.coo_array(cp_dense(None, want.factors))
    t = cp(X, 3)
    assert_below(t.info.rel_error, 1e-13, "relative error")
    assert_above(factor_match_score(want, t), 0.9999, "factor match score")
    narrow = cp(X.astype("float32"), 3)
    assert_equal((narrow.dtype, narrow.info.rel_error < 1e-6), (np.dtype("float32"), True))


def test_a_sparse_array_is_never_made_dense():
    rng = np.random.default_rng(0)
    X = sparse.coo_array((rng.random(50), tuple(rng.integers(0, 10**5, (3, 50)))), shape=(10**5,) * 3)
    t = quietly(cp, X, 1, n_init=1, max_iter=2)  # 8e15 bytes as a dense array
    assert_equal(t.shape, X.shape)
    assert_below(t.info.rel_error, 1.0, "relative error")
    assert_equal(cp(sparse.coo_array((3, 4, 5)), 2).info.reason, "X is zero")


def test_nonnegative_terms_are_recovered(make):
    rng = np.random.default_rng(0)
    want = CP(None, [np.where(rng.random((n, 3)) < 0.5, rng.random((n, 3)), 0) for n in (12, 13, 14)])
    X = make.asarray(cp_dense(None, want.factors))
    t = cp(X, 3, nonnegative=True, tol=1e-6)
    assert_same_kind(t.weights, X)
    assert_above(min(to_numpy(array).min() for array in (t.weights, *t.factors)), 0, "smallest entry")
    got = CP(to_numpy(t.weights).astype(float), [to_numpy(f).astype(float) for f in t.factors])
    assert_above(factor_match_score(want, got), 0.999, "factor match score")
    assert_below(abs(t.info.rel_error - true_error(t, X)), 1e-6, "reported minus true error")


def test_the_nonnegative_fit_of_mixed_data_is_worse_than_the_free_one_and_no_worse_than_tensorly():
    from tensorly.cp_tensor import cp_to_tensor
    from tensorly.decomposition import non_negative_parafac_hals

    X = noisy(truth((9, 8, 7), 3), 0.3)
    t, free = cp(X, 3, nonnegative=True), cp(X, 3)
    assert_above(t.info.rel_error, free.info.rel_error + 0.01, "nonnegative error")
    assert_above(min(factor.min() for factor in t.factors), 0, "smallest entry")
    other = cp_to_tensor(non_negative_parafac_hals(X, 3, n_iter_max=300))
    assert_below(t.info.rel_error, 1.001 * np.linalg.norm(other - X) / np.linalg.norm(X), "relative error")


def test_a_sparse_array_can_be_fitted_nonnegative():
    rng = np.random.default_rng(0)
    want = CP(None, [np.where(rng.random((n, 2)) < 0.4, rng.random((n, 2)), 0) for n in (12, 13, 14)])
    t = cp(sparse.coo_array(cp_dense(None, want.factors)), 2, nonnegative=True)
    assert_above(factor_match_score(want, t), 0.999, "factor match score")
    assert_above(min(factor.min() for factor in t.factors), 0, "smallest entry")


# --- starts, randomness, report ---------------------------------------------------------------------------


def test_a_start_that_is_given_is_used_and_left_alone(make):
    X = make.asarray(noisy(truth()))
    best = cp(X, 3)
    kept = [to_numpy(array).copy() for array in (best.weights, *best.factors)]
    again = cp(X, 3, init=best)
    assert_below(again.info.n_iter, 4, "sweeps from the solution")
    assert_below(again.info.rel_error, best.info.rel_error * (1 + 1e-6), "relative error")
    for array, before in zip((best.weights, *best.factors), kept, strict=True):
        assert_equal(to_numpy(array), before)
    ones = (None, [make(size, 3, seed=5) for size in X.shape])
    assert_below(true_error(cp(X, 3, init=ones), X), 1.01 * best.info.rel_error, "error from a tuple")


def test_a_nonnegative_start_may_have_zeros_and_is_used():
    rng = np.random.default_rng(0)
    solution = CP(None, [np.where(rng.random((n, 2)) < 0.5, rng.random((n, 2)), 0.0) for n in (8, 7, 6)])
    got = cp(solution.to_tensor(), 2, init=solution, nonnegative=True)
    assert_below(got.info.n_iter, 4, "sweeps from the solution")
    assert_below(got.info.rel_error, 1e-14, "relative error")


def test_a_start_is_used_for_sparse_and_large_arrays_too():
    X = noisy(truth((45, 44, 43)), 0.1)
    for data in (X, sparse.coo_array(X[:9, :9, :9])):
        best = cp(data, 3)
        assert_below(cp(data, 3, init=best).info.n_iter, 4, "sweeps from the solution")


def test_the_same_seed_gives_the_same_numbers_and_global_generators_are_left_alone():
    import torch

    X = np.random.default_rng(0).standard_normal((5, 6, 7))
    np.random.seed(3)  # noqa: NPY002
    state = np.random.get_state()[1].copy()  # noqa: NPY002
    torch_state = torch.get_rng_state()
    runs = [quietly(cp, X, 3, max_iter=30, random_state=s) for s in (0, 0, 1, np.random.default_rng(0))]
    quietly(cp, X, 2, nonnegative=True, max_iter=3)
    assert_equal(runs[0].factors[0], runs[1].factors[0])
    assert_equal(runs[0].factors[0], runs[3].factors[0])
    assert_above(np.abs(runs[0].factors[0] - runs[2].factors[0]).max(), 1e-9, "difference of seeds")
    assert_equal(np.random.get_state()[1], state)  # noqa: NPY002
    assert_equal(torch.get_rng_state(), torch_state)


def test_the_backend_a_user_set_in_tensorly_is_left_alone_in_every_thread():
    import threading

    import tensorly

    found = []

    def read_from_a_fresh_thread():
        thread = threading.Thread(target=lambda: found.append(tensorly.get_backend()))
        thread.start()
        thread.join()

    before = tensorly.get_backend()
    tensorly.set_backend("pytorch")
    try:
        t = cp(noisy(truth()), 2, nonnegative=True)
        read_from_a_fresh_thread()
        found.append(tensorly.get_backend())
    finally:
        tensorly.set_backend(before)
    assert_equal(found, ["pytorch", "pytorch"])
    assert_equal(type(t.weights), np.ndarray)


def test_a_fit_that_is_not_finished_says_which_knob_to_turn():
    X = noisy(truth((8, 9, 10)), 0.5)
    with pytest.warns(ConvergenceWarning, match=r"max_iter=3 .*Raise max_iter or tol") as caught:
        t = cp(X, 3, max_iter=3)
    assert_equal((len(caught), caught[0].filename), (1, __file__))
    assert_equal((t.info.converged, t.info.n_iter, len(t.info.warnings)), (False, 3, 1))
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")


def test_a_tensor_without_best_approximation_is_flagged():
    a, b = np.eye(2)
    outer = lambda *v: np.einsum("i,j,k->ijk", *v)  # noqa: E731
    X = outer(a, a, b) + outer(a, b, a) + outer(b, a, a)  # rank 3, a limit of tensors of rank 2
    with pytest.warns(ConvergenceWarning, match="two-factor degeneracy") as caught:
        t = cp(X, 2)
    assert_equal((len(caught), t.info.converged, t.info.reason), (1, False, "two-factor degeneracy"))
    assert_says(t.info.warnings[0], "components 0 and 1", "lower rank")
    assert_above(t.weights[1], 10 * np.linalg.norm(X), "smaller weight")
    assert_equal(cp(X, 3).info.warnings, ())


def test_nearly_parallel_terms_are_not_called_degenerate():
    t = cp(noisy(truth((20, 21, 22), 4, collinearity=0.95), 0.01), 4)
    assert_equal((t.info.converged, t.info.warnings), (True, ()))


def test_half_precision_is_computed_and_returned_in_float32():
    X = np.einsum("ir,jr,kr->ijk", *(np.random.default_rng(0).random((size, 2)) for size in (5, 6, 7)))
    fit = cp(X.astype("float16"), 2)
    assert_equal(str(fit.dtype), "float32")
    assert_below(fit.info.rel_error, 2e-3, "relative error, near the rounding of float16")
