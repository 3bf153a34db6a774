"""Conversions between dtypes, and which results go back to half precision."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.core.arrays import namespace_of
from tenfac.core.precision import astype, half_of, wide
from tests.checks import assert_equal, dtype_name


def test_what_has_the_dtype_is_not_copied_and_no_dtype_leaves_it(make):
    array = make(3)
    xp = namespace_of(array)
    for dtype in (None, array.dtype):
        assert_equal(astype(array, dtype, xp) is array, True)
    assert_equal(dtype_name(astype(array, xp.float32, xp)), "float32")
    assert_equal(
        (dtype_name(wide(array, xp)), dtype_name(wide(make.complex(3), xp))), ("float64", "complex128")
    )


@pytest.mark.parametrize(
    ("dtypes", "want"),
    [
        (("float16",), "float16"),
        (("float16", "float16"), "float16"),
        (("float16", "float32"), None),
        (("float32", "float16"), None),
        (("float32", "float32"), None),
    ],
)
def test_a_result_goes_back_to_half_precision_if_all_of_it_came_from_there(dtypes, want):
    found = half_of(*(np.ones(2, dtype) for dtype in dtypes))
    assert_equal(None if found is None else dtype_name(np.ones(1, found)), want)
