"""Between knots: what does not depend on units, and what is too quick to be integrated."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import GP, DataError
from tenfac.core.modes.still import Periodic
from tests.checks import assert_below, assert_close, assert_relative, assert_says
from tests.processes import M12, M52

GRID = np.array([0.0, 0.4, 0.9, 2.1])
X = np.linspace(-1.0, 3.0, 9)


@pytest.mark.parametrize("variance", [1e-150, 1e150])
def test_means_do_not_depend_on_the_variance_of_the_kernel(variance):
    values = np.array([1.0, -1.0, 0.5, 2.0])
    one, other = (GP(kernel, GRID, domain=(-1.0, 3.0)) for kernel in (M52, variance * M52))
    assert_close(other.rows(other.factor(values), X), one.rows(one.factor(values), X))


def test_knots_far_from_zero_are_integrated_as_well_as_their_places_are_known():
    near, far = (GP("matern32", base + 1e-6 * GRID, lengthscale=1e-6) for base in (0.0, 1e3))
    factor = near.factor(np.array([1.0, -1.0, 0.5, 2.0]))
    assert_relative(far.integral(factor) @ factor, near.integral(factor) @ factor, 1e-6)


def test_a_hundred_swings_between_knots_are_integrated_and_a_hundred_thousand_refused():
    mode = GP(M12 + Periodic(0.05, 2.0, terms=2), [0.0, 5.0], domain=(0.0, 5.0))
    factor = mode.factor(np.array([2.0, -1.0]))
    fine = np.linspace(0.0, 5.0, 10_001)  # the trapezoidal rule, to the square of its step
    want = np.trapezoid(mode.rows(factor, fine)[:, 0], fine)
    assert_below(abs(mode.integral(factor) @ factor[:, 0] - want), 1e-4 * abs(want), "integral")
    mode = GP(M12 + Periodic(1e-4, 2.0, terms=1), [-1.0, 0.0, 10.0])
    with pytest.raises(DataError) as error:
        mode.integral(np.ones(1))
    assert_says(error, "GP:", "between -1 and the next", "Take more knots")
