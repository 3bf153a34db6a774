"""The largest value: the grid and its budget, the beam along a train, the climbs, against what is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from tenfac import CP, GP, Chebyshev, DataError, Discrete, ShapeError, Tucker
from tenfac.core import extrema as module
from tenfac.core.modes.chebyshev import coefficients
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says

KNOTS = [0.0, 0.5, 1.5, 4.0]


@pytest.fixture
def sizes(monkeypatch: Any) -> list[int]:
    """How many values each grid had on which a CP tensor was evaluated."""
    seen: list[int] = []
    on_grid = CP.on_grid

    def spy(self: Any, *axes: Any, **kwargs: Any) -> Any:
        values = on_grid(self, *axes, **kwargs)
        seen.append(values.size)
        return values

    monkeypatch.setattr(CP, "on_grid", spy)
    return seen


def bump(mode: Chebyshev, center: float, width: float) -> np.ndarray:
    return coefficients(np.exp(-(((mode.nodes() - center) / width) ** 2)))[:, None]


def test_the_grid_of_polynomials_has_both_ends_and_two_points_per_coefficient() -> None:
    mode = Chebyshev(6, (2.0, 5.0))
    (axis,) = module._axes(CP(None, [np.ones((6, 1))], [mode]))
    assert_equal((len(axis), axis[0], axis[-1]), (13, 2.0, 5.0))
    swings = np.polynomial.chebyshev.chebval((axis - 3.5) / 1.5, np.eye(13)[12])  # T_12 at its extrema
    assert_close(swings, (-1.0) ** np.arange(13), 1e3)


@pytest.mark.parametrize("limit", [6, 9, 13, 14, 60, 10_000])
def test_the_grid_of_knots_has_all_of_them_and_the_ends_within_its_limit(limit: int) -> None:
    mode = GP("matern12", KNOTS, lengthscale=1.0, domain=(-1.0, 6.0))
    axis = module._points(mode, limit)
    assert_below(len(axis), limit, "points")
    assert_equal(np.isin([-1.0, *KNOTS, 6.0], axis).all(), np.True_)
    gaps, edges = np.diff(axis), np.diff([-1.0, *KNOTS, 6.0])
    assert_close(gaps, np.repeat(edges, len(gaps) // 5) / (len(gaps) // 5))
    assert_above(gaps.size, 5 * min(limit // 6, 5), "gaps")


def test_too_few_points_for_the_knots_are_spread_over_the_domain() -> None:
    axis = module._points(GP("matern12", KNOTS, lengthscale=1.0, domain=(-1.0, 6.0)), 5)
    assert_close(axis, 2.5 - 3.5 * np.cos(np.pi * np.arange(5) / 4), 10)


@pytest.mark.parametrize(
    "modes",
    [
        [Discrete(3), Chebyshev(60), Chebyshev(70, (0.0, 3.0))],
        [Chebyshev(60), Chebyshev(50), Chebyshev(70)],
        [Discrete(7), Discrete(2), Chebyshev(200)],
    ],
)
def test_a_large_grid_is_thinned_to_its_budget_and_the_peak_is_found(
    modes: Any, monkeypatch: Any, sizes: list[int]
) -> None:
    monkeypatch.setattr(module, "_GRID", 5000)
    factors = [np.arange(1.0, m.size + 1)[:, None] if m.domain is None else bump(m, 0.3, 0.8) for m in modes]
    t = CP(None, factors, modes)
    axes = module._axes(t, module._limit(t))
    rows, smooth = math.prod(m.size for m in modes if m.domain is None), [m for m in modes if m.domain]
    each = len(axes[-1])
    assert_equal([len(x) for x in axes], [m.size if m.domain is None else each for m in modes])
    assert each ** len(smooth) * rows <= 5000 < (each + 1) ** len(smooth) * rows
    value, place = t.max()
    assert_below(sum(sizes), 5000, "values on grids")
    assert_below(abs(value / rows - 1), 1e-9, "value")
    want = [m.size - 1 if m.domain is None else 0.3 for m in modes]
    assert_below(np.abs(np.subtract(place, want)).max(), 1e-4, "place")
    assert_equal([type(x) for x in place], [int if m.domain is None else float for m in modes])


def test_rows_beyond_any_budget_are_gone_through_once_slab_by_slab(
    monkeypatch: Any, sizes: list[int]
) -> None:
    monkeypatch.setattr(module, "_GRID", 60)
    rng = np.random.default_rng(0)
    for seed in range(3):
        t = CP(None, [rng.standard_normal((size, 2)) for size in (20, 5, 4)])
        dense, sizes[:] = t.to_tensor(), []
        for found, want in ((t.max(), np.argmax(dense)), (t.min(), np.argmin(dense))):
            assert_equal(found.place, tuple(map(int, np.unravel_index(want, dense.shape))))
            assert_close(found.value, float(dense.ravel()[want]), 10)
        assert_equal((max(sizes), sum(sizes), seed), (60, 800, seed))


def test_starts_are_the_highest_points_that_are_no_neighbors_in_the_grid() -> None:
    axes = [np.linspace(0, 1, 11), np.arange(3), np.linspace(0, 2, 21)]
    found = [
        (5.0, (4, 1, 10)),
        (9.0, (4, 0, 10)),  # the highest
        (8.0, (5, 0, 9)),  # beside it
        (7.0, (4, 0, 20)),  # far from it in the last mode
        (6.0, (10, 0, 10)),  # in the first
        (4.0, (10, 0, 11)),
    ]
    want = [[0.4, 0, 1.0], [0.4, 0, 2.0], [1.0, 0, 1.0], [0.4, 1, 1.0]]
    assert_close(np.array(module._apart(found, axes)), np.array(want), 10)
    rows = [(float(n), (n,)) for n in range(30)]
    assert_equal(module._apart(rows, [np.arange(30)]), [[n] for n in range(29, 21, -1)])


@pytest.mark.parametrize("size", [1e-250, 1.0, 1e250])
@pytest.mark.parametrize("order", [None, (2, 0, 3, 1)])
def test_a_beam_of_one_finds_the_largest_magnitude_of_a_product(
    order: Any, size: float, monkeypatch: Any
) -> None:
    monkeypatch.setattr(module, "_GRID", 10)
    monkeypatch.setattr(module, "_BEAM", 1)
    rng = np.random.default_rng(3)
    columns = [np.abs(rng.standard_normal((count, 1))) for count in (4, 5, 3, 6)]
    t = CP(np.array([size]), columns).to_train(order=order)
    assert_equal(t.max().place, tuple(int(column.argmax()) for column in columns))


@pytest.mark.parametrize("order", [None, (2, 0, 3, 1)])
def test_a_beam_finds_the_highest_entry_of_a_train_below_zero(order: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_GRID", 10)
    rng = np.random.default_rng(3)
    for shift in (0.0, -10.0, 10.0):  # the largest magnitude is low, or high
        factors = [rng.uniform(0.5, 1.5, (size, 2)) for size in (4, 5, 3, 6)]
        for factor in factors:
            factor[:, 1] = 1.0
        t = CP(np.array([1.0, shift]), factors).to_train(order=order)
        dense = t.to_tensor()
        for found, at in ((t.max(), dense.argmax()), (t.min(), dense.argmin())):
            assert_equal(found.place, tuple(map(int, np.unravel_index(at, dense.shape))))
            assert_close(found.value, float(dense.ravel()[at]))


def test_a_train_without_entries_below_zero_is_searched_once(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_GRID", 10)
    seen, beam = [], module._beam
    monkeypatch.setattr(module, "_beam", lambda *parts: seen.append(parts) or beam(*parts))
    t = CP(None, [np.random.default_rng(0).uniform(0.1, 0.9, (5, 2)) for _ in range(3)]).to_train()
    assert_close(t.max().value, float(t.to_tensor().max()))
    assert_equal(len(seen), 1)


def test_the_box_of_a_first_climb_ends_at_the_neighbors_in_the_grid() -> None:
    axis = np.array([0.0, 1.0, 3.0, 7.0])
    for x, want in ((0.0, (0.0, 1.0)), (1.0, (0.0, 3.0)), (3.0, (1.0, 7.0)), (7.0, (3.0, 7.0))):
        assert_equal(tuple(map(float, module._around(axis, x))), want)


@pytest.mark.parametrize("lengths", [(1e-4, 1e4), (3.0, 1e3), (1.0, 1.0)])
def test_a_climb_does_not_depend_on_the_lengths_of_the_domain(
    lengths: tuple[float, float], monkeypatch: Any
) -> None:
    modes = [Chebyshev(40, (-0.9 * length, 0.1 * length)) for length in lengths]
    t = CP(
        None, [bump(m, -0.37 * length, 0.2 * length) for m, length in zip(modes, lengths, strict=True)], modes
    )
    seen, value_and_grad = [], CP.value_and_grad
    monkeypatch.setattr(CP, "value_and_grad", lambda self, *x: seen.append(x) or value_and_grad(self, *x))
    value, place = t.max()
    assert_below(abs(value - 1), 1e-13, "value")
    assert_below(np.abs(np.divide(place, lengths) + 0.37).max(), 1e-7, "place")
    highest = [
        min(axis, key=lambda x, c=-0.37 * n: abs(x - c))
        for axis, n in zip(module._axes(t), lengths, strict=True)
    ]
    assert_close(np.divide(seen[0], lengths), np.divide(highest, lengths), 10)  # where the first climb begins


def test_a_low_bump_on_a_high_level_is_climbed() -> None:
    mode = Chebyshev(40, (0.0, 1.0))
    level = np.eye(40)[:, :1]
    t = CP(np.array([1e-8, 1.0]), [np.hstack([bump(mode, 0.37, 0.2), level])] * 2, [mode] * 2)
    assert_below(np.abs(np.array(t.max().place) - 0.37).max(), 1e-3, "place")


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e9])
def test_a_peak_between_knots_is_climbed_without_slopes_whatever_its_size(size: float) -> None:
    knots, domain = np.array([0.0, 1.0]), (0.0, 1.0)
    mode = GP("matern12", knots, lengthscale=0.5, domain=domain)
    t = CP(np.array([-size]), [mode.factor(np.array([[1.0], [2.0]]), level=np.zeros((1, 1)))], [mode])
    # the mean is (sinh(2 (1 - x)) + 2 sinh(2 x)) / sinh(2), a multiple of cosh(2 (x - c)) with this c
    c = np.arctanh((math.cosh(2) - 2) / math.sinh(2)) / 2
    value, place = t.max()
    assert_below(abs(place[0] - c), 1e-5, "place")
    assert_close(value / size, -float(np.sinh(2 * (1 - c)) + 2 * np.sinh(2 * c)) / math.sinh(2), 1e4)


def test_a_peak_with_a_kink_is_found_at_its_knot(monkeypatch: Any) -> None:
    monkeypatch.setattr(module, "_STARTS", 1)
    mode = GP("matern12", [0.0, 1.0, 2.5, 4.0], lengthscale=2.0)
    t = CP(None, [mode.factor(np.array([[1.0], [2.0], [3.0], [0.0]])), np.ones((2, 1))], [mode, Discrete(2)])
    value, place = t.max()
    assert_close(value, 3.0, 10)
    assert_equal(place[0], 2.5)
    assert_close(t.min().value, 0.0, 10, scale=3.0)


def test_a_maximum_at_an_end_or_of_nothing_but_zeros_is_taken() -> None:
    mode = Chebyshev(2, (1.0, 3.0))
    line = np.array([[2.0], [1.0]])
    assert_equal(tuple(CP(None, [line], [mode]).max()), (3.0, (3.0,)))
    assert_equal(tuple(CP(None, [line], [mode]).min()), (1.0, (1.0,)))
    assert_equal(CP(None, [0 * line], [mode]).max().value, 0.0)
    below = CP(None, [coefficients(-(Chebyshev(3).nodes() ** 2))[:, None]], [Chebyshev(3)])
    assert_below(abs(below.max().value), 1e-15, "maximum of -x^2")


def test_of_one_row_there_is_a_maximum_of_none_or_of_a_batch_there_is_not() -> None:
    assert_equal(tuple(CP(None, [np.array([[2.0]]), np.array([[3.0], [4.0]])]).max()), (8.0, (0, 1)))
    for t, kind, said in (
        (CP(None, [np.ones((0, 1)), np.ones((2, 1))]), ShapeError, "needs a tensor with entries"),
        (CP(None, [np.ones((3, 2, 1))]), ShapeError, "needs one function; got a batch of shape (3,)"),
        (Tucker(np.ones((1, 1)), [np.ones((2, 1)), 1j * np.ones((2, 1))]), DataError, "needs real values"),
    ):
        with pytest.raises(kind) as error:
            t.max()
        assert_says(error, f"max: {said}")
