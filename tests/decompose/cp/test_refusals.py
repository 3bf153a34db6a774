"""What ``cp`` refuses: rank, shape, values, options, and starts that do not fit."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse

from tenfac import CP, DataError, RankError, ShapeError, corcondia, cp
from tests.checks import assert_equal, assert_says, to_numpy

X = np.random.default_rng(0).standard_normal((3, 4, 5))


@pytest.mark.parametrize("rank", [0, -1, 2.0, True, [2, 2, 2], None, "2"])
@pytest.mark.parametrize("data", [X, sparse.coo_array(X)], ids=["dense", "sparse"])
def test_a_rank_that_is_no_positive_integer_is_refused(data, rank):
    with pytest.raises(RankError) as error:
        cp(data, rank)
    assert_says(error, "cp:", "rank must be")


def test_numpy_integers_are_ranks():
    assert_equal(cp(X, np.int64(2), tol=1e-2).rank, 2)


def test_a_rank_above_any_of_the_shape_is_refused_with_the_largest():
    with pytest.raises(RankError) as error:
        cp(X, 13)
    assert_says(error, "at most 12", "(3, 4, 5)", "got 13")


@pytest.mark.parametrize("tol", [0, -1e-3, 1, 2.0, "1e-3", np.nan])
def test_a_tol_outside_0_to_1_is_refused(tol):
    with pytest.raises(RankError) as error:
        cp(X, 2, tol=tol)
    assert_says(error, "cp:", "tol")


@pytest.mark.parametrize(
    ("data", "part"), [(np.ones(4), "two modes"), (np.float64(1), "()"), (np.ones((3, 0, 2)), "(3, 0, 2)")]
)
def test_what_has_fewer_than_two_modes_or_no_entries_is_refused(data, part):
    with pytest.raises(ShapeError) as error:
        cp(data, 1)
    assert_says(error, "cp:", part)


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite")])
def test_missing_and_infinite_entries_are_counted_and_located(make, value, word):
    data = to_numpy(make(3, 4, 5)).copy()
    data[0, 1, 4] = data[2, 3, 3] = value
    with pytest.raises(DataError) as error:
        cp(make.asarray(data), 2)
    assert_says(error, "cp:", "2 of 60", "(0, 1, 4)", word)
    with pytest.raises(DataError) as error:
        cp(sparse.coo_array(data), 2)
    assert_says(error, "cp:", "2 of 60", "(0, 1, 4)", word)


@pytest.mark.parametrize("dtype", ["longdouble", "object"])
def test_a_dtype_that_is_not_supported_is_named(dtype):
    with pytest.raises(DataError) as error:
        cp(np.ones((3, 4, 5)).astype(dtype), 1)
    assert_says(error, "cp:", "float32")


@pytest.mark.parametrize("data", [[[1.0, 2.0]], np.ma.ones((3, 3)), None])
def test_what_is_no_array_is_refused(data):
    with pytest.raises(TypeError):
        cp(data, 1)


@pytest.mark.parametrize(
    ("options", "kind", "part"),
    [
        ({"max_iter": 0}, ValueError, "max_iter"),
        ({"max_iter": 2.5}, ValueError, "max_iter"),
        ({"n_init": 0}, ValueError, "n_init"),
        ({"nonnegative": "yes"}, TypeError, "nonnegative"),
        ({"random_state": "a"}, TypeError, "random_state"),
        ({"random_state": -1}, ValueError, "random_state"),
    ],
)
def test_options_that_are_not_valid_are_named(options, kind, part):
    with pytest.raises(kind) as error:
        cp(X, 2, **options)
    assert_says(error, part)


def test_complex_data_have_no_nonnegative_fit():
    with pytest.raises(DataError) as error:
        cp(X + 1j, 2, nonnegative=True)
    assert_says(error, "nonnegative", "abs(X)")


def given(rank=2, shape=(3, 4, 5), value=1.0):
    return CP(None, [np.full((size, rank), value) for size in shape])


@pytest.mark.parametrize(
    ("init", "kind", "parts"),
    [
        (given(shape=(3, 4, 6)), ShapeError, ["(3, 4, 5)", "(3, 4, 6)"]),
        (given(rank=3), RankError, ["rank 2", "got 3"]),
        (given(value=np.nan), DataError, ["finite"]),
        (given(value=1j), DataError, ["complex"]),
        ("svd", TypeError, ["`init`", "got svd"]),
        (np.ones((3, 4, 5)), TypeError, ["`init`", "ndarray"]),
    ],
)
def test_a_start_that_does_not_fit_is_refused(init, kind, parts):
    with pytest.raises(kind) as error:
        cp(X, 2, init=init)
    assert_says(error, "cp:", *parts)


def test_a_batch_is_no_start_and_has_no_core_consistency():
    batch = CP(None, [np.ones((2, size, 1)) for size in (3, 4, 5)])
    for call, where in [(lambda: cp(X, 1, init=batch), "cp:"), (lambda: corcondia(X, batch), "corcondia:")]:
        with pytest.raises(ShapeError) as error:
            call()
        assert_says(error, where, "batch of shape (2,)")


def test_a_negative_start_of_a_nonnegative_fit_is_refused():
    with pytest.raises(DataError) as error:
        cp(X, 2, init=given(value=-1.0), nonnegative=True)
    assert_says(error, "negative")


def test_a_start_of_another_library_is_refused():
    torch = pytest.importorskip("torch")
    init = CP(None, [torch.ones(size, 2) for size in X.shape])
    with pytest.raises(TypeError) as error:
        cp(X, 2, init=init)
    assert_says(error, "numpy", "torch")
