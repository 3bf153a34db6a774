"""Indices of formats: what is refused, and what a slice copies; values are compared in test_formats."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import CP
from tests.checks import assert_equal, assert_says

T = CP(None, [np.ones((size, 2)) for size in (4, 5, 3)])


@pytest.mark.parametrize(
    ("index", "said"),
    [
        ((..., 0, ...), "only one ellipsis"),
        ((0, 0, 0, 0), "the tensor has 3 modes and got 4"),
        ((0, 0, ..., 0, 0), "the tensor has 3 modes and got 4"),
        ((..., 0, 0, 0, 0, 0), "the tensor has 3 modes and got 5"),
        ((0, 5), "index 5 is out of bounds for mode 1 of size 5"),
        ((..., -4), "index -4 is out of bounds for mode 2 of size 3"),
    ],
)
def test_an_index_that_does_not_fit_is_refused_with_what_is_wrong(index: Any, said: str) -> None:
    with pytest.raises(IndexError) as error:
        T[index]
    assert_says(error, "t[...]: ", said)


def test_slices_that_go_up_share_the_rows_of_the_format() -> None:
    part = T[1:3, ::2, :]
    assert_equal([factor.shape for factor in part.factors], [(2, 2), (3, 2), (3, 2)])
    for got, whole in zip(part.factors, T.factors, strict=True):
        assert np.shares_memory(got, whole)
