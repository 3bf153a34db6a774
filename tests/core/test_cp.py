"""What only CP has: weights, conversion to Tucker, validation."""

from __future__ import annotations

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
