"""The parts of a format: what does not fit is named with its place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import CP, DataError, ShapeError, Tucker
from tenfac.core.format_state import finite
from tests.checks import assert_says


def test_the_first_number_that_is_not_finite_is_named_with_its_place(make: Any) -> None:
    bad = np.ones((3, 4))
    bad[1, 2], bad[2, 0], bad[2, 1] = np.nan, np.inf, -np.inf
    with pytest.raises(DataError) as error:
        finite({"core": make(2, 3), "factors.0": make.asarray(bad)}, "round")
    assert_says(error, "round: ", "factors.0 has 3 of 12", "the first at (1, 2)")
    finite({"core": make(2, 3)}, "round")


@pytest.mark.parametrize("batches", [[(2,), (5,)], [(), (2,)], [(2, 1), (2, 3)]])
def test_factors_of_two_batches_are_refused_with_both(batches: list[tuple[int, ...]]) -> None:
    factors = [np.ones((*batch, 3, 1)) for batch in batches]
    for build in (lambda: CP(None, factors), lambda: Tucker(np.ones((1, 1)), factors)):
        with pytest.raises(ShapeError) as error:
            build()
        assert_says(error, "the same batch axes", str(batches))
