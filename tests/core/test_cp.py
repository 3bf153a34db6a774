"""What only CP has: weights, conversion to Tucker, validation."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tenfac import CP, DataError, ShapeError
from tests.checks import assert_close, assert_equal, assert_says, to_numpy
from tests.oracles import cp_dense


def test_no_weights_means_ones(make):
    factors = [make(3, 2), make(4, 2)]
    t = CP(None, factors)
    assert_equal(t.weights, make.asarray([1.0, 1.0]))
    assert_close(t.to_tensor(), cp_dense(None, factors), like=factors[0])


def test_conversion_to_tucker_keeps_the_tensor(make):
    t = CP(make(3), [make(4, 3), make(2, 3), make(5, 3)])
    assert_equal(t.to_tucker().rank, (3, 3, 3))
    assert_close(t.to_tucker().to_tensor(), cp_dense(t.weights, t.factors), like=t.weights)
    core = np.zeros((3, 3, 3))
    core[range(3), range(3), range(3)] = np.asarray(t.weights)
    assert_close(t.to_tucker().core, core, like=t.weights)


def test_conversion_to_tucker_guards_the_size_of_the_core():
    t = CP(None, [np.ones((2, 50))] * 5)
    with pytest.raises(DataError) as error:
        t.to_tucker(max_bytes=2**20)
    assert_says(error, "to_tucker", "2,500,000,000")


def test_the_norm_of_a_zero_tensor_is_zero(make):
    t = CP(make(2), [make(3, 2), make(4, 2)])
    assert_equal(float((t * 0).norm()), 0.0)


def test_the_norm_of_a_tensor_with_nan_is_nan_and_never_zero(make):
    weights = to_numpy(make(2)).copy()
    weights[1] = np.nan
    t = CP(make.asarray(weights), [make(3, 2), make(4, 2)])
    assert_equal(str(float(t.norm())), "nan")


def test_the_norm_of_what_nearly_cancels_is_that_of_the_rest(make):
    for rest in (0.5, 2.0**-8):
        t = CP(make.asarray([1.0, rest - 1.0]), [make.asarray(np.ones((size, 2))) for size in (1, 2)])
        assert_close(t.norm(), rest * np.sqrt(2.0), like=t.weights, scale=1.0)


@pytest.mark.parametrize("shape", [(7,), (2, 3, 4, 50), (50, 2, 3, 4), (1, 6), (3, 1, 1)])
def test_the_dense_tensor_is_one_product_of_the_smallest_two_parts(make, shape, monkeypatch):
    t, seen, columns = CP(make(2), [make(size, 2) for size in shape]), [], CP._columns
    monkeypatch.setattr(CP, "_columns", lambda *args: seen.append(columns(*args)) or seen[-1])
    assert_close(t.to_tensor(), cp_dense(t.weights, t.factors), like=t.weights)
    splits = [math.prod(shape[:n]) + math.prod(shape[n:]) for n in range(len(shape) + 1)]
    assert_equal(sum(part.shape[0] for part in seen), min(splits))


def test_a_tensor_of_rank_zero_is_zero(make):
    for shape in ((3,), (3, 4), (3, 4, 2)):
        assert_equal(CP(make(0), [make(size, 0) for size in shape]).to_tensor(), make(*shape) * 0)


@pytest.mark.parametrize(
    ("build", "parts"),
    [
        (lambda: CP(None, [np.ones((3, 2)), np.ones((4, 3))]), ["[2, 3]"]),
        (lambda: CP(np.ones(3), [np.ones((3, 2))]), ["(2,)", "(3,)"]),
        (lambda: CP(None, []), ["at least one factor"]),
        (lambda: CP(None, [np.ones(3)]), ["factors[0]", "(3,)"]),
    ],
)
def test_parts_that_do_not_fit_are_refused_with_their_shapes(build, parts):
    with pytest.raises(ShapeError) as error:
        build()
    assert_says(error, "CP:", *parts)
