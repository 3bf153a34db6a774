"""Entries of a function of indices: which are read, in what batches, and in which units."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError
from tenfac.decompose.sampler import Sampler, checked_shape
from tests.checks import assert_close, assert_equal, assert_same_kind, assert_says

X = np.random.default_rng(0).standard_normal((5, 4, 3))


@pytest.mark.parametrize("batch", [1, 2, 7, 1000])
def test_fibres_grids_and_entries_are_those_of_the_array_in_batches(batch):
    sizes = []

    def f(indices):
        sizes.append(len(indices))
        return X[tuple(indices.T)]

    sampler = Sampler(f, X.shape, batch, "tucker_cross")
    columns = np.array([[4, 2], [0, 1], [3, 0]])
    assert_equal(sampler.fibres(1, columns), np.stack([X[4, :, 2], X[0, :, 1], X[3, :, 0]], axis=1))
    rows = [np.array([4, 1]), np.array([0, 3, 2]), np.array([2])]
    assert_equal(sampler.grid(rows), X[np.ix_(*rows)])
    points = np.array([[4, 3, 2], [0, 0, 1]])
    assert_equal(sampler.entries(points), X[tuple(points.T)])
    assert_equal(sampler.entries(points[:0]), np.empty(0))
    assert_equal((sampler.n_evals, sum(sizes)), (1 + 12 + 6 + 2, 21))
    assert_equal(max(sizes), min(batch, 12))


@pytest.mark.parametrize(
    ("scale", "divided"), [(1.0, False), (1e-90, False), (1e90, False), (1e-150, True), (1e150, True)]
)
def test_values_are_divided_by_the_largest_seen_where_squares_would_be_no_numbers(scale, divided):
    sampler = Sampler(scale * X, X.shape, 100, "tucker_cross", np.random.default_rng(0), 200)
    largest = np.abs(X).max() * scale  # of 60 entries, 200 draws miss it with a chance of 0.03
    assert_close(sampler.scale / largest if divided else sampler.scale, 1.0)
    points = np.array([[1, 2, 0]])
    assert_close(sampler.entries(points) * sampler.scale / scale, X[1, 2, :1])
    assert_equal(sampler.n_evals, 202)
    for count in (0, 1):
        few = Sampler(scale * X, X.shape, 100, "tucker_cross", np.random.default_rng(0), count)
        assert_equal(few.n_evals, 1 + count)
    plain = Sampler(scale * X, X.shape, 100, "tucker_cross")
    assert_equal((plain.scale, plain.n_evals), (1.0, 1))
    assert_equal(Sampler(0 * X, X.shape, 100, "tucker_cross", np.random.default_rng(0), 9).scale, 1.0)


def test_results_come_back_in_the_library_and_precision_of_the_values(make):
    values = make.asarray(X)
    sampler = Sampler(values, X.shape, 100, "tucker_cross")
    assert_equal(sampler.entries(np.array([[1, 2, 0]])).dtype, np.dtype("float64"))
    assert_same_kind(sampler.native(np.ones((2, 2))), values)
    assert_same_kind(sampler.native(np.ones((2, 2)) * 1j), make.complex(2))
    turned = Sampler(make.asarray(X * 1j), X.shape, 100, "tucker_cross")
    assert_equal(turned.grid([np.arange(2)] * 3).dtype, np.dtype("complex128"))


def test_the_first_value_that_is_not_finite_is_named():
    broken = X.copy()
    broken[3, 1, 2], broken[4, 0, 0] = np.inf, np.nan
    with pytest.raises(DataError) as error:
        Sampler(broken, X.shape, 100, "tucker_cross").grid([np.arange(size) for size in X.shape])
    assert_says(error, "it returned inf at (3, 1, 2)")


def test_a_single_size_is_a_shape_and_sizes_are_whole_numbers_of_one_or_more():
    assert_equal((checked_shape(1, "f"), checked_shape([3, np.int64(1)], "f")), ((1,), (3, 1)))
    for shape in ((), 0, (2, 0), (2.0,), "ab"):
        with pytest.raises(ValueError, match="one size of 1 or more"):
            checked_shape(shape, "f")
