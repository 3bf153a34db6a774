"""The rounds of the adaptive cross: when they end, where they look, what a fibre costs."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from tenfac.core.modes.chebyshev import lobatto
from tenfac.functional.cross import cross as cross_module
from tenfac.functional.cross.cross import Axis, Cross
from tenfac.functional.cross.evaluator import Evaluator
from tests.checks import assert_above, assert_below, assert_close, assert_equal

TOL, SCALE = 1e-6, 50.0


class Watched(Evaluator):
    """Remembers the points that were asked for."""

    def __init__(self, f: Any, ndim: int) -> None:
        super().__init__(f, [(-1, 1)] * ndim, 10**7, True)
        self.seen: list[np.ndarray] = []

    def __call__(self, points: np.ndarray) -> np.ndarray:
        self.seen.append(points.copy())
        return super().__call__(points)


def begun(f: Any = None, ndim: int = 3, tol: float = TOL) -> Cross:
    """A cross that has seen nothing, of a function whose largest value is taken to be SCALE."""
    made = Cross(Watched(f, ndim), ndim, tol, np.random.default_rng(0), 11)
    made.evaluate.largest = SCALE
    return made


def found(f: Any, ndim: int = 3, tol: float = TOL) -> Cross:
    made = begun(f, ndim, tol)
    made.run(np.empty((0, ndim)))
    made.evaluate.seen.clear()
    return made


def reciprocal(x: Any, y: Any, z: Any) -> Any:
    return SCALE / (2.5 + x + y * z)


def product(*x: Any) -> Any:
    return SCALE * np.exp(sum(v - 1 for v in x))


# --- when they end ------------------------------------------------------------------------------------------


class Scripted(Cross):
    """Rounds of given residuals, in tolerances, of which some let the core grow."""

    def __init__(self, residuals: Any, grows: Any, bad: Any = (), shape: Any = (40, 3, 2)) -> None:
        super().__init__(Evaluator(None, [(-1, 1)] * 3, 1, True), 3, 1e-3, np.random.default_rng(0), 11)
        self.evaluate.largest = SCALE
        self.core = SimpleNamespace(shape=shape, sizes=0, look=lambda points: self.looked.append(points))
        self.residuals, self.grows, self.bad = residuals, grows, list(bad)
        self.looked: list[np.ndarray] = []
        self.asked: list[int] = []
        self.searched = 0

    def add_pivots(self, points: np.ndarray) -> None:
        """Nothing."""

    def update(self) -> None:
        self.core.sizes += self.grows(self.rounds)

    def worst(self, count: int) -> np.ndarray:
        self.asked.append(count)
        self.residual = self.residuals(self.rounds - 1) * self.tol * self.scale
        return np.zeros((count, 3))

    def search(self) -> np.ndarray:
        self.searched += 1
        return self.bad.pop(0) if self.bad else np.empty((0, 3))


STALLED, PATIENCE = cross_module._STALLED, cross_module._PATIENCE
# residual of a round, whether the core grows in it, rounds
ENDS = {
    "nothing grows": (lambda _: 9.0, lambda _: False, STALLED),
    "only once": (lambda _: 9.0, lambda k: k == 3, 4 + STALLED),
    "no smaller": (lambda _: 9.0, lambda _: True, 1 + PATIENCE),
    "hardly smaller": (lambda k: 9.0 * 0.9**k, lambda _: True, 1 + PATIENCE),
    "smaller once": (lambda k: 9.0 if k < 6 else 5.0, lambda _: True, 7 + PATIENCE),
    "larger between": (lambda k: (9.0, 20.0, 12.0)[k % 3], lambda _: True, 1 + PATIENCE),
    "ever smaller": (lambda k: 2 + 1e9 * 0.7**k, lambda k: k < 50, 50 + STALLED),
}


@pytest.mark.parametrize("name", ENDS)
def test_rounds_end_when_the_core_or_the_residual_stands_still(name: str) -> None:
    residuals, grows, rounds = ENDS[name]
    made = Scripted(residuals, grows)
    made.run(np.empty((0, 3)))
    assert_equal((made.rounds, made.searched), (rounds, 0))


def test_what_counts_as_noise_is_lowered_in_each_round_that_adds_nothing() -> None:
    made = Scripted(lambda _: 9.0, lambda k: k not in (2, 5))
    before = made.cut
    made.run(np.empty((0, 3)))
    assert_close(made.cut / before, cross_module._LOWER**2)


def test_a_mode_that_cannot_be_resolved_ends_the_rounds_without_a_search() -> None:
    made = Scripted(lambda _: 0.01, lambda _: True)
    made.unresolved[1] = 0.5
    made.run(np.empty((0, 3)))
    assert_equal((made.rounds, made.searched), (1, 0))


def test_a_residual_well_below_the_tolerance_is_searched_and_what_is_found_becomes_pivots() -> None:
    bad = np.full((1, 3), 0.25)
    made = Scripted(lambda k: 0.7 if k < 2 else 0.4, lambda _: True, [bad])
    hints = np.full((4, 3), 0.125)
    made.run(hints)
    assert_equal((made.rounds, made.searched), (4, 2))
    assert_equal(made.looked[3], bad)
    assert_equal(made.looked[0][:4], hints)
    assert_above(len(made.looked[0]), 5, "points of the first round")  # what is hinted at is not all


@pytest.mark.parametrize(("residual", "searched"), [(0.9, 1), (1.1, 0)])
def test_what_stands_still_is_searched_if_it_is_below_the_tolerance(residual: float, searched: int) -> None:
    made = Scripted(lambda _: residual, lambda _: False)
    made.run(np.empty((0, 3)))
    assert_equal((made.rounds, made.searched), (STALLED, searched))


def test_pivots_of_a_round_grow_with_the_rank_and_are_two_at_least() -> None:
    for shape, least, most in (((40, 3, 2), 5, 20), ((1, 1, 1), 2, 2)):
        made = Scripted(lambda _: 9.0, lambda _: False, (), shape)
        made.run(np.empty((0, 3)))
        assert_above(min(made.asked), least, "pivots")
        assert_below(max(made.asked), most, "pivots")


# --- fibres -------------------------------------------------------------------------------------------------


def test_fibres_that_others_span_are_not_drawn_unless_much_larger() -> None:
    made = begun(lambda x, y: np.cos(20 * x) * 10**y, 2, 1e-8)
    made.add_pivots(np.array([[0.1, 0.0]]))
    made.update()
    axis, spent = made.axes[0], made.evaluate.n_evals
    made._draw(0, axis, np.array([[0.3, 0.1], [0.2, 0.25], [-0.7, -0.4]]))
    assert_equal(len(axis.pivots), 1)
    assert_below(made.evaluate.n_evals - spent, 3 * axis.size / 2, "evaluations of three that are not drawn")
    made._draw(0, axis, np.array([[0.3, 0.15], [0.2, 0.5], [-0.7, 0.4]]))
    assert_equal(axis.pivots[1:], np.array([[0.2, 0.5]]))


def test_fibres_beyond_the_span_are_drawn_once_for_each_dimension() -> None:
    def f(x: Any, y: Any) -> Any:
        return np.cos(20 * x) * 10**y + np.sin(13 * x) * y * y

    made = begun(f, 2, 1e-8)
    made.add_pivots(np.array([[0.1, 0.0]]))
    made.update()
    axis = made.axes[0]
    made._draw(0, axis, np.array([[0.3, 0.1], [0.2, 0.2], [-0.7, -0.1]]))
    assert_equal(len(axis.pivots), 2)
    grid = lobatto(axis.size)
    assert_close(axis.fibres, np.stack([f(grid, y) for y in axis.pivots[:, 1]], axis=1))
    assert_close(axis.spots, f(*axis.pivots.T))


@pytest.mark.parametrize("rows", [17, 2049])
def test_columns_are_noise_by_their_root_mean_square_whatever_the_grid(rows: int) -> None:
    made, rng = begun(), np.random.default_rng(1)
    columns = np.linalg.qr(rng.standard_normal((rows, 3)))[0] * np.sqrt(rows)  # of root mean square 1
    noise = made.cut * TOL * SCALE
    for height, count in ((2.0, 3), (0.5, 2)):
        heights = np.array([SCALE, 1.0, height * noise])
        assert_equal(made._span(columns * heights).shape, (rows, count))
    some = columns * [1.0, 2.0, 0.5 * noise]
    assert_equal(made._independent(np.concatenate([some, some[:, :1] + some[:, 1:2]], axis=1)).shape, (2,))
    assert_equal(made._independent(columns * [0.1 * noise, 1.0, 2 * noise]).tolist(), [1, 2])


def test_rounding_errors_of_fibres_are_no_directions() -> None:
    made, rng = begun(tol=1e-15), np.random.default_rng(1)
    column = SCALE * rng.uniform(-1, 1, 2049)
    for height, count in ((6e-15, 1), (1e-12, 2)):
        pair = np.stack([column, column + SCALE * height * rng.uniform(-1, 1, 2049)], axis=1)
        assert_equal(len(made._independent(pair)), count)


def resolved(ndim: int, tail: float, spot: float, degree: int = 15) -> bool:
    """Whether a fibre with such a last coefficient and a value that far off, in tolerances, is resolved."""
    made, axis, unit = begun(None, ndim), Axis(ndim), TOL * SCALE
    series = np.zeros(17)
    series[:3], series[degree] = (3, 2, 1), tail * unit
    chebval = np.polynomial.chebyshev.chebval
    axis.fibres = np.stack([chebval(lobatto(17), series), np.ones(17)], axis=1)
    axis.pivots = np.full((2, ndim), 0.3)
    axis.pivots[1] = -0.6
    axis.spots = np.array([chebval(0.3, series) + spot * unit, 1.0])
    return made._resolved(0, axis)


def test_a_fibre_is_resolved_when_its_last_coefficients_and_values_between_are_below_the_tolerance() -> None:
    for tail, spot, want in ((0.01, 0, True), (1, 0, False), (0, 0.1, True), (0, 1, False), (0, -1, False)):
        assert_equal(resolved(3, tail, spot), want)
    assert_equal(resolved(3, 100, 0, 12), True)  # of lower degree


def test_ten_modes_miss_no_more_than_the_tolerance_together() -> None:
    for tail, spot, want in ((0.01, 0, True), (0.11, 0, False), (0, 0.05, True), (0, 0.2, False)):
        assert_equal(resolved(10, tail, spot), want)


def test_a_finer_grid_keeps_what_was_sampled() -> None:
    def f(x: Any, y: Any) -> Any:
        return SCALE * np.cos(3 * x + y)

    made = begun(f, 2)
    made.add_pivots(np.array([[0.1, 0.7], [0.2, -0.4]]))
    made.update()
    axis = made.axes[0]
    places, size, spent = lobatto(axis.size)[axis.index], axis.size, made.evaluate.n_evals
    made._refine(0, axis)
    assert_equal((axis.size, made.evaluate.n_evals - spent), (2 * size - 1, 2 * (size - 1)))
    grid = lobatto(axis.size)
    assert_close(axis.fibres, np.stack([f(grid, y) for y in axis.pivots[:, 1]], axis=1))
    assert_close(grid[axis.index], places)


# --- rows ---------------------------------------------------------------------------------------------------


def test_rows_are_added_when_the_fit_to_them_is_far_from_the_best_possible() -> None:
    made, least = begun(), np.sqrt(400 / 4)
    basis = np.linalg.qr(np.random.default_rng(0).standard_normal((400, 4)))[0]

    def norm(index: np.ndarray) -> float:
        return float(np.linalg.norm(np.linalg.pinv(basis[index]), 2))

    tried = [np.sort(np.random.default_rng(s).choice(400, 4, replace=False)) for s in range(200)]
    bound = cross_module._STEADY * least
    good = max((index for index in tried if norm(index) <= bound), key=norm)
    assert_above(norm(good), 0.8 * bound, "norm of rows that are let be")
    assert_equal(made._steady(basis, good), good)
    bad = min((index for index in tried if norm(index) > bound), key=norm)
    steady = made._steady(basis, bad)
    assert_equal((steady[:4].tolist(), len(steady)), (bad.tolist(), 5))
    assert_below(norm(steady), bound, "norm of the fit")


@pytest.mark.parametrize(("ndim", "near", "steadied"), [(3, 0.5, 3), (3, 2.0, 0), (5, 0.5, 0)])
def test_rows_beyond_the_rank_are_spent_only_near_the_tolerance_and_where_the_core_is_whole(
    ndim: int, near: float, steadied: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []
    monkeypatch.setattr(Cross, "_steady", lambda _, basis, index: asked.append(len(basis)) or index)
    made = begun(product, ndim)
    made.add_pivots(made.rng.uniform(-1, 1, (1, ndim)))
    made.residual = near * cross_module._NEAR * TOL * SCALE
    made.update()
    assert_equal(len(asked), steadied)


# --- where they look ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("ndim", [2, 6])
def test_every_point_looked_at_lies_in_the_cube(ndim: int) -> None:
    made = begun(product, ndim)
    made.run(np.empty((0, ndim)))
    made.evaluate.n_evals = 10**5  # faces are looked at
    made.search()
    assert_below(np.abs(np.concatenate(made.evaluate.seen)).max(), 1.0, "largest coordinate")


def test_the_residual_is_the_largest_gap_at_random_points_and_the_worst_come_first() -> None:
    made = found(reciprocal)
    made.evaluate.function = lambda x, y, z: reciprocal(x, y, z) + np.maximum(x, 0)
    worst = made.worst(4)
    (seen,) = made.evaluate.seen
    gaps = np.abs(made.evaluate.function(*seen.T) - made.values(seen))
    order = np.argsort(-gaps)
    assert_close(made.residual, float(gaps.max()), 1e6)
    assert_equal(made.weakest, seen[order[0]])
    assert_equal(worst, seen[order[:4]])
    assert_equal(len(seen), 100)


def test_gaps_on_known_fibres_count_without_an_evaluation_but_fill_half_of_the_pivots() -> None:
    made = found(reciprocal)
    axis = made.axes[1]
    k, row = len(axis.pivots) - 1, 7
    axis.fibres[row, k] += 3.0
    places, gaps = made._along_fibres(1, axis)
    want = axis.pivots[k].copy()
    want[1] = lobatto(axis.size)[row]
    assert_equal((len(gaps), int(gaps.argmax())), (k + 1, k))
    assert_equal(places[k], want)
    assert_below(abs(gaps[k] - 3.0), TOL * SCALE, "difference of the gap")
    assert_equal(made.worst(4)[0], want)
    assert_equal(made.residual, float(gaps[k]))
    axis.fibres += 1.0
    assert_above(k, 7, "fibres")
    known = (made.worst(8)[:, None, [0, 2]] == axis.pivots[None, :, [0, 2]]).all(axis=2).any(axis=1)
    assert_equal(int(known.sum()), 4)


def test_half_of_the_random_points_of_many_variables_share_coordinates_with_faces_and_the_largest() -> None:
    made = found(product, 6)
    made.evaluate.place = np.linspace(0.1, 0.6, 6)
    made.worst(2)
    (seen,) = made.evaluate.seen
    ends, same = np.abs(seen) == 1, seen == made.evaluate.place
    for shared in (ends, same):  # of 300 coordinates 3 of 10
        assert_below(abs(int(shared[:50].sum()) - 90), 30, "distance from the expected number")
        assert_equal(int(shared[50:].sum()), 0)
    assert_above(len({*np.sign(seen[ends])}), 2, "ends")


def test_lines_go_from_every_start_along_every_axis_down_to_a_thousandth() -> None:
    for ndim, few in ((3, 20), (6, 10)):
        made = begun(None, ndim)
        starts = np.linspace(-0.9, 0.8, 2 * ndim).reshape(2, ndim)
        points = made._lines(starts).reshape(2, ndim, -1, ndim)
        for k, n in itertools.product(range(2), range(ndim)):
            moved = points[k, n] - starts[k]
            assert_equal(np.delete(moved, n, axis=1), np.zeros((points.shape[2], ndim - 1)))
            steps = moved[:, n]
            assert_equal([float(np.sum(steps > 0)), float(np.sum(steps < 0))], [points.shape[2] / 2] * 2)
            assert_close(np.sort(np.abs(steps))[:2], np.full(2, 1e-3), 1e4)
            assert_above(np.abs(steps).max(), 0.5, "longest step")
            assert_below(np.abs(points).max(), 1.0, "largest coordinate")
            assert_above(len(np.unique(steps.round(9))), few, "steps")


def test_a_search_looks_around_the_largest_value_at_all_distances_at_corners_and_the_middle() -> None:
    for ndim in (3, 4, 6):
        made = begun(lambda *x: 0 * sum(x), ndim)
        made.values = lambda points: np.zeros(len(points))
        made.evaluate.place, made.weakest = np.full(ndim, 0.2), np.full(ndim, -0.3)
        assert_equal(len(made.search()), 0)
        seen = np.concatenate(made.evaluate.seen)
        assert_below(len(seen), 100 * ndim, "evaluations")
        off = np.abs(seen - 0.2)
        near = off[(off > 0).all(axis=1)].max(axis=1)  # not on the lines through it
        for low, high in ((0, 0.01), (0.01, 0.1), (0.1, 0.9)):
            assert_above(int(((near > low) & (near <= high)).sum()), 4, "points of the cloud")
        corners = {tuple(p) for p in seen[(np.abs(seen) == 1).all(axis=1)]}
        assert {(1.0,) * ndim, (-1.0,) * ndim} <= corners
        assert_above(len(corners), min(2**ndim, 10), "corners")
        for start in (0.2, -0.3, 0.0):
            assert_above(int(((seen == start).sum(axis=1) == ndim - 1).sum()), 10 * ndim, "points on lines")


def test_a_search_returns_the_worst_points_above_the_tolerance_and_their_gap() -> None:
    made, unit = found(reciprocal), TOL * SCALE
    values = made.values

    def missed(height: float) -> np.ndarray:
        made.values = lambda points: values(points) + height * unit * np.maximum(points[:, 0], 0)
        made.residual = 0.0
        made.evaluate.seen.clear()
        return made.search()

    assert_equal(len(missed(0.5)), 0)
    assert_below(abs(made.residual / unit - 0.5), 0.1, "difference of the residual")
    points = missed(5000.0)
    assert_above(len(points), 2, "points")
    assert_above(points[:, 0].min(), 0.999, "place")
    seen = np.concatenate(made.evaluate.seen)
    assert_close(made.residual, float(np.abs(reciprocal(*seen.T) - made.values(seen)).max()), 1e6)


@pytest.mark.parametrize(("n_evals", "more"), [(0, 0), (3000, 0), (4000, 1), (7001, 2), (10**6, 4)])
def test_the_more_was_evaluated_the_longer_the_search(n_evals: int, more: int) -> None:
    made, lines = begun(lambda *x: 0 * sum(x)), []
    made.values = lambda points: np.zeros(len(points))
    plain = made._lines
    made._lines = lambda starts: lines.append(starts) or plain(starts)
    made.evaluate.n_evals = n_evals
    made.search()
    assert_equal([len(starts) for starts in lines], [3] + [1] * more)
    made.values = lambda points: 10 * TOL * SCALE * (points[:, 1] < 0)  # found at once: no more lines
    lines.clear()
    made.search()
    assert_equal(len(lines), 1)


def test_lines_of_a_search_go_on_from_the_worst_point() -> None:
    made, lines = begun(lambda *x: 0 * sum(x)), []
    made.values = lambda points: 0.5 * TOL * SCALE * np.abs(points).mean(axis=1)  # largest at a corner
    plain = made._lines
    made._lines = lambda starts: lines.append(starts) or plain(starts)
    made.evaluate.n_evals = 10**4
    made.search()
    assert_equal(np.abs(lines[1]), np.ones((1, 3)))


def test_faces_are_looked_at_by_how_much_was_evaluated_and_close_to_their_ends() -> None:
    made = begun()
    counts = []
    for n_evals in (0, 1000, 2000, 11_000, 10**6):
        made.evaluate.n_evals = n_evals
        counts.append(len(made._faces()))
    assert_equal(counts, [0, 0, 20, 200, 500])
    ends = 1 - np.abs(made._faces())
    assert_above(ends.min(), 0.0, "distance from the cube")
    assert_below(abs(float((ends < 0.01).mean()) - 0.4), 0.05, "share within a hundredth of the end")
    assert_above(int((ends < 1e-5).sum()), 50, "within a hundred thousandth")
    assert_above(int((ends > 0.1).sum()), 400, "farther")
