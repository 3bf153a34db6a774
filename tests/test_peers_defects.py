"""Defects seen in TensorLy 0.10 (Tucker, CP, formats, operations, backends), each as a fact about tenfac.

All twelve apply to tenfac in the form their heading gives, three of them to something else than in TensorLy:

- 1: there is no ``svd=`` to be ignored; ``randomized_tucker`` is the function that must sketch.
- 5: there are no ``fixed_factors``; factors that are not orthonormal come in as ``init`` of ``hooi``.
- 8: there is no backend to set; what may not leak is the one that TensorLy is called with.

CP: 4 and 9 also in tests/decompose/cp/test_als.py, 11 in test_cp_refusals.py, 12 in test_completion.py.
"""

from __future__ import annotations

import threading
import tracemalloc

import numpy as np
import pytest
import scipy.linalg
import tensorly

import tenfac
from tenfac import (
    CP,
    ConvergenceWarning,
    DataError,
    RankError,
    Tucker,
    cp,
    cp_complete,
    hooi,
    mode_product,
    randomized_tucker,
    tucker,
    tucker_complete,
)
from tenfac.core.arrays import tensorly_backend
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says
from tests.oracles import tucker_dense


def draw(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


def complex_of(*shape):
    return draw(*shape) + 1j * draw(*shape, seed=1)


# 1: the randomised method is used for the start only, every later step is a full factorisation


def test_a_sketch_is_the_largest_thing_that_a_randomised_decomposition_factorises(monkeypatch):
    shorter_sides = []

    def watched(function):
        def run(matrix, *args, **kwargs):
            shorter_sides.append(min(matrix.shape[-2:]))
            return function(matrix, *args, **kwargs)

        return run

    X = draw(300, 280, 3)
    plain = randomized_tucker(X, 2)
    for name in ("svd", "eigh", "eigvalsh", "qr", "cholesky"):
        monkeypatch.setattr(np.linalg, name, watched(getattr(np.linalg, name)))
        monkeypatch.setattr(scipy.linalg, name, watched(getattr(scipy.linalg, name)), raising=False)
    t = randomized_tucker(X, 2)
    assert_equal(t.core, plain.core)
    assert_above(len(shorter_sides), 2, "factorisations seen")
    assert_below(max(shorter_sides), 2 + 8, "shorter side of what is factorised (rank + oversampling)")


# 2: the Gram matrix of the longer side is formed; wrong for complex data


@pytest.mark.parametrize("shape", [(40, 1600), (1600, 40), (3, 2000, 4)])
def test_a_long_mode_beside_short_ones_never_needs_a_matrix_of_its_size_squared(shape):
    X = draw(*shape)
    tracemalloc.start()
    t = tucker(X, 3)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 6 * X.nbytes, f"peak bytes (a square matrix: {8 * max(shape) ** 2})")
    best = np.linalg.svd(X.reshape(shape[0], -1), compute_uv=False)
    if X.ndim == 2:
        assert_close(t.info.rel_error, np.sqrt(np.sum(best[3:] ** 2) / np.sum(best**2)))


@pytest.mark.parametrize("rank", [(3, 30), (3, 4), (3, 40)])
def test_a_rank_above_the_number_of_columns_is_filled_up_with_orthonormal_ones(rank):
    X = draw(3, 40)
    t = tucker(X, rank)
    assert_equal(t.rank, rank)
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(factor.shape[1]))
    assert_close(t.to_tensor(), X)


def test_complex_tensors_are_decomposed_as_well_as_by_an_exact_svd():
    X = complex_of(30, 40)
    values = np.linalg.svd(X, compute_uv=False)
    best = np.sqrt(np.sum(values[5:] ** 2) / np.sum(values**2))
    t = tucker(X, 5)
    assert_close(t.info.rel_error, best, 1e4)
    assert_close(np.linalg.norm(t.to_tensor() - X) / np.linalg.norm(X), best, 1e4)


# 3: a rank above the size gives two equal columns and an error of 1


@pytest.mark.parametrize(("shape", "rank"), [((1, 4, 5), (2, 4, 5)), ((5, 6, 7), (9, 6, 7))])
def test_a_rank_above_the_size_is_refused_and_the_one_that_fits_is_exact(shape, rank):
    X = draw(*shape)
    with pytest.raises(RankError) as error:
        tucker(X, rank)
    fitting = tuple(map(min, rank, shape))
    assert_says(error, str(fitting))
    assert_close(tucker(X, fitting).to_tensor(), X)


# 4: reported errors are roots of differences: 1.6e-8 in float64, 0.0 in float32


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_error_of_an_exact_fit_is_reported_at_the_level_of_rounding(dtype):
    X = tucker_dense(draw(2, 2, 2), [draw(n, 2) for n in (9, 8, 7)]).astype(dtype)
    error = tucker(X, 2).info.rel_error
    assert_below(error, 20 * np.finfo(dtype).eps, "reported error")
    assert_above(error, 1e-3 * np.finfo(dtype).eps, "reported error")


