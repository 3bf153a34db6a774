"""The bent axis: a scaled asinh, whatever the unit of the index."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac.core.errors import DataError
from tenfac.core.modes.bend import Bend, seen_at
from tests.checks import assert_below, assert_close, assert_equal, assert_says
from tests.processes import PERIODIC

X = np.array([-3.0, -2.0, -1.5, 0.0, 0.9, 2.0, 2.5])  # beyond, at the ends, inside


def axis(sharpness: float = 20.0, center: float = 0.3) -> Bend:
    return Bend(sharpness=sharpness, center=center, start=-2.0, span=4.0)


@pytest.mark.parametrize("center", [0.0, 0.3, 1.0])
def test_it_runs_from_0_to_1_as_asinh_and_straight_beyond(center):
    p = (X + 2.0) / 4.0
    low, high = np.arcsinh(20.0 * (0.0 - center)), np.arcsinh(20.0 * (1.0 - center))
    want = (np.arcsinh(20.0 * (p - center)) - low) / (high - low)
    ends = 20.0 / np.sqrt(1 + (20.0 * (np.array([0.0, 1.0]) - center)) ** 2) / (high - low)
    want[0], want[-1] = p[0] * ends[0], 1.0 + (p[-1] - 1.0) * ends[1]
    assert_close(axis(center=center).places(X, np), want)


def test_its_slopes_are_difference_quotients():
    bend, x, step = axis(sharpness=5.0), np.array([-2.7, -1.5, 0.0, 0.9, 2.4]), 1e-4
    ahead, here, behind = (bend.places(x + shift, np) for shift in (step, 0.0, -step))
    first, second = bend.slopes(x, np)
    assert_below(np.abs(first - (ahead - behind) / (2 * step)).max(), 1e-7, "first derivative")
    assert_below(np.abs(second - (ahead - 2 * here + behind) / step**2).max(), 1e-6, "second derivative")


def test_a_small_sharpness_leaves_the_axis_straight_and_steep_is_where_the_center_is():
    assert_close(axis(sharpness=1e-7).places(X, np), (X + 2.0) / 4.0)
    first, _ = axis(center=0.5).slopes(np.array([-1.0, 0.0, 1.0]), np)
    assert_equal(int(first.argmax()), 1)
    bend = Bend(sharpness=0.5, center=1.0, start=0.0, span=0.5)  # none of these needs to be above 1
    assert_close(bend.places(np.array([0.0, 0.5]), np), np.array([0.0, 1.0]))


def test_a_third_derivative_is_refused_on_a_bent_axis_only():
    with pytest.raises(DataError) as error:
        seen_at(PERIODIC, axis(), X, 3, np)
    assert_says(error, "up to 2", "asked for 3")
    assert_close(seen_at(PERIODIC, None, X, 3, np)[1], PERIODIC.observation(X, 3))
