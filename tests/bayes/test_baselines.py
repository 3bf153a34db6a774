"""The mean of a slice; nearest neighbours are tested with the command line."""

from __future__ import annotations

import numpy as np

from tenfac.bayes.baselines import slice_mean
from tests.checks import assert_close, assert_equal


def test_the_slice_mean_is_that_of_the_best_mode() -> None:
    known = [np.array([0.0, 0, 1, 1, 2]), np.array(["a", "b", "a", "b", "a"])]
    y = np.array([1.0, 1.5, 5.0, 5.5, 9.0])
    found = slice_mean(known, y, [np.array([1.0, 0.0, 7.0]), np.array(["a", "a", "a"])])
    assert_equal(found.mode, 0)
    assert_close(found.mean, np.array([5.25, 1.25, y.mean()]))
    errors = np.array([0.5, 0.5, 0.5, 0.5, 9 - y.mean()])
    assert_close(found.std, float(np.sqrt(np.mean(errors**2))))
