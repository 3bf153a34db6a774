"""The parts of the adaptive cross: rows, lines, grids, and what a fibre is checked against."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tenfac.core.modes.chebyshev import lobatto
from tenfac.functional.cross import cross as cross_module
from tenfac.functional.cross.core_grid import grid_points, more_rows, steady_rows
from tenfac.functional.cross.cross import Cross, _new_lines, _roughest
from tenfac.functional.cross.evaluator import Evaluator
from tests.checks import assert_below, assert_close, assert_equal


def cross_of(f: Any, ndim: int = 3, tol: float = 1e-8) -> Cross:
    evaluator = Evaluator(f, [(-1, 1)] * ndim, 10**6, True)
    made = Cross(evaluator, ndim, tol, np.random.default_rng(0), 11)
    made.run(np.empty((0, ndim)))
    return made


def test_rows_chosen_before_are_kept_and_new_ones_make_the_basis_invertible() -> None:
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 6)))
    first = more_rows(basis[:, :3], np.empty(0, dtype=int))
    rows = more_rows(basis, first)
    assert_equal(rows[:3], first)
    assert_equal(len(set(rows.tolist())), 6)
    assert_below(np.linalg.cond(basis[rows]), 100, "condition")


def test_rows_are_added_until_the_fit_to_them_is_certain() -> None:
    basis, _ = np.linalg.qr(np.random.default_rng(0).standard_normal((40, 6)))
    order = np.argsort(np.linalg.norm(basis, axis=1))[:6]  # the smallest rows determine the least
    rows = steady_rows(basis, order, 4.0)
    assert_equal(rows[:6], order)
    assert_equal(len(set(rows.tolist())), len(rows))
    assert_below(np.linalg.norm(np.linalg.pinv(basis[rows]), 2), 4.0, "norm of the fit")
    assert_below(len(rows), 13, "rows")
    assert_equal(steady_rows(basis, rows, 4.0), rows)
    assert_equal(sorted(steady_rows(basis, order, 0.9)), list(range(40)))  # no fit has a norm below 1


def test_a_point_on_a_known_line_gives_no_line() -> None:
    known = np.array([[0.1, 0.2, 0.3]])
    points = np.array([[0.1, 0.7, 0.3], [0.5, 0.2, 0.3], [0.5, 0.9, 0.3]])
    assert_equal(_new_lines(points, known, 1), points[[1]])
    assert_equal(_new_lines(points, known, 0), points[[0, 2]])


def test_fibres_are_tried_at_the_node_nearest_to_each_point() -> None:
    nodes, points = lobatto(129), np.random.default_rng(0).uniform(-1, 1, (5, 3))
    axis = SimpleNamespace(size=129, index=np.array([3, 60]))
    for n in range(3):
        tried = nodes[Cross._first_rows(None, n, axis, points)]
        want = {3, 60, *np.linspace(0, 128, 8).astype(int)}
        want |= {min(range(129), key=lambda i, x=x: abs(nodes[i] - x)) for x in points[:, n]}
        assert_equal(tried, nodes[sorted(want)])
    axis.index = np.arange(60)  # most rows are needed anyway
    assert_equal(Cross._first_rows(None, 0, axis, points), np.ones(129, dtype=bool))


def test_grids_of_points_come_in_c_order_and_in_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tenfac.functional.cross.core_grid._CHUNK", 7)
    axes = [np.arange(3.0), np.arange(4.0), np.arange(2.0)]
    chunks = list(grid_points(axes))
    assert_equal([len(c) for c in chunks], [7, 7, 7, 3])
    want = np.stack(np.meshgrid(*axes, indexing="ij"), axis=-1).reshape(-1, 3)
    assert_equal(np.concatenate(chunks), want)


def test_the_place_of_a_kink_is_where_fibres_bend_most() -> None:
    x = lobatto(513)
    for slope in (0, 1000):  # a slope alone bends nothing, however uneven the grid
        kinks = np.maximum(x - x[100], 0) + slope * x
        assert_equal(_roughest(np.stack([slope * x, kinks], axis=1)), float(x[100]))


def test_the_cross_interpolates_where_it_was_sampled() -> None:
    made = cross_of(lambda x, y, z: 1 / (3 + x + y * z))
    places = [lobatto(axis.size)[axis.index] for axis in made.axes]
    points = np.stack(np.meshgrid(*places, indexing="ij"), axis=-1).reshape(-1, 3)
    assert_close(made.values(points), 1 / (3 + points[:, 0] + points[:, 1] * points[:, 2]), factor=1e4)


def test_a_peak_between_the_points_of_the_grid_makes_it_finer() -> None:
    def f(x: Any) -> Any:
        return 1e-3 * x + np.exp(-1e4 * (x - 0.4371) ** 2)

    made = Cross(Evaluator(f, [(-1, 1)], 10**6, True), 1, 1e-8, np.random.default_rng(0), 11)
    made.add_pivots(np.array([[0.4371]]))
    assert made.axes[0].size > 256


def test_degrees_that_alias_on_the_first_grid_are_seen() -> None:
    made = cross_of(lambda x: np.cos(32 * np.arccos(x)), ndim=1)
    points = np.linspace(-1, 1, 50)[:, None]
    assert_below(np.abs(made.values(points) - np.cos(32 * np.arccos(points[:, 0]))).max(), 1e-8, "error")


def test_what_stands_still_below_the_tolerance_is_searched_before_it_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    searched = []
    search = Cross.search
    monkeypatch.setattr(cross_module, "_ENOUGH", 0.0)  # never small enough to be searched on the way
    monkeypatch.setattr(Cross, "search", lambda self: (searched.append(self.residual), search(self))[1])
    made = cross_of(lambda x, y: np.cos(x + y * x), 2, 1e-6)
    assert_below(made.residual, 1e-6, "residual")
    assert_equal(len(searched), 1)
