"""What every construction says of itself: time, evaluations, convergence, error."""

from __future__ import annotations

from time import perf_counter

import numpy as np
import pytest

from tenfac import chebyshev_from_grid, chebyshev_tucker, compose
from tenfac.core.modes.chebyshev import Chebyshev
from tests.checks import assert_above, assert_below, assert_equal

X = Chebyshev(20).nodes()
F = chebyshev_from_grid(np.exp(X[:, None] + X), [X, X], 1e-8)
FITS = {
    "chebyshev_from_grid": lambda: chebyshev_from_grid(np.exp(X[:, None] * X), [X, X], 1e-8),
    "chebyshev_tucker": lambda: chebyshev_tucker(lambda x, y: np.exp(x * y), [(-1, 1)] * 2, 1e-8),
    "compose": lambda: compose(np.square, F, tol=1e-8),
}


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_a_report_has_its_seconds_and_a_small_error(fit):
    start = perf_counter()
    info = fit().info
    wall = perf_counter() - start
    assert_above(info.seconds, 0.0, "seconds")
    assert_below(info.seconds, wall, "seconds")
    assert_equal((info.converged, info.reason), (True, "tolerance met"))
    assert_below(info.rel_error, 1e-8, "relative error")
