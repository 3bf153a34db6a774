"""Errors of functions in the sup norm: what is found at points, and cuts that keep it."""

from __future__ import annotations

import numpy as np
import pytest

from tenfac import CP, GP, Chebyshev, Discrete, Tucker
from tenfac.core.arrays import namespace_of
from tenfac.core.largest import _points, cut_to_values, largest_change, measures_values, orthonormal
from tenfac.core.modes.chebyshev import coefficients
from tests.checks import assert_above, assert_below, assert_close, assert_equal, dtype_name, to_numpy

BOX = (0.1, 2.0)
GRID = np.linspace(*BOX, 41)


def newton(make, size=24):
    """``1 / sqrt(x^2 + y^2 + z^2)`` through Chebyshev points, as a Tucker tensor of full rank."""
    mode = Chebyshev(size, BOX)
    core = 1 / np.sqrt(sum(np.square(x) for x in np.meshgrid(*[mode.nodes()] * 3, indexing="ij")))
    for n in range(3):
        core = np.moveaxis(coefficients(np.moveaxis(core, n, 0).reshape(size, -1)).reshape(core.shape), 0, n)
    return Tucker(make.asarray(core), [make.asarray(np.eye(size))] * 3, [mode] * 3)


def change(t, other):
    """Largest change on a fine grid, ends included, over the largest value."""
    a, b = (to_numpy(u.on_grid(*[GRID.tolist()] * 3)).astype(float) for u in (t, other))
    return np.abs(a - b).max() / np.abs(a).max()


@pytest.mark.parametrize("kind", ["tucker", "train"])
def test_round_keeps_the_largest_change_of_a_value(make, kind):
    t = newton(make)
    t = t if kind == "tucker" else t.to_train()
    for tol in (1e-2, 1e-4):
        made = t.round(tol=tol)
        assert_below(change(t, made), tol, "error")
        assert_above(made.info.rel_error, 0.5 * change(t, made), "error found")
        assert_below(made.info.rel_error, tol, "error found")
        assert_below(max(made.rank), 12, "rank")
        assert_equal((dtype_name(made), made.info.converged), (make.dtype, True))
    by_coefficients = t._rounded(None, *((1e-4, t.dtype) if kind == "tucker" else (None, 1e-4)))[0]
    assert_above(change(t, by_coefficients), 1e-4, "error")  # the norm of the coefficients alone does not


def test_with_given_ranks_the_error_said_is_that_of_values(make):
    t = newton(make)
    for u, ranks in ((t, {"rank": 3}), (t.to_train(), {"rank": 3}), (t.to_train(), {"train_rank": 2})):
        made = u.round(**ranks)
        assert_below(abs(made.info.rel_error / change(t, made) - 1), 0.3, "deviation")


def test_the_largest_change_is_relative_to_a_narrow_peak():
    mode = Chebyshev(200)
    peak = coefficients(1 / (1 + 1000 * (mode.nodes() - 0.3) ** 2))[:, None]
    t = Tucker(np.ones((1, 1, 1)), [peak] * 3, [mode] * 3)
    other = t + 0.01
    assert_below(abs(largest_change(t, other) / 0.01 - 1), 0.05, "deviation")


@pytest.mark.parametrize("row", [0, 4, 8])
def test_tables_of_functions_are_looked_at_in_every_row(make, row):
    rows, more = np.ones((9, 1)), np.zeros((9, 1))
    rows[row], more[row] = 1e3, 100
    t = Tucker(
        make.asarray(np.ones((1, 1))),
        [make.asarray(rows), make.asarray(np.eye(2)[:, 1:])],
        [Discrete(9), Chebyshev(2)],
    )
    second = Tucker(t.core, [make.asarray(rows + more), t.factors[1]], t.modes)
    assert_below(abs(largest_change(t, second) - 0.1), 1e-3, "deviation")


