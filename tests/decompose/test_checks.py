"""The door of the room: what arrays and settings pass, and what is said of the others."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import DataError, ShapeError
from tenfac.decompose import checks
from tests.checks import assert_close, assert_equal, assert_says


def test_an_array_gets_a_float_dtype_and_its_squared_norm(make):
    X, norm2 = checks.checked_array(make.asarray([3.0, 4.0]), "f")
    assert_equal(X, make.asarray([3.0, 4.0]))
    assert_close(norm2, 25.0)
    assert_equal(str(checks.checked_array(np.array([3, 4]), "f")[0].dtype), "float64")
    huge, norm2 = checks.checked_array(np.full(3, 1e200), "f")
    assert_equal((huge.tolist(), norm2), ([1e200] * 3, np.inf))
    for shape in ((), (0,), (3, 0)):
        with pytest.raises(ShapeError) as error:
            checks.checked_array(np.ones(shape), "f", "Y")
        assert_says(error, "f: Y", str(shape))


@pytest.mark.parametrize(("value", "word"), [(np.nan, "NaN"), (np.inf, "infinite"), (-np.inf, "infinite")])
def test_entries_that_are_not_finite_are_counted_and_the_first_is_named(make, value, word):
    X = np.ones((3, 4, 5))
    X[1, 2, 3], X[2, 0, 0] = value, np.nan
    with pytest.raises(DataError) as error:
        checks.checked_array(make.asarray(X), "f", "Y")
    assert_says(error, "f: every entry", "Y has 2 of 60", f"at (1, 2, 3) ({word})")
    checks.check_finite(make.asarray(np.ones((2, 2))), "f")


@pytest.mark.parametrize("scale", [1e-160, 1e-3, 1.0, 1e160])
def test_arrays_whose_squares_are_no_numbers_are_divided_by_their_largest(scale):
    X = scale * np.array([[3.0, -4.0], [0.0, 1.0]])
    got, norm2, factor = checks.rescaled(*checks.checked_array(X, "f"))
    ordinary = 1e-100 < scale < 1e100
    assert_close(factor, 1.0 if ordinary else 4 * scale)
    assert_close(got * factor, X)
    assert_close(norm2, float(np.sum(got**2)))
    zeros, norm2, _ = checks.rescaled(np.zeros(3), 0.0)
    assert_equal((zeros.tolist(), norm2), ([0.0] * 3, 0.0))


def test_settings_that_count_are_whole_numbers_from_the_least_on():
    assert_equal(
        [checks.check_count(v, "n", "f", least) for v, least in ((1, 1), (0, 0), (np.int64(7), 7))], [1, 0, 7]
    )
    assert_equal(type(checks.check_count(np.int64(7), "n", "f")), int)
    for value, least in ((0, 1), (-1, 0), (6, 7), (2.0, 1), (True, 1), (np.True_, 1), ("3", 1), (None, 1)):
        with pytest.raises(DataError) as error:
            checks.check_count(value, "n", "f", least)
        assert_says(error, f"f: n must be an integer of {least} or more", repr(value))
