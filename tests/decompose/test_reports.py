"""What every fit says of itself: time, convergence, error, and why it stopped."""

from __future__ import annotations

import inspect
from time import perf_counter

import numpy as np
import pytest

import tenfac
from tenfac import (
    ConvergenceWarning,
    cp,
    cp_complete,
    hooi,
    nearest_kronecker,
    randomized_tucker,
    tucker,
    tucker_append,
    tucker_complete,
    tucker_cross,
    tucker_nonnegative,
)
from tests.checks import assert_above, assert_below, assert_equal, assert_says

RNG = np.random.default_rng(0)
A, B, C = (RNG.standard_normal((size, 3)) for size in (9, 10, 11))
X = np.einsum("ir,jr,kr->ijk", A, B, C)
FITS = {
    "tucker": lambda: tucker(X, rank=3),
    "hooi": lambda: hooi(X, 3),
    "tucker_nonnegative": lambda: tucker_nonnegative(np.abs(X[:, :1, :1]), 1),
    "randomized_tucker": lambda: randomized_tucker(X, 3),
    "tucker_append": lambda: tucker_append(tucker(X[:5], rank=3), X[5:], 0, rank=3),
    "tucker_cross": lambda: tucker_cross(lambda i: X[tuple(i.T)], X.shape, 1e-6),
    "cp": lambda: cp(X, 3),
    "cp_complete": lambda: cp_complete(np.where(RNG.random(X.shape) < 0.6, X, np.nan), 3),
    "tucker_complete": lambda: tucker_complete(np.where(RNG.random(X.shape) < 0.9, X, np.nan), 3),
    "nearest_kronecker": lambda: nearest_kronecker(np.kron(A[:3], B[:3]), [(3, 3), (3, 3)]),
}


def test_every_public_function_that_makes_a_format_of_an_array_is_among_the_fits() -> None:
    doors = [name for name, home in tenfac._HOME.items() if home.startswith("decompose.")]
    makes = [n for n in doors if inspect.signature(getattr(tenfac, n)).return_annotation in ("Tucker", "CP")]
    assert_equal(sorted(set(makes) - set(FITS)), ["align"])  # which takes a format


@pytest.mark.parametrize("fit", FITS.values(), ids=FITS.keys())
def test_a_report_has_its_seconds_its_end_and_a_small_error(fit):
    start = perf_counter()
    info = fit().info
    wall = perf_counter() - start
    assert_above(info.seconds, 0.0, "seconds")
    assert_below(info.seconds, wall, "seconds")
    assert_equal(info.converged, True)
    assert info.reason
    assert_below(info.rel_error, 1e-4, "relative error")


def test_hooi_stops_at_the_first_sweep_that_gains_less_than_tol():
    noise = np.random.default_rng(1).standard_normal((12, 13, 14))
    info = hooi(noise, 3, tol=1e-3).info
    falls = -np.diff(info.history) / np.asarray(info.history[:-1])
    assert info.converged
    assert_below(falls[-1], 1e-3, "gain of the last sweep")
    assert_above(falls[:-1].min(), 1e-3, "gain of a sweep before")


def test_hooi_says_how_much_its_last_sweep_gained():
    noise = np.random.default_rng(1).standard_normal((12, 13, 14))
    with pytest.warns(ConvergenceWarning) as caught:
        info = hooi(noise, 3, max_iter=2, tol=1e-12).info
    assert_equal((info.converged, info.n_iter), (False, 2))
    gain = 1 - info.history[-1] / info.history[-2]
    assert_says(str(caught[0].message), f"by {gain:.1g} of it", "max_iter")
