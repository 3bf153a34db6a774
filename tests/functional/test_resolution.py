"""What interpolation from a grid is said to lose, against splines and sums written out."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy.interpolate import CubicSpline

from tenfac.core.modes.chebyshev import lobatto
from tenfac.functional.resolution import _beyond, polynomial_error, spline, spline_error
from tests.checks import assert_above, assert_close, assert_equal

INSIDE = lobatto(65)


def largest(rows: np.ndarray) -> float:
    return float(np.abs(rows).max())


def lost(kept: Any, x: np.ndarray, y: np.ndarray) -> float:
    """Largest difference of the not-a-knot splines through some places and through all."""
    return largest(CubicSpline(x[kept], y[kept])(INSIDE) - CubicSpline(x, y)(INSIDE))


def test_two_places_lose_half_of_their_difference() -> None:
    values = np.array([[1.0, 2.0], [4.0, -4.0]])
    assert_equal(spline_error(np.array([-1.0, 1.0]), values, INSIDE, largest), 3.0)


def test_zeros_lose_nothing() -> None:
    for count in (2, 5, 12, 33):
        assert_equal(spline_error(np.linspace(-1, 1, count), np.zeros((count, 1)), INSIDE, largest), 0.0)
        assert_equal(chebyshev(np.zeros(count)), 0.0)


@pytest.mark.parametrize(("count", "degree"), [(2, 1), (3, 2), (4, 3)])
def test_few_places_have_the_polynomial_through_them(count: int, degree: int) -> None:
    x = np.linspace(-1, 1, count)
    assert_close(spline(x, x**degree)(INSIDE), INSIDE**degree)


def test_many_places_lose_what_half_of_them_lose_times_the_gain_over_a_quarter() -> None:
    x = np.linspace(-1, 1, 33)
    for f in (lambda x: np.exp(3 * x), lambda x: np.abs(x - 0.1), np.abs, lambda x: np.cos(40 * x)):
        y = f(x)
        odd = np.unique([0, *range(1, 33, 2), 32])
        half, quarter = (
            max(lost(slice(None, None, 2), x, y), lost(odd, x, y)),
            lost(slice(None, None, 4), x, y),
        )
        want = half * min(max(half / quarter, 1 / 8), 1)
        assert_close(spline_error(x, y[:, None], INSIDE, largest), want, 1e6)


def test_fewer_than_sixteen_places_lose_what_half_of_them_lose_and_fewer_than_eight_the_worst() -> None:
    for count in (7, 8, 15, 16):
        x = np.linspace(-1, 1, count)
        y = 1 / (1.3 + x)
        odd = np.unique([0, *range(1, count, 2), count - 1])
        even = np.unique([*range(0, count, 2), count - 1])
        fourth = np.unique([*range(0, count, 4), count - 1])
        full = spline(x, y)(INSIDE)
        parts = [largest(spline(x[kept], y[kept])(INSIDE) - full) for kept in (odd, even, fourth)]
        half, quarter = max(parts[:2]), parts[2]
        want = max(half, quarter) if count < 8 else half if count < 16 else half * max(half / quarter, 1 / 8)
        assert_close(spline_error(x, y[:, None], INSIDE, largest), want, 1e6)


def test_beyond_the_places_a_spline_loses_twice_what_it_loses_at_an_end_that_is_left_out() -> None:
    x = np.linspace(-0.9, 0.9, 33)
    y = np.exp(2 * x)
    low, high = (
        2 * abs(float(CubicSpline(x[rest], y[rest])(x[end]) - y[end]))
        for rest, end in ((slice(1, None), 0), (slice(-1), -1))
    )
    for nodes, want in (
        (INSIDE, max(low, high)),
        (INSIDE[INSIDE < 0.9], low),
        (INSIDE[INSIDE > -0.9], high),
        (np.append(-1.0, x), low),
        (np.append(x, 1.0), high),
    ):
        for way in (1, -1):  # the first node is the least, or the largest of a function turned round
            assert_close(_beyond(x, way * y[:, None], np.sort(nodes), largest), want, 1e9)
    assert_equal(_beyond(x, y[:, None], x, largest), 0.0)


def chebyshev(found: np.ndarray) -> float:
    return polynomial_error(found[:, None], np.eye(len(found)), lambda rows: float(np.abs(rows).sum()))


def test_a_straight_line_loses_its_slope_and_rounding_loses_nothing() -> None:
    assert_equal(chebyshev(np.array([5.0, -0.25])), 0.25)
    found = np.append(np.ones(16), np.full(16, 1e-18))
    assert_close(chebyshev(found), 4e-18)


def test_coefficients_that_fall_geometrically_go_on_so_and_are_doubled() -> None:
    for ratio in (0.75, 0.5):  # of one to the next; four to a window
        found = ratio ** np.arange(32.0)
        fall = ratio**4
        assert_close(chebyshev(found), 2 * float(found[28:].sum()) * max(fall / (1 - fall), 0.1), 1e4)


def test_coefficients_that_fall_as_a_power_are_summed_by_octaves() -> None:
    for power in (1.0, 2.0, 4.0):
        found = (1.0 + np.arange(64)) ** -power
        last, before = float(found[32:].sum()), float(found[16:32].sum())
        share = min(last / before, 0.9)
        assert_close(chebyshev(found), last * share / (1 - share), 1e4)


def test_the_scale_of_the_coefficients_is_that_of_the_error() -> None:
    rounding = np.append(np.ones(16), np.full(16, 1e-18))
    geometric, power = 0.5 ** np.arange(32.0), (1.0 + np.arange(64)) ** -2
    for found in (rounding, geometric, power):
        for scale in (1e-9, 1e9):
            assert_close(chebyshev(scale * found), scale * chebyshev(found), 1e4)


@pytest.mark.parametrize("windows", [(1.0, 1.0, 0.1), (1.0, 0.1, 0.1)])
def test_a_single_fall_is_not_taken_for_geometric(windows: tuple[float, ...]) -> None:
    found = 1e-6 * np.repeat([1.0, *windows], [20, 4, 4, 4])  # the last three windows of 32
    last, before = found[16:].sum(), found[8:16].sum()
    share = min(last / before, 0.9)
    assert_close(chebyshev(found), last * share / (1 - share), 1e4)


def test_three_places_may_lack_as_much_as_they_show_of_slope_and_curvature() -> None:
    for found in ([5.0, 0.1, 0.0], [0.0, 0.1, 0.01], [1.0, 0.0, 0.2]):
        assert_above(chebyshev(np.array(found)), sum(found[1:]), "error")
    assert_equal(chebyshev(np.array([5.0, 0.0, 0.0])), 0.0)


def test_rounding_errors_are_told_by_the_values_of_the_function() -> None:
    found = np.append(np.ones(16), np.full(16, 1e-18))[:, None]
    basis = np.cos(np.outer(np.linspace(0, np.pi, 101), np.arange(32)))
    assert_close(polynomial_error(found, basis, largest), 4e-18)
