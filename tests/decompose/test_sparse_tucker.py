"""Tucker of sparse arrays: the numbers of the dense decomposition, in the memory of the entries."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from scipy.sparse import coo_array, coo_matrix, csr_array

from tenfac import DataError, RankError, ShapeError, hooi, tucker
from tenfac.decompose import sparse_input
from tenfac.decompose import sparse_tucker as module
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


def scattered(shape=(30, 25, 20), n=400, seed=0):
    rng = np.random.default_rng(seed)
    X = np.zeros(shape)
    X[tuple(rng.integers(size, size=n) for size in shape)] = rng.standard_normal(n) + 2
    return X


def of_low_rank(shape=(60, 50, 40), seed=0):
    """Rank (3, 2, 2), nine of ten rows of every mode zero."""
    rng = np.random.default_rng(seed)
    factors = [
        rng.standard_normal((size, r)) * (rng.random((size, 1)) < 0.2)
        for size, r in zip(shape, (3, 2, 2), strict=True)
    ]
    return tucker_dense(rng.standard_normal((3, 2, 2)), factors)


@pytest.fixture(params=["Gram", "Lanczos"])
def path(request, monkeypatch):
    """Both ways to the singular vectors."""
    if request.param == "Lanczos":
        monkeypatch.setattr(module, "_GRAM", 0)
    return request.param


@pytest.mark.parametrize("shape", [(40, 30), (30, 25, 20), (12, 10, 9, 8), (6, 7, 5, 4, 3)])
def test_the_error_is_that_of_the_dense_decomposition_and_reported_true(shape, path):
    X = scattered(shape)
    t = tucker(coo_array(X), 3)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")
    assert_below(true_error(t, X), 1.02 * tucker(X, 3).info.rel_error, "error against dense ST-HOSVD")
    assert_below(hooi(X, 3, tol=1e-3).info.rel_error, true_error(t, X) + 1e-12, "error of HOOI")
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(3))


def test_a_low_rank_is_recovered_from_its_entries(path):
    X = of_low_rank()
    t = tucker(coo_array(X), (3, 2, 2))
    assert_relative(t.to_tensor(), X, 1e-10)
    assert_equal(t.info.rel_error, 1e-7)
    assert_equal(tucker(coo_array(X), tol=1e-5).rank, (3, 2, 2))


@pytest.mark.parametrize("tol", [0.5, 0.1, 1e-3])
def test_the_tolerance_is_kept(tol, path):
    X = scattered() + 5 * of_low_rank((30, 25, 20))
    t = tucker(coo_array(X), tol=tol)
    assert_below(true_error(t, X), tol, "true error")
    for got, best in zip(t.rank, best_rank_by_mode(X, tol / np.sqrt(3)), strict=True):
        assert_below(got, best, "rank against what an even share of the error needs")


def test_full_rank_is_exact():
    X = scattered((6, 7, 5), 60)
    t = tucker(coo_array(X), X.shape)
    assert_close(t.to_tensor(), X, factor=1e3)
    assert_below(t.info.rel_error, 0.9e-7, "reported error")
    t = tucker(coo_array(X), tol=1e-6)
    assert_equal((t.rank, t.info.rel_error), (X.shape, 1e-7))  # the least that is said of a tolerance


def test_ranks_above_what_the_entries_span_are_completed_to_orthonormal_factors():
    X = np.zeros((9, 8, 7))
    X[2, 3, 4], X[5, 3, 1] = 2.0, 3.0
    for dense in (X, 0 * X):
        t = tucker(coo_array(dense), (4, 3, 5))
        assert_equal(t.rank, (4, 3, 5))
        assert_close(t.to_tensor(), dense, scale=3.0)
        assert_equal(t.info.rel_error, 1e-7 if dense.any() else 0.0)
        for factor in t.factors:
            assert_close(factor.T @ factor, np.eye(factor.shape[1]))


def test_a_mode_of_one_row_and_no_entries_has_orthonormal_factors():
    t = tucker(coo_array((1, 3)), (1, 2))
    assert_equal(t.to_tensor(), np.zeros((1, 3)))
    assert_equal(t.info.rel_error, 0.0)
    for factor in t.factors:
        assert_close(factor.T @ factor, np.eye(factor.shape[1]))


def test_every_kind_of_sparse_array_gives_the_same():
    X = scattered((12, 10), 40)
    want = tucker(coo_array(X), 3).to_tensor()
    for kind in (csr_array, coo_matrix):
        assert_close(tucker(kind(X), 3).to_tensor(), want, factor=1e4)
    sparse = pytest.importorskip("sparse")
    for kind in (sparse.COO.from_numpy, sparse.GCXS.from_numpy):
        assert_close(tucker(kind(X), 3).to_tensor(), want, factor=1e4)
    torch = pytest.importorskip("torch")
    t = tucker(torch.from_numpy(X).to_sparse(), 3)
    assert_close(t.to_tensor(), torch.from_numpy(want), factor=1e4)


def test_entries_given_twice_are_summed_wherever_they_stand():
    places = np.array([[0, 0, 0], [0, 1, 0], [1, 0, 0], [0, 0, 0], [0, 1, 0], [0, 0, 1]])
    values = np.array([1.0, 2.0, 4.0, 8.0, 16.0, 32.0])
    indices, found = sparse_input._distinct(places, values)
    assert_equal(indices.tolist(), [[0, 0, 0], [0, 0, 1], [0, 1, 0], [1, 0, 0]])
    assert_equal(found.tolist(), [9.0, 32.0, 18.0, 4.0])


def test_only_arrays_that_store_few_entries_are_sparse():
    torch, sparse = pytest.importorskip("torch"), pytest.importorskip("sparse")
    X = scattered((4, 5), 6)
    for array in (coo_array(X), torch.from_numpy(X).to_sparse(), sparse.COO.from_numpy(X)):
        assert_equal(sparse_input.is_sparse(array), True)
    for array in (X, torch.from_numpy(X), [1.0], "sparse"):
        assert_equal(sparse_input.is_sparse(array), False)


def test_entries_given_twice_are_summed_and_the_dtype_is_kept():
    twice = coo_array((np.array([1, 2], dtype="float32"), ([0, 0], [1, 1], [2, 2])), shape=(3, 4, 5))
    t = tucker(twice, 1)
    assert_same_kind(t.core, np.ones(1, dtype="float32"))
    assert_close(t.at(0, 1, 2)[()] * 1.0, 3.0)
    assert_equal(str(tucker(coo_array(np.eye(3, dtype=int)), 2).dtype), "float64")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_of_torch_is_decomposed_and_returned_in_float32(dtype):
    torch = pytest.importorskip("torch")
    X = torch.from_numpy(scattered((6, 7, 5), 60)).to(getattr(torch, dtype))
    t = tucker(X.to_sparse(), (6, 7, 5))
    assert_close(t.to_tensor(), X.to(torch.float32))


def test_complex_entries_are_decomposed():
    X = scattered((12, 10, 8), 60) + 1j * scattered((12, 10, 8), 60)
    t = tucker(coo_array(X), 4)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")
    assert_below(true_error(t, X), 1.02 * tucker(X, 4).info.rel_error, "error against dense ST-HOSVD")


@pytest.mark.parametrize("scale", [1e-300, 1e300])
def test_scaling_the_entries_scales_the_core(scale):
    X = scattered((9, 8, 7), 30)
    assert_relative(
        tucker(coo_array(X * scale), 2).to_tensor() / scale, tucker(coo_array(X), 2).to_tensor(), 1e-9
    )


def test_a_tensor_of_terabytes_is_decomposed_in_the_memory_of_its_entries():
    shape, n, rank = (15_000, 14_000, 10_000), 20_000, 3
    rng = np.random.default_rng(0)
    places = tuple(rng.integers(size, size=n) for size in shape)
    X = coo_array((rng.standard_normal(n), places), shape=shape)
    X.data[:3], X.coords[0][:3] = [90.0, 80.0, 70.0], [1, 2, 3]
    tracemalloc.start()
    t = tucker(X, rank)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert_below(peak, 60e6, "peak bytes")
    assert_relative(t.at(*(c[:3] for c in X.coords)), np.array([90.0, 80.0, 70.0]), 0.1)


def test_what_would_not_fit_is_refused_with_its_size(monkeypatch):
    monkeypatch.setattr(module, "_MAX_BYTES", 1000)
    with pytest.raises(DataError) as error:
        tucker(coo_array(scattered()), 5)
    assert_says(error, "tucker:", "bytes", "lower the rank")


def test_wrong_input_is_refused():
    X = coo_array(scattered((9, 8, 7), 30))
    for kwargs in ({"rank": 9}, {"tol": 1e-8}, {}, {"rank": 1, "tol": 0.1}):
        with pytest.raises(RankError) as error:
            tucker(X, **kwargs)
        assert_says(error, "tucker:")
    X.data[0] = np.nan
    with pytest.raises(DataError) as error:
        tucker(X, 1)
    assert_says(error, "1 of 29", "finite")
    with pytest.raises(ShapeError):
        tucker(coo_array((3, 0)), 1)
    sparse = pytest.importorskip("sparse")
    with pytest.raises(DataError) as error:
        tucker(sparse.COO.from_numpy(np.ones((2, 2)), fill_value=1), 1)
    assert_says(error, "fill_value=1")


@pytest.mark.parametrize("kwargs", [{"tol": 0.9}, {"rank": 60}])
def test_equal_singular_values_of_a_side_too_long_for_a_first_gram_matrix(kwargs, monkeypatch):
    monkeypatch.setattr(module, "_GRAM", 100)
    X = np.eye(300)
    t = tucker(coo_array(X), **kwargs)
    assert_below(abs(t.info.rel_error / true_error(t, X) - 1), 1e-6, "reported over true error - 1")
    assert_below(t.info.rel_error, max(kwargs.get("tol", 0), np.sqrt(0.8)), "error")
    assert_below(min(t.rank), 60, "smaller rank")


def test_many_singular_vectors_come_from_the_gram_matrix_at_once(monkeypatch):
    asked, lanczos = [], module._by_lanczos
    monkeypatch.setattr(module, "_GRAM", 0)
    monkeypatch.setattr(module, "_MOST", 32)
    monkeypatch.setattr(module, "_by_lanczos", lambda X, n: (asked.append(n), lanczos(X, n))[1])
    X = scattered((200, 180), 5_000) - 2 * (scattered((200, 180), 5_000) != 0)
    t = tucker(coo_array(X), tol=0.3)
    assert_below(true_error(t, X), 0.3, "true error")
    assert_above(min(t.rank), 33, "smaller rank")
    assert_equal(max(asked), 16)


@pytest.mark.parametrize(
    ("kwargs", "kind", "remedy"), [({"tol": 0.9}, RankError, "Raise tol"), ({"rank": 60}, DataError, "Lower")]
)
def test_a_gram_matrix_that_does_not_fit_is_refused(kwargs, kind, remedy, monkeypatch):
    def fails(*_):  # as it may, and may not, where singular values are equal: ARPACK draws when it restarts
        raise module.ArpackError(-9)

    monkeypatch.setattr(module, "_GRAM", 100)
    monkeypatch.setattr(module, "_MAX_BYTES", 2_000_000)
    monkeypatch.setattr(module, "_by_lanczos", fails)
    with pytest.raises(kind) as error:
        tucker(coo_array(np.eye(300)), **kwargs)
    assert_says(error, "tucker:", "300 x 300", "2,160,000 bytes", remedy)


def test_unfoldings_of_more_columns_than_integers_count_are_decomposed():
    shape, index = (256,) * 9, np.array([[3] * 9, [200] * 9, [3] * 8 + [7]])
    X = coo_array(([3.0, 2.0, 4.0], tuple(index.T)), shape=shape)
    t = tucker(X, tol=1e-6)
    assert_equal(t.rank, (2,) * 9)
    assert_close(t.at(*index.T), np.array([3.0, 2.0, 4.0]), 1e4)
    assert_close(float(t.norm()), float(np.sqrt(29)), 1e4)


@pytest.mark.parametrize(
    ("shape", "rank"), [((9, 30, 8), 2), ((30, 9, 8), 2), ((9, 8, 30), 2), ((9, 9, 9), (8, 7, 1))]
)
def test_the_mode_that_leaves_fewest_numbers_goes_first(shape, rank, monkeypatch):
    X = coo_array(scattered(shape, 40))
    sizes, step = [], module._step
    monkeypatch.setattr(module, "_step", lambda *a: (sizes.append(a[2].size), step(*a))[1])
    ranks = tucker(X, rank).rank
    counts = [len(np.unique(np.delete(np.array(X.coords), n, axis=0), axis=1).T) for n in range(3)]
    assert_equal(sizes[1], min(count * r for count, r in zip(counts, ranks, strict=True)))


def test_the_unfolding_has_its_entries_in_their_rows_and_columns():
    row, column, block = np.array([2, 0, 2, 1]), np.array([1, 0, 0, 1]), np.arange(1.0, 9.0).reshape(4, 2)
    want = np.zeros((3, 4))
    for i, j, pair in zip(row, column, block, strict=True):
        want[i, 2 * j : 2 * j + 2] = pair
    assert_equal(module._unfolding(row, column, block, 3, 2).toarray(), want)


@pytest.mark.parametrize(("columns", "width"), [(2**31, 1), (2**30, 4), (5, 2)])
def test_the_unfolding_may_have_more_columns_than_small_integers_count(columns, width):
    block = np.arange(1.0, width + 1)[None]
    matrix = module._unfolding(np.array([1]), np.array([columns - 1]), block, 2, columns).tocoo()
    assert_equal((matrix.shape, matrix.row.tolist()), ((2, columns * width), [1] * width))
    assert_equal(matrix.col.tolist(), list(range((columns - 1) * width, columns * width)))


@pytest.mark.parametrize("shape", [(6, 9), (9, 6)])
@pytest.mark.parametrize("lanczos", [True, False])
def test_as_many_singular_vectors_are_kept_as_carry_the_energy(shape, lanczos, monkeypatch):
    rng = np.random.default_rng(0)
    left, right = (np.linalg.qr(rng.standard_normal((size, 4)))[0] for size in shape)
    squares = np.array([8.0, 4.0, 2.0, 1.0])
    matrix = csr_array(left * np.sqrt(squares) @ right.T)
    monkeypatch.setattr(module, "_GRAM", 0 if lanczos else 100)
    monkeypatch.setattr(module, "_FIRST", 1)
    monkeypatch.setattr(module, "_PART", 1)
    for enough2, rank in ((0.1, 1), (7.9, 1), (8.1, 2), (12.1, 3), (13.9, 3), (14.1, 4), (14.9, 4)):
        basis = module._leading(matrix, None, enough2)
        assert_equal(basis.shape, (shape[0], rank))
        assert_below(np.abs(basis @ basis.T - left[:, :rank] @ left[:, :rank].T).max(), 1e-6, "distance")
    assert_equal(module._leading(matrix, 2, 0.0).shape, (shape[0], 2))
