"""The component that a completion can best do without."""

from __future__ import annotations

import numpy as np

from tenfac.decompose.completion.cp import _least_missed
from tests.checks import assert_equal


def rise_without(h: np.ndarray, r: int) -> float:
    """Residual of the sum of the columns when column r is left out and the others are rescaled."""
    rest = np.delete(h, r, axis=1)
    total = h.sum(axis=1)
    return float(np.linalg.norm(total - rest @ np.linalg.lstsq(rest, total, rcond=None)[0]))


def test_the_component_missed_least_is_that_of_the_smallest_rise_of_the_residual():
    found = set()
    for seed in range(40):
        rng = np.random.default_rng(seed)
        shared = rng.standard_normal((30, 1))
        h = (rng.standard_normal((30, 4)) + shared * rng.random(4) * 3) * 10.0 ** rng.uniform(-3, 3, 4)
        want = int(np.argmin([rise_without(h, r) for r in range(4)]))
        assert_equal(_least_missed(h), want)
        found.add(want)
    assert_equal(found, {0, 1, 2, 3})


def test_a_zero_component_is_missed_least():
    h = np.random.default_rng(0).standard_normal((10, 3)) * [1e-9, 0.0, 1.0]
    assert_equal(_least_missed(h), 1)
