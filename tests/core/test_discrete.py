"""The discrete mode: gathering rows with checked indices."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, Discrete, ShapeError
from tenfac.core.modes.protocol import Mode
from tests.checks import assert_equal, assert_says


def test_rows_are_gathered_for_lists_and_arrays_of_any_library(make):
    factor = make(4, 2)
    want = make.asarray(np.asarray(factor)[[3, 0, 3]])
    for index in ([3, 0, 3], (3, 0, 3), np.array([3, 0, 3], dtype="uint8"), make.index([3, 0, 3])):
        assert_equal(Discrete(4).rows(factor, index), want)


def test_batch_axes_of_the_factor_lead(make):
    factor = make(2, 3, 4, 2)
    assert_equal(Discrete(4).rows(factor, [1, 1]), factor[..., [1, 1], :])


def test_one_integer_gives_one_row_and_no_integers_give_none(make):
    factor = make(4, 2)
    assert_equal(Discrete(4).rows(factor, 2), factor[2])
    assert_equal(Discrete(4).rows(factor, []), factor[:0])


@pytest.mark.parametrize(
    ("index", "parts"),
    [
        ([0, 4], ["0 to 3", "4"]),
        ([-1], ["0 to 3", "-1", "not wrapped"]),
        ([0.0, 1.0], ["0 to 3", "float64"]),
        ([True, False], ["integer", "bool"]),
        (["a"], ["labels"]),
    ],
)
def test_wrong_indices_are_refused_with_the_allowed_range(make, index, parts):
    with pytest.raises(DataError) as error:
        Discrete(4).rows(make(4, 2), index)
    assert_says(error, *parts)


def test_modes_are_values():
    assert_equal(Discrete(np.int64(3)), Discrete(3))
    assert_equal(len({Discrete(3), Discrete(3), Discrete(4)}), 2)
    assert_equal(Discrete.from_spec(*Discrete(3).spec()), Discrete(3))
    assert Discrete(3).domain is None
    assert_equal(Discrete(0).size, 0)
    assert isinstance(Discrete(3), Mode)


@pytest.mark.parametrize("size", [-1, 2.0, True, "3"])
def test_a_size_that_is_no_count_is_refused(size):
    with pytest.raises(ShapeError) as error:
        Discrete(size)
    assert_says(error, repr(size))