@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_the_error_of_an_exact_cp_fit_is_reported_at_the_level_of_rounding(dtype):
    X = tucker_dense(np.array([[[2.0]]]), [draw(n, 1) for n in (9, 8, 7)]).astype(dtype)
    error = cp(X, 1).info.rel_error
    assert_below(error, 20 * np.finfo(dtype).eps, "reported error")
    assert_above(error, 1e-3 * np.finfo(dtype).eps, "reported error")


# 5: a fixed factor that is not orthonormal gives a result worse than zero


def test_a_start_that_is_not_orthonormal_gives_orthonormal_factors_and_the_true_error():
    X = draw(7, 6, 5)
    skewed = [draw(n, 2) @ np.array([[100.0, 99.0], [0.0, 0.01]]) for n in X.shape]
    t = hooi(X, 2, init=Tucker(np.zeros((2, 2, 2)), skewed), max_iter=500)
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(2))
    assert_close(t.info.rel_error, np.linalg.norm(t.to_tensor() - X) / np.linalg.norm(X))
    assert_below(t.info.history[0], 1.0, "error of the start, against zero")
    assert_below(t.info.rel_error, 0.9, "error")
    assert_equal(sorted(t.info.history, reverse=True), list(t.info.history))


# 6: no arithmetic, no ndim, dtype or hash; norm forms the full tensor


def test_a_format_has_arithmetic_facts_and_a_norm_that_never_forms_the_tensor():
    t = Tucker(draw(4, 4, 4), [draw(200, 4, seed=n) for n in range(3)])
    assert_equal((t.ndim, t.dtype, t.shape), (3, np.dtype("float64"), (200, 200, 200)))
    assert_equal(len({t, t + t, 2 * t, -t, t * t, t - t}), 6)
    tracemalloc.start()
    t.norm()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 200**3 * 8 / 500, "peak bytes")


# 7: a mode product with a vector changes the caller's tensor, prints, and leaves a stale shape


@pytest.mark.parametrize("cls", [Tucker, CP])
def test_contracting_a_mode_changes_nothing_of_the_tensor_and_prints_nothing(cls, capsys):
    first = draw(2, 2, 2) if cls is Tucker else draw(2)
    factors = [draw(n, 2) for n in (3, 4, 5)]
    t = cls(first, factors)
    small = t.contract({1: draw(4)})
    t.mode_product(draw(6, 4), 1)
    assert_equal((small.shape, t.shape, len(factors)), ((3, 5), (3, 4, 5), 3))
    for mine, given in zip(t.factors, factors, strict=True):
        assert mine is given
    assert_equal(capsys.readouterr().out, "")


def test_a_format_does_not_follow_changes_of_the_list_it_was_made_from():
    factors = [draw(3, 2), draw(4, 2)]
    t = CP(None, factors)
    factors.pop()
    assert_equal(t.ndim, 2)


# 8: leaving a nested context writes the backend of all threads


def test_the_backend_that_tensorly_is_called_with_is_seen_by_no_other_thread():
    torch = pytest.importorskip("torch")
    seen = []

    def look():
        thread = threading.Thread(target=lambda: seen.append(tensorly.get_backend()))
        thread.start()
        thread.join()

    with tensorly_backend(torch.ones(1)):
        look()
        with tensorly_backend(np.ones(1)), tensorly_backend(torch.ones(1)):
            look()
        look()
        seen.append(tensorly.get_backend())
    look()
    CP(None, [torch.ones(3, 2)] * 2).to_tensorly()
    look()
    seen.append(tensorly.get_backend())
    assert_equal(seen, ["numpy", "numpy", "numpy", "pytorch", "numpy", "numpy", "numpy"])


# 9: sparse input raises about an unexpected keyword


def test_sparse_arrays_are_decomposed_and_refused_by_name_where_they_are_no_operand():
    import scipy.sparse

    found = [scipy.sparse.csr_array(np.eye(3)), scipy.sparse.csr_matrix(np.eye(3))]
    sparse = pytest.importorskip("sparse")
    torch = pytest.importorskip("torch")
    mode_product(torch.eye(3), torch.eye(3), 0)  # the type is known: sparse tensors have the same
    found += [sparse.COO.from_numpy(np.eye(3)), torch.eye(3).to_sparse()]
    for X in found:
        for call in (lambda X=X: mode_product(X, X, 0), lambda X=X: CP(None, [X])):
            with pytest.raises(TypeError) as error:
                call()
            assert_says(error, "sparse", type(X).__name__, "toarray")
        assert_equal(tucker(X, 1).rank, (1, 1))


