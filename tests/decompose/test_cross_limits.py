"""A budget of evaluations that is kept, and functions that change what they are given."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

from tenfac import tucker_cross
from tests.checks import assert_below, assert_equal, assert_says


def counted(f):
    """The function, and a list that grows by one number per entry read."""
    read = []

    def wrapped(indices):
        read.extend(range(len(indices)))
        return f(indices)

    return wrapped, read


@pytest.mark.parametrize(
    ("shape", "max_evals"), [((30, 30), 900), ((30, 30), 901), ((1, 1), 2), ((7,), 8), ((200, 200), 4000)]
)
def test_no_more_entries_are_read_than_allowed(shape, max_evals):
    f, read = counted(lambda i: 1.0 / (1 + i.sum(axis=1)))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # where the budget is too small for the tolerance, it says so
        t = tucker_cross(f, shape, 1e-6, max_evals=max_evals)
    assert_below(len(read), max_evals, "entries read")
    assert_equal(t.info.n_evals, len(read))


def test_shapes_beyond_the_default_budget_ask_for_one():
    for shape in ((10**6,) * 3, (10,) * 30):
        with pytest.raises(ValueError, match="max_evals") as error:
            tucker_cross(lambda i: np.ones(len(i)), shape, 1e-3)
        assert_says(error, "tucker_cross:", "max_evals", "5,000,000")


def test_a_function_may_change_its_indices():
    def careless(indices):
        indices += 1
        return 1.0 / indices.sum(axis=1)

    t = tucker_cross(careless, (60, 60, 60), 1e-6)
    want = tucker_cross(lambda i: 1.0 / (i + 1).sum(axis=1), (60, 60, 60), 1e-6)
    assert_equal(t.core, want.core)
