"""Reading observed entries: mask, NaN, masked and sparse arrays give the same; what must be refused."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import coo_array, coo_matrix, csr_array

from tenfac import DataError, ShapeError
from tenfac.decompose.completion.observed import observed_entries
from tests.checks import assert_equal, assert_same_kind, assert_says

SHAPE = (4, 5, 6)


def example():
    """Values, where they are observed, and their indices and values in C order."""
    rng = np.random.default_rng(11)
    X, mask = rng.standard_normal(SHAPE), rng.random(SHAPE) < 0.4
    X[1, 2, 3], mask[1, 2, 3] = 0.0, True  # a zero may be observed
    return X, mask, np.nonzero(mask), X[mask]


def assert_reads(entries, indices, values):
    assert_equal(entries.shape, SHAPE)
    for got, want in zip(entries.indices, indices, strict=True):
        assert_equal(np.asarray(got, dtype=np.int64), want.astype(np.int64))
    assert_equal(entries.values, values)


def shuffled(indices, values):
    order = np.random.default_rng(0).permutation(len(values))
    return tuple(index[order] for index in indices), values[order]


def test_mask_nan_and_masked_arrays_give_the_same_entries():
    X, mask, indices, values = example()
    hidden = np.where(mask, X, np.inf)  # what is masked is not read
    for given in [(hidden, mask), (np.where(mask, X, np.nan),), (np.ma.masked_array(hidden, ~mask),)]:
        assert_reads(observed_entries(*given), indices, values)


def test_a_coo_array_of_scipy_in_any_order_gives_the_same_entries_stored_zeros_included():
    _, _, indices, values = example()
    index, value = shuffled(indices, values)
    assert_reads(observed_entries(coo_array((value, index), shape=SHAPE)), indices, values)


def test_a_coo_array_of_sparse_gives_the_same_entries():
    sparse = pytest.importorskip("sparse")
    _, _, indices, values = example()
    index, value = shuffled(indices, values)
    assert_reads(observed_entries(sparse.COO(np.array(index), value, shape=SHAPE)), indices, values)


def test_a_coo_tensor_of_torch_gives_the_same_entries_in_torch():
    torch = pytest.importorskip("torch")
    _, _, indices, values = example()
    index, value = shuffled(indices, values.astype("float32"))
    X = torch.sparse_coo_tensor(
        torch.tensor(np.array(index)), torch.tensor(value), SHAPE, check_invariants=True
    )
    entries = observed_entries(X)
    assert_reads(entries, indices, values.astype("float32").astype(float))
    assert_same_kind(entries.restore(np.ones(2)), torch.ones(2))
    assert_equal(tuple(entries.like.shape), (0,))


@pytest.mark.parametrize("kind", [csr_array, coo_matrix])
def test_sparse_matrices_of_any_layout_are_read(kind):
    entries = observed_entries(kind(([1.0, 2, 3], ([0, 1, 1], [2, 0, 3])), shape=(2, 4)))
    assert_equal([list(index) for index in entries.indices], [[0, 1, 1], [2, 0, 3]])
    assert_equal(list(entries.values), [1.0, 2.0, 3.0])
    assert_equal(entries.like.shape, (0,))  # says the dtype, keeps no values


def test_indices_of_a_shape_too_large_to_number_are_sorted_and_checked_too():
    index, shape = [np.array([7, 0, 7]), np.array([5, 6, 2])], (2**62, 2**62)
    entries = observed_entries(coo_array(([1.0, 2, 3], tuple(index)), shape=shape))
    assert_equal(list(entries.values), [2.0, 3.0, 1.0])
    index[1][2] = 5
    with pytest.raises(DataError, match=r"first at \(7, 5\)"):
        observed_entries(coo_array(([1.0, 2, 3], tuple(index)), shape=shape))


def test_results_go_back_to_the_library_and_dtype_of_the_data(make):
    X = make(3, 4)
    entries = observed_entries(X)
    assert_equal(str(entries.values.dtype), "float64")
    assert_same_kind(entries.restore(np.ones(3)), X)
    assert_equal(tuple(entries.like.shape), (0, 4))
    assert_equal(str(observed_entries(np.arange(6).reshape(2, 3)).restore(np.ones(3)).dtype), "float64")
    assert_equal(str(observed_entries(np.ones((2, 3), "complex64")).restore(np.ones(3)).dtype), "complex64")


@pytest.mark.parametrize("kind", ["dense", "sparse", "numpy"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_read_exactly_and_results_are_float32(kind, dtype):
    torch = pytest.importorskip("torch")
    X = torch.arange(1.0, 7.0).reshape(2, 3)
    given = X.to(getattr(torch, dtype))
    given = given.to_sparse() if kind == "sparse" else given
    given, like = (X.numpy().astype("float16"), X.numpy()) if kind == "numpy" else (given, X)
    entries = observed_entries(given)
    assert_equal(entries.values, np.arange(1.0, 7.0))
    assert_same_kind(entries.restore(np.ones(3)), like)


def test_entries_stored_twice_are_refused_with_their_place():
    X = coo_array(([1.0, 2, 3], ([0, 2, 2], [1, 3, 3], [0, 0, 0])), shape=SHAPE)
    with pytest.raises(DataError) as error:
        observed_entries(X, where="cp_complete")
    assert_says(error, "cp_complete", "stores 1 more than once", "(2, 3, 0)", "Sum or average")


def test_observed_entries_that_are_not_finite_are_refused_with_their_place():
    X, mask, indices, values = example()
    X[1, 2, 3] = np.nan
    with pytest.raises(DataError) as error:
        observed_entries(X, mask)
    assert_says(error, f"1 of {len(values)}", "(1, 2, 3)", "NaN", "False in mask")
    X[1, 2, 3] = np.inf
    with pytest.raises(DataError, match="infinite"):
        observed_entries(X)
    values[3] = np.inf
    with pytest.raises(DataError, match="infinite"):
        observed_entries(coo_array((values, indices), shape=SHAPE))


@pytest.mark.parametrize(
    ("X", "mask", "error", "parts"),
    [
        (np.ones((2, 3)), np.ones((3, 2), bool), ShapeError, ["(2, 3)", "(3, 2)"]),
        (np.ones((2, 3)), np.ones((2, 3)), TypeError, ["booleans", "float64", "(m == 1)"]),
        (np.ones((2, 3)), [[True] * 3] * 2, TypeError, ["booleans", "list"]),
        (np.ones((2, 3)), np.zeros((2, 3), bool), DataError, ["at least one observed entry", "(2, 3)"]),
        (np.full((2, 3), np.nan), None, DataError, ["at least one observed entry"]),
        (coo_array((2, 3)), None, DataError, ["at least one observed entry"]),
        (coo_array(np.eye(2)), np.ones((2, 2), bool), TypeError, ["Leave mask out"]),
        (np.ones(4), None, ShapeError, ["two modes", "(4,)"]),
        (np.ones((4, 0)), None, ShapeError, ["no empty one", "(4, 0)"]),
        (coo_array(([1.0], ([0],)), shape=(4,)), None, ShapeError, ["two modes", "(4,)"]),
        (np.ones((2, 2), "longdouble"), None, DataError, ["float32", "float64"]),
        (np.array([["a", "b"]]), None, DataError, ["dtype"]),
        ([[1.0, 2.0]], None, TypeError, ["array of numbers", "list", "COO"]),
    ],
)
def test_bad_input_is_refused_with_the_remedy(X, mask, error, parts):
    with pytest.raises(error) as caught:
        observed_entries(X, mask, "tucker_complete")
    assert_says(caught, "tucker_complete", *parts)


def test_a_mask_of_another_library_than_numpy_or_that_of_the_data_is_refused():
    torch = pytest.importorskip("torch")
    with pytest.raises(TypeError, match="library of X, numpy; got torch"):
        observed_entries(np.ones((2, 2)), torch.ones(2, 2, dtype=torch.bool))
    entries = observed_entries(torch.ones(2, 2), np.eye(2, dtype=bool))
    assert_equal(entries.size, 2)