# 10: ranks as numpy integers and arrays fail, 0, -1 and a short tuple are accepted


@pytest.mark.parametrize("rank", [0, -1, (2, 2), (2, 2, 0), 2.0, True, "2", None])
def test_ranks_that_are_none_are_refused_before_anything_is_computed(rank):
    with pytest.raises(RankError) as error:
        tucker(draw(3, 3, 3), rank)
    assert_says(error, "tucker:")


def test_ranks_as_integers_of_numpy_are_the_same_as_those_of_python():
    X = draw(3, 4, 5)
    for rank in (np.int64(2), np.uint8(2), np.array(2), np.array([2, 2, 2]), [np.int32(2), 2, 2]):
        assert_equal(tucker(X, rank).core, tucker(X, 2).core)
    assert_equal(cp(X, np.int64(1)).weights, cp(X, 1).weights)


# 11: NaN ends in LinAlgError, half precision in errors of the backend


@pytest.mark.parametrize("decompose", [tucker, cp, hooi, randomized_tucker])
def test_half_precision_is_decomposed_and_nan_in_it_refused(decompose):
    X = tucker_dense(draw(1, 1, 1), [draw(n, 1) for n in (6, 5, 4)]).astype("float16")
    t = decompose(X, 1)
    assert_below(
        np.linalg.norm(t.to_tensor() - X.astype("f4")) / np.linalg.norm(X.astype("f4")), 5e-3, "error"
    )
    X[1, 2, 3] = np.nan
    with pytest.raises(DataError) as error:
        decompose(X, 1)
    assert_says(error, "(1, 2, 3)", "NaN", "cp_complete")


def test_nan_and_infinity_are_counted_before_any_factorisation():
    X = draw(4, 4)
    X[1, 2], X[3, 3] = np.nan, np.inf
    with pytest.raises(DataError) as error:
        tucker(X, 2)
    assert_says(error, "2 of 16", "(1, 2)", "NaN")


# 12: masked runs report an error over imputed data


@pytest.mark.parametrize("complete", [cp_complete, tucker_complete])
def test_the_reported_error_is_that_of_observed_entries_and_of_nothing_else(complete):
    X = tucker_dense(draw(2, 2, 2), [draw(n, 2) for n in (14, 13, 12)]) + 0.1 * draw(14, 13, 12)
    mask = np.random.default_rng(4).random(X.shape) < 0.5
    X[~mask] = 1e6  # never read
    t = complete(X, 4 if complete is cp_complete else 2, mask=mask)
    misfit = (t.to_tensor() - X)[mask]
    assert_close(t.info.rel_error, np.linalg.norm(misfit) / np.linalg.norm(X[mask]), 1e5)
    assert_above(t.info.rel_error, 0.01, "error of noise")


@pytest.mark.parametrize("complete", [cp_complete, tucker_complete])
def test_a_masked_fit_that_does_not_predict_is_never_called_converged(complete):
    X = draw(10, 9, 8)
    mask = np.random.default_rng(5).random(X.shape) < 0.3
    with pytest.warns(ConvergenceWarning, match="held-out"):
        t = complete(X, 3, mask=mask)
    assert_equal(t.info.converged, False)


def test_a_masked_array_is_refused_wherever_its_mask_would_be_lost():
    X = np.ma.masked_invalid(np.array([[1.0, np.nan], [2.0, 3.0]]))
    for call in (lambda: tucker(X, 1), lambda: mode_product(X, X, 0), lambda: Tucker(X, [X, X])):
        with pytest.raises(TypeError) as error:
            call()
        assert_says(error, "MaskedArray")


# Survivors of a mutation check of TensorLy's own Tucker tests


def test_an_error_that_is_always_zero_and_a_narrower_dtype_would_be_found():
    X = draw(6, 5, 4)
    t = tucker(X, 2)
    assert_above(t.info.rel_error, 0.1, "error of noise at rank 2")
    assert_equal({str(array.dtype) for array in (t.core, *t.factors)}, {"float64"})
    assert_above(tucker(X, 1).info.rel_error, t.info.rel_error, "error at a smaller rank")


def test_every_public_function_of_the_core_leaves_its_input_untouched():
    X, A = draw(4, 5, 3), draw(2, 5)
    before = X.copy(), A.copy()
    tucker(X, 2)
    tucker(X, tol=1e-3)
    tucker(X, 2, batch=1)
    mode_product(X, A, 1)
    tenfac.khatri_rao([A, A])
    CP(None, [A, A]).at(0, 0)
    many = np.zeros(5000, dtype=int)
    CP(None, [A, A, A]).at(many, many, many)
    assert_equal(X, before[0])
    assert_equal(A, before[1])