def test_zero_stays_zero_and_what_has_no_values_is_not_measured(make):
    zero = Tucker(make.asarray(np.zeros((2, 2))), [make.asarray(np.ones((3, 2)))] * 2, [Chebyshev(3)] * 2)
    assert_equal((zero.round(tol=1e-3).info.rel_error, zero.round(rank=1).rank), (0.0, (1, 1)))
    table = CP(None, [make(4, 2)])
    batch = CP(None, [make(5, 4, 2)], [Chebyshev(4)])
    assert_equal([measures_values(t) for t in (table, batch, newton(make, 4))], [False, False, True])


def test_a_change_at_the_corners_alone_is_found():
    power = coefficients(Chebyshev(81).nodes() ** 80)[:, None]
    flat = np.eye(81)[:, :1]
    one, corners = (Tucker(np.ones((1, 1, 1)), [column] * 3, [Chebyshev(81)] * 3) for column in (flat, power))
    assert_above(largest_change(one, one + corners), 0.999, "change")
    assert_above(largest_change(one, one - corners), 0.999, "change")


def test_a_change_of_zero_is_the_whole_of_what_is_there():
    one = Tucker(np.ones((1, 1)), [np.eye(3)[:, :1]] * 2, [Chebyshev(3)] * 2)
    assert_equal((largest_change(0 * one, 1e-3 * one), largest_change(0 * one, 0 * one)), (1.0, 0.0))


def test_points_span_every_domain_from_end_to_end():
    modes = [Chebyshev(3, (0.5, 2.0)), Chebyshev(3, (-1.7e308, 1.7e308)), Discrete(5)]
    t = Tucker(np.ones((1, 1, 1)), [np.ones((mode.size, 1)) for mode in modes], modes)
    first, huge, rows = _points(t, np.repeat([[-1.0], [-0.5], [0.0], [1.0]], 3, axis=1))
    assert_close(first, np.array([0.5, 0.875, 1.25, 2.0]))
    assert_close(huge, np.array([-1.7e308, -0.85e308, 0.0, 1.7e308]))
    assert_equal(rows, np.array([0, 1, 2, 4]))


@pytest.mark.parametrize("factor", [0.5, 0.8, 3.0, 1000.0])
def test_a_cut_whose_error_is_proportional_is_found_at_once_or_at_the_second_trial(factor):
    t = Tucker(np.ones((1, 1)), [np.eye(3)[:, 1:2]] * 2, [Chebyshev(3)] * 2)
    tried = []

    def cut(part):
        tried.append(part)
        return t * (1 + factor * part)

    _, rel_error = cut_to_values(t, cut, 1e-3)
    assert_equal((tried[0], len(tried)), (1e-3, 1 if factor < 0.7 else 2))
    assert_close(rel_error, factor * tried[-1], 1e8)
    assert_below(rel_error, 1e-3, "error")
    assert_above(rel_error, 0.3e-3, "error")


@pytest.mark.parametrize(
    "mode", [Chebyshev(6, (0.0, 3.0)), GP("matern32", [0.0, 0.1, 2.0], lengthscale=1.0), Discrete(6)]
)
def test_columns_are_made_orthonormal_in_what_the_mode_rounds_by(make, mode):
    factor = make(mode.size, 3)
    basis, triangle = orthonormal(mode, factor, namespace_of(factor))
    assert_close(basis @ triangle, factor, 1000)
    weights = to_numpy(mode.metric(factor))[:, None] if hasattr(mode, "metric") else 1.0
    weighted = make.asarray(weights * to_numpy(basis))
    assert_close(weighted.T @ weighted, np.eye(3), like=factor)


def test_a_cut_that_never_keeps_the_tolerance_is_returned_with_its_error():
    t = Tucker(np.ones((1, 1)), [np.eye(3)[:, 1:2]] * 2, [Chebyshev(3)] * 2)
    tried = []

    def cut(tol):
        tried.append(tol)
        return t * 1.5

    made, rel_error = cut_to_values(t, cut, 1e-3)
    assert_close(np.array(rel_error), np.array(0.5))
    assert_close(made.at(1.0, 1.0), np.array(1.5))
    assert_below(len(tried), 9, "trials")
    assert_above(tried[0], 0.9e-3, "first")
