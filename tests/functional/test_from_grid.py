"""``chebyshev_from_grid``: arrays, CP and Tucker formats on grids of any places."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tenfac import (
    CP,
    ConvergenceWarning,
    DataError,
    Discrete,
    ShapeError,
    Tucker,
    chebyshev_from_grid,
    tucker,
)
from tenfac.core.modes.chebyshev import Chebyshev
from tenfac.functional import from_grid
from tests.checks import (
    assert_above,
    assert_below,
    assert_close,
    assert_equal,
    assert_relative,
    assert_says,
    quietly,
)
from tests.functional.battery import UNIT, points_of

NODES = Chebyshev(30, (0.0, 1.0)).nodes()
UNIFORM = np.linspace(-1, 1, 513)
RATES = np.geomspace(0.1, 30, 40)


def smooth(x: Any, y: Any, z: Any) -> Any:
    return 1 / (1.5 + x + y * z)


def on_grid(x: np.ndarray) -> np.ndarray:
    return smooth(x[:, None, None], x[:, None], x)


def gaussians() -> CP:
    return CP(np.sqrt(RATES), [np.exp(-np.outer(UNIFORM**2, RATES))] * 3)


def sum_of_gaussians(points: np.ndarray) -> np.ndarray:
    return np.exp(-np.outer((points**2).sum(axis=0), RATES)) @ np.sqrt(RATES)


@pytest.mark.parametrize("tol", [1e-6, 1e-10, 1e-13])
def test_values_at_chebyshev_points_keep_the_tolerance(tol: float) -> None:
    F = chebyshev_from_grid(on_grid(NODES), [NODES] * 3, tol)
    points = points_of(UNIT)
    assert_below(np.abs(F.at(*points) - smooth(*points)).max() / smooth(0, 0, 0), tol, "error")
    assert F.info.converged
    assert_below(F.info.rel_error, tol, "estimate")


def test_a_function_that_chebyshev_points_do_not_resolve_is_not_converged() -> None:
    x = Chebyshev(12, (0.0, 1.0)).nodes()
    with pytest.warns(ConvergenceWarning) as caught:
        F = chebyshev_from_grid(np.sin(40 * x)[:, None] * x, [x, x])
    assert not F.info.converged
    assert_says(caught[0].message, "too coarse", "mode 0")


@pytest.mark.parametrize("n", [65, 129])
def test_cell_centers_reach_the_ends_of_the_domain_at_fourth_order(n: int) -> None:
    cells = (np.arange(n) + 0.5) / n
    F = quietly(chebyshev_from_grid, on_grid(cells), [cells] * 3, 1e-8, domain=UNIT)
    points = points_of(UNIT)
    assert_below(np.abs(F.at(*points) - smooth(*points)).max(), 2.0 / n**4, "error")
    assert_equal([mode.domain for mode in F.modes], UNIT)


def test_cp_and_tucker_formats_are_converted_without_the_dense_array() -> None:
    data = gaussians()
    points = points_of([(-1, 1)] * 3)
    true = sum_of_gaussians(points)
    small = Tucker(*tucker(CP(data.weights, [f[::8] for f in data.factors]).to_tensor(), tol=1e-8))
    for got, tol in ((data, 1e-6), (small, 1e-3)):
        x = UNIFORM if got is data else UNIFORM[::8]
        F = chebyshev_from_grid(got, [x] * 3, tol)
        assert F.info.converged
        assert_below(np.abs(F.at(*points) - true).max() / true.max(), tol, "error")
    assert_below(max(F.rank), 10, "rank")


# from smooth to a jump, with kinks, ends of infinite slope and waves that a coarse grid does not see
SHAPES = {
    "runge": lambda x, y: 1 / (1 + 25 * (x * x + y * y)),
    "waves": lambda x, y: np.sin(9 * x + y),
    "kink": lambda x, y: np.abs(x - 0.123) + y,
    "root": lambda x, y: np.sqrt(x + 1) + y,
    "front": lambda x, y: np.tanh(50 * (x - 0.11)) * np.cos(y),
    "peak": lambda x, y: np.exp(y) / (1e-2 + (x - 0.3) ** 2),
}
GRIDS = {
    "even": lambda n: np.linspace(-1, 1, n),
    "cells": lambda n: (2 * np.arange(n) + 1) / n - 1,
    "Chebyshev": lambda n: Chebyshev(n).nodes(),
    "graded": lambda n: np.sinh(np.linspace(-2, 2, n)) / np.sinh(2),
}


def assert_errors_are_as_said(shape: str, grid: str, counts: Any, tols: Any) -> None:
    f, points = SHAPES[shape], np.random.default_rng(0).uniform(-1, 1, (2, 2000))
    for n in counts:
        x = GRIDS[grid](n)
        for tol in tols:
            F = quietly(chebyshev_from_grid, f(x[:, None], x), [x, x], tol, domain=[(-1, 1)] * 2)
            error = np.abs(F.at(*points) - f(*points)).max() / np.abs(f(*points)).max()
            times = 2 if F.info.converged else 15
            assert_below(error, times * F.info.rel_error, f"error of {n} places for {tol}")


@pytest.mark.parametrize("grid", GRIDS)
def test_the_error_made_is_at_most_twice_the_error_said(grid: str) -> None:
    for shape in ("runge", "kink"):
        assert_errors_are_as_said(shape, grid, (4, 9, 33), [1e-2])


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS)
def test_the_error_made_is_at_most_twice_the_error_said_for_every_shape(grid: str) -> None:
    for shape in SHAPES:
        assert_errors_are_as_said(shape, grid, (4, 6, 9, 17, 65, 150), (1e-2, 1e-3, 1e-5, 1e-8))


def test_two_places_do_not_show_a_line() -> None:
    with pytest.warns(ConvergenceWarning):
        F = chebyshev_from_grid(np.array([[1.0, 2.0], [1.0, 2.0]]), [[0, 1], [0, 1]])
    assert_equal(F.info.rel_error > 0.2, True)
    assert chebyshev_from_grid(np.ones((2, 2)), [[0, 1], [0, 1]]).info.converged


def test_the_weights_of_a_cp_tensor_set_its_ranks() -> None:
    heavy = gaussians()
    light = CP(np.where(RATES > 1, 1e-12, 1.0), heavy.factors)
    F, G = (chebyshev_from_grid(t, [UNIFORM] * 3, 1e-6) for t in (heavy, light))
    assert G.rank[0] < F.rank[0]


def test_the_norms_of_columns_may_stand_in_any_factor() -> None:
    data = gaussians()
    sizes = np.geomspace(1e-6, 1e6, 40)
    first, second, third = data.factors
    same = CP(data.weights, [first * sizes, second, third / sizes])
    F, G = (chebyshev_from_grid(t, [UNIFORM, None, None], 1e-6) for t in (data, same))
    assert_equal(G.rank, F.rank)
    assert_relative(G.at(0.1, 256, 300), F.at(0.1, 256, 300), 1e-6)


@pytest.mark.parametrize("share", [2.0, 0.02])
def test_of_many_terms_that_nearly_cancel_a_direction_is_kept_where_their_sum_needs_it(share: float) -> None:
    # 64 terms that cancel but for `share` of the tolerance, in a direction that each holds a 64th of
    tol, signs = 1e-4, np.tile([1.0, -1.0], 32)
    first = np.zeros((3, 65))
    first[0, 0], first[1, 1:], first[2, 1:] = 1.0, 1.0, share * tol / 64 * signs
    data = CP(np.append(1.0, signs), [first, np.ones((2, 65))])
    core, bases, size = from_grid._from_cp(data, tol)
    assert_equal((size, bases[0].shape), (1.0, (3, 3 if share > 1 else 2)))
    dense = bases[0] @ core @ bases[1].T
    assert_below(np.abs(dense - data.to_tensor()).max(), tol, "error")


def test_heavy_terms_that_nearly_cancel_keep_what_is_left() -> None:
    x = Chebyshev(12, (0.0, 1.0)).nodes()
    near = np.stack([x, x + 1e-4 * x**2], axis=1)
    data = CP(np.array([-1e6, 1e6]), [near, np.stack([x, x], axis=1)])
    F = chebyshev_from_grid(data, [x, x], 1e-2)
    assert_below(abs(F.at(0.5, 0.5) - 12.5), 1.0, "error")


def test_the_scale_of_the_values_does_not_matter() -> None:
    plain = chebyshev_from_grid(on_grid(NODES), [NODES] * 3)
    for scale in (1e-30, 1e30):
        F = chebyshev_from_grid(scale * on_grid(NODES), [NODES] * 3)
        assert_equal((F.rank, F.coef_shape), (plain.rank, plain.coef_shape))


def test_zeros_are_zero() -> None:
    for zeros in (
        np.zeros((5, 6)),
        CP(None, [np.zeros((5, 2)), np.ones((6, 2))]),
        tucker(np.zeros((5, 6)), 2),
    ):
        F = chebyshev_from_grid(zeros, [np.arange(5), np.arange(6)])
        assert_equal((F.info.converged, F.info.rel_error, F.rank), (True, 0.0, (1, 1)))
        assert_equal(float(F.at(2.5, 3.5)), 0.0)


@pytest.mark.parametrize("width", [1e-8, 1e8])
@pytest.mark.parametrize("start", [0.0, -1.0])
def test_places_are_told_from_chebyshev_points_whatever_their_unit(width: float, start: float) -> None:
    unit = Chebyshev(12, (start, start + 1)).nodes()
    even = np.linspace(start, start + 1, 12)
    for x in (unit, even):
        F = quietly(chebyshev_from_grid, np.exp(x), [width * x], 1e-9)
        G = quietly(chebyshev_from_grid, np.exp(x), [x], 1e-9)
        assert_equal((F.coef_shape, F.info.converged), (G.coef_shape, x is unit))
        assert_relative(F.at(width * (start + 0.3)), G.at(start + 0.3), 1e-9)
        assert_below(abs(G.at(start + 0.3) / np.exp(start + 0.3) - 1), 1e-9 if x is unit else 1e-3, "error")


def test_a_mode_without_places_stays_discrete_for_arrays_cp_and_tucker() -> None:
    x, heights = NODES, np.array([1.0, -2.0, 0.5, 0.0])
    whole = on_grid(x)[..., None] * heights
    formats = (whole, Tucker(*tucker(whole, tol=1e-13)), CP(None, [x[:, None]] * 3 + [heights[:, None]]))
    for data in formats:
        F = chebyshev_from_grid(data, [x, None, x, None], 1e-8)
        assert_equal((F.shape, F.modes[1], F.modes[3]), ((None, 30, None, 4), Discrete(30), Discrete(4)))
        assert F.info.converged
        y, k = np.arange(30)[:, None], np.arange(4)
        truth = smooth if not isinstance(data, CP) else lambda x, y, z: x * y * z
        want = truth(0.3, x[y], 0.77) * heights[k]
        assert_below(np.abs(F.at(0.3, y, 0.77, k) - want).max(), 1e-8 * np.abs(whole).max(), "error")


def test_labels_need_not_be_smooth() -> None:
    jumps = 10 * np.random.default_rng(0).standard_normal(40)
    F = chebyshev_from_grid(np.outer(jumps, np.exp(NODES)), [None, NODES], 1e-12, domain=[None, (0, 1)])
    assert F.info.converged
    assert_below(F.coef_shape[1], 20, "coefficients of an exponential")
    assert_below(np.abs(F.at(np.arange(40), 0.5) - jumps * np.exp(0.5)).max(), 1e-10, "error")


BAD = [
    ({"axes": [np.arange(4), None], "domain": [(0, 3), (0, 3)]}, ShapeError, "None where `axes` is None"),
    ({"data": np.ones((0, 4)), "axes": [None, np.arange(4)]}, ShapeError, "(0, 4)"),
    ({"data": [[1.0]]}, DataError, "`data` must be an array"),
    ({"data": np.full((4, 4), np.nan)}, DataError, "finite"),
    ({"data": np.ones((4, 4)) + 1j}, DataError, "real"),
    ({"axes": [np.arange(4)]}, ShapeError, "`axes`"),
    ({"axes": [np.arange(4), np.arange(5)]}, ShapeError, "(4, 4)"),
    ({"axes": [np.arange(4), np.array([0, 2, 1, 3])]}, DataError, "axes[1]"),
    ({"domain": [(0, 3)]}, ShapeError, "2 intervals"),
    ({"domain": [(0, 3), (1, 3)]}, DataError, "domain[1]"),
    ({"domain": [(0, 3), (0, 9)]}, DataError, "extrapolate"),
    ({"tol": 0}, DataError, "tol"),
]


@pytest.mark.parametrize(("changed", "error", "part"), BAD)
def test_bad_input_is_refused(changed: Any, error: Any, part: str) -> None:
    given = {"data": np.ones((4, 4)), "axes": [np.arange(4), np.arange(4)], **changed}
    with pytest.raises(error) as caught:
        chebyshev_from_grid(**given)
    assert_says(caught, "chebyshev_from_grid", part)


def test_a_function_is_not_taken_for_data() -> None:
    F = chebyshev_from_grid(np.ones((4, 4)), [np.arange(4)] * 2)
    with pytest.raises(ShapeError) as caught:
        chebyshev_from_grid(F, [np.arange(4)] * 2)
    assert_says(caught, "function already")


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
@pytest.mark.parametrize("kind", [np.asarray, lambda v: tucker(v / v.max(), tol=1e-14) * v.max()])
def test_values_whose_squares_are_no_numbers_keep_their_digits(scale: float, kind: Any) -> None:
    values = np.exp(np.add.outer(NODES, NODES))
    F = chebyshev_from_grid(kind(scale * values), [NODES, NODES], 1e-10)  # was zero, converged
    assert_equal(F.info.converged, True)
    assert_below(abs(F.at(0.3, 0.4) / scale - np.exp(0.7)), 1e-10, "error")


@pytest.mark.parametrize("scale", [1e-200, 1e200])
def test_terms_whose_squares_are_no_numbers_keep_their_digits(scale: float) -> None:
    data = CP(np.array([scale]), [np.exp(NODES)[:, None]] * 2)
    F = chebyshev_from_grid(data, [NODES, NODES], 1e-10)
    assert_below(abs(F.at(0.3, 0.4) / scale - np.exp(0.7)), 1e-10, "error")


@pytest.mark.parametrize(
    ("axes", "tol", "error", "part"),
    [
        ([NODES + 1j], 1e-6, DataError, "axes[0] must be real numbers"),
        ([["a"] * 30], 1e-6, DataError, "axes[0] must be real numbers"),
        (None, 1e-6, ShapeError, "`axes` must be a list"),
        ([NODES], "1e-6", DataError, "tol must be"),
    ],
)
def test_axes_and_tolerances_that_are_no_numbers_are_refused(
    axes: Any, tol: Any, error: Any, part: str
) -> None:
    with pytest.raises(error) as caught:
        chebyshev_from_grid(np.exp(NODES), axes, tol)
    assert_says(caught, "chebyshev_from_grid", part)


def test_too_few_chebyshev_points_are_seen_to_be_too_few() -> None:
    x = Chebyshev(9, (0.0, 1.0)).nodes()
    with pytest.warns(ConvergenceWarning, match="too coarse"):
        F = chebyshev_from_grid(np.exp(4 * x), [x], 1e-8)
    true = np.exp(4 * np.linspace(0, 1, 500))
    error = np.abs(F.at(np.linspace(0, 1, 500)) - true).max() / true.max()
    assert_above(error, 1e-8, "error")
    assert_above(F.info.rel_error, error / 2, "estimate")


def test_tensors_of_tensorly_on_a_grid_are_interpolated_as_formats_are() -> None:
    data = gaussians()
    for ours in (
        data,
        Tucker(*tucker(CP(data.weights, [f[::8] for f in data.factors]).to_tensor(), tol=1e-8)),
    ):
        x = UNIFORM if ours is data else UNIFORM[::8]
        got, want = (chebyshev_from_grid(t, [x] * 3, 1e-3) for t in (ours.to_tensorly(), ours))
        for mine, theirs in zip((got.core, *got.factors), (want.core, *want.factors), strict=True):
            assert_equal(mine, theirs)


def test_a_domain_reaches_one_step_beyond_the_places_and_no_more() -> None:
    x = np.array([0.0, 1.0, 2.0, 3.0, 3.5])
    y = x**2
    for ends in ((-1.0, 4.0), (0.0, 3.5), (-1.0, 3.5)):
        F = quietly(chebyshev_from_grid, y, [x], 1e-3, domain=[ends])
        assert_equal(F.domain, (ends,))
        assert_close(F.at(np.array(ends)), np.array(ends) ** 2, 1e4)
    for ends in ((-1.001, 4.0), (-1.0, 4.001), (0.001, 4.0), (-1.0, 3.499)):
        with pytest.raises(DataError) as error:
            chebyshev_from_grid(y, [x], 1e-3, domain=[ends])
        assert_says(error, "domain[0] must hold axes[0], from 0 to 3.5", "one step more")


def test_the_ends_of_the_range_of_tolerances_are_taken_and_two_places_are_enough() -> None:
    x = np.array([0.0, 1.0])
    for tol in (1e-15, 0.999):
        F = quietly(chebyshev_from_grid, x + 1, [x], tol)
        assert_below(abs(F.at(0.25) - 1.25), 2 * tol + 1e-15, "error")
    for tol in (0.99e-15, 1.0, "small"):
        with pytest.raises(DataError) as error:
            chebyshev_from_grid(x, [x], tol)
        assert_says(error, "1e-15", repr(tol))
    with pytest.raises(DataError) as error:
        chebyshev_from_grid(x[:1], [x[:1]])
    assert_says(error, "two or more finite places")
