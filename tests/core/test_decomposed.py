"""What is taken for a decomposed tensor that is no format, and what to pass in the place of no array."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tenfac import CP
from tenfac.core.decomposed import array_instead, is_pair, is_tensorly
from tests.checks import assert_equal, assert_says

A, B = np.ones((3, 2)), np.ones((4, 2))


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ((np.ones((2, 2)), [A, B]), True),
        ((np.ones(2), (A, B)), True),
        ((None, [A]), True),
        ([None, [A, B]], False),
        ((None, [A, B], 1), False),
        ((None,), False),
        ((None, A), False),
        ((None, []), False),
        ((None, [A, np.ones(2)]), False),
        ((None, [A, 1.0]), False),
        ((2.0, [A, B]), False),
        ((SimpleNamespace(ndim=1), [A]), False),
        ((SimpleNamespace(dtype="float64"), [A]), False),
        ((1.0, 2.0), False),
    ],
    ids=str,
)
def test_a_pair_is_a_core_or_weights_and_matrices(value: Any, known: bool) -> None:
    assert_equal(is_pair(value), known)


def test_tensors_of_tensorly_are_known_by_their_class() -> None:
    homes = {"CPTensor": "tensorly.cp_tensor", "Tucker": "tensorly.decomposition", "Tensor": "torch"}
    theirs, estimator, array = (type(name, (), {"__module__": home})() for name, home in homes.items())
    assert_equal(is_tensorly(theirs), True)
    for other in (estimator, array, CP(None, [A, B]), (None, [A, B]), A):
        assert_equal(is_tensorly(other), False)


@pytest.mark.parametrize(
    ("value", "remedy"),
    [
        (CP(None, [A, B]), "x.to_tensor()"),
        (SimpleNamespace(to_tensor=3), "Load or make the array"),
        ((None, [A, B]), "from_tensorly(x).to_tensor()"),
        ((1.0, 2.0), "numpy.asarray(x)."),
        ([1.0], "numpy.asarray(x)."),
        (SimpleNamespace(__array__=None), "numpy.asarray(x)."),
        ("x.npy", "Load or make the array"),
        (None, "Load or make the array"),
    ],
    ids=str,
)
def test_the_way_to_an_array_depends_on_what_there_is(value: Any, remedy: str) -> None:
    assert_says(array_instead(value), remedy)
