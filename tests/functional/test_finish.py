"""The last cut of a construction: which share of the budget it takes, where it looks, what it leaves."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.polynomial.chebyshev import chebval

from tenfac import Tucker
from tenfac.functional import finish
from tests.checks import assert_above, assert_below, assert_close, assert_equal


def test_the_first_cut_that_keeps_the_budget_is_taken_or_the_last() -> None:
    for slope, want in ((1.0, 1.0), (3.0, 0.9), (20.0, 0.6), (2e4, 0.6), (1e9, 1e4)):
        tried = []

        def cut(spent: float, tried: list[float] = tried) -> tuple[float, float]:
            tried.append(spent)
            return spent, 0.0

        found, _, lost = finish._fitting(
            (0.0, 0.0), cut, lambda a, _, slope=slope: np.array([7.0, 3.0 - slope * a, slope * a / 2]), 1.0
        )
        assert_close(lost, want)
        assert_close(found * slope, want)
        assert_equal(tried, sorted(tried, reverse=True))
        assert_equal(found, tried[-1])


def test_degrees_are_left_out_while_their_sum_is_within_the_budget() -> None:
    heights = np.array([1.0, 0.5, 0.25, 0.125])
    for budget, kept in ((0.1, 4), (0.125, 3), (0.37, 3), (0.375, 2), (0.9, 1), (5.0, 1)):
        basis, triangle = finish._lower(np.diag(heights), np.eye(4), budget)
        assert_equal(basis.shape[0], kept)
        assert_close(basis @ triangle, np.diag(heights)[:kept])


def test_the_height_of_a_degree_is_the_norm_of_its_coefficients() -> None:
    rng = np.random.default_rng(0)
    factor, core = rng.standard_normal((6, 3)) * 0.1 ** np.arange(6)[:, None], rng.standard_normal((3, 2, 4))
    dense = np.einsum("ka,abc->kbc", factor, core)
    for kept in range(1, 6):
        rest = np.linalg.norm(dense[kept:], axis=(1, 2)).sum()
        basis, triangle = finish._lower(factor, core, 1.001 * rest)
        assert_equal(len(basis), kept)
        assert_close(basis @ triangle, factor[:kept])
        assert_equal(len(finish._lower(factor, core, 0.999 * rest)[0]), kept + 1)


def values_of(core: np.ndarray, factors: list[np.ndarray], points: np.ndarray) -> np.ndarray:
    """Values of a function of three Chebyshev modes by numpy's polynomials."""
    rows = [np.stack([chebval(x, c) for c in f.T], axis=1) for x, f in zip(points.T, factors, strict=True)]
    return np.einsum("abc,na,nb,nc->n", core, *rows)


def decaying(sizes: tuple[int, ...] = (12, 14, 11), rank: int = 5) -> tuple[np.ndarray, list[np.ndarray]]:
    """Core and coefficients of three modes: by ten less from rank to rank, by two from degree to degree."""
    rng = np.random.default_rng(0)
    fall = 0.1 ** np.add.outer(np.add.outer(np.arange(rank), np.arange(rank)), np.arange(rank))
    factors = [rng.standard_normal((size, rank)) * 0.5 ** np.arange(size)[:, None] for size in sizes]
    return rng.standard_normal((rank,) * 3) * fall, factors


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
@pytest.mark.parametrize("train", [False, True])
def test_the_last_cut_moves_values_by_at_most_the_budget_and_leaves_less(train: bool, scale: float) -> None:
    core, factors = decaying()
    core, budget = scale * core, scale * 1e-2
    if train:
        cores = list(Tucker(core, factors).to_train().cores)
        cores, made, lost = finish.shortened_train(cores, factors, budget)
        small = np.einsum("xay,ybz,zcw->abc", *cores)
    else:
        small, made, lost = finish.shortened(core, factors, budget)
    for factor, size in zip(made, (12, 14, 11), strict=True):
        assert_close(factor.T @ factor, np.eye(factor.shape[1]))
        assert_below(len(factor), size - 1, "coefficients")
        assert_below(factor.shape[1], 4, "rank")
    points = finish._places(3, None)
    moved = np.abs(values_of(small, made, points) - values_of(core, factors, points)).max()
    assert_close(moved, lost, 1e6)
    assert_below(lost, budget, "change at the points looked at")
    assert_above(lost, 0.03 * budget, "change at the points looked at")
    points = np.random.default_rng(1).uniform(-1, 1, (2000, 3))
    moved = np.abs(values_of(small, made, points) - values_of(core, factors, points)).max()
    assert_below(moved, 1.5 * budget, "change elsewhere")


def test_a_train_of_bonds_unlike_its_ranks_is_cut_too() -> None:
    rng = np.random.default_rng(0)
    cores = [rng.standard_normal(size) for size in ((1, 4, 2), (2, 4, 3), (3, 4, 1))]
    factors = [rng.standard_normal((size, 4)) * 0.3 ** np.arange(size)[:, None] for size in (12, 14, 11)]
    small, made, lost = finish.shortened_train(cores, factors, 1e-3)
    points = finish._places(3, None)
    before, after = (
        values_of(np.einsum("xay,ybz,zcw->abc", *c), f, points) for c, f in ((cores, factors), (small, made))
    )
    assert_close(np.abs(after - before).max(), lost, 1e6)
    assert_below(lost, 1e-3, "change")
    assert_below(max(map(len, made)), 10, "coefficients")


def test_rows_of_a_discrete_mode_are_kept_and_spread_over_the_points() -> None:
    core, factors = decaying((12, 6, 11))
    small, made, lost = finish.shortened(core, factors, 1e-2, discrete=[1])
    assert_equal([len(f) < size for f, size in zip(made, (12, 6, 11), strict=True)], [True, False, True])
    points = np.array([[0.3, x, -0.7] for x in np.linspace(-1, 1, 6)])
    for c, f in ((core, factors), (small, made)):
        got = finish.evaluate(c, f, points, [1])
        want = [values_of(c, [f[0], f[1][[k]], f[2]], points[[k]])[0] for k in range(6)]
        assert_close(got, np.array(want))
    change = finish.evaluate(small, made, points, [1]) - finish.evaluate(core, factors, points, [1])
    assert_below(np.abs(change).max(), 1.5e-2, "change")
    assert_below(lost, 1e-2, "change")


def test_points_of_the_last_look_are_anywhere_at_ends_and_around_the_place() -> None:
    for place in (None, np.array([0.3, -1.0, 0.9])):
        points = finish._places(3, place)
        near = np.zeros(3) if place is None else place
        assert_equal(points.shape, (400, 3))
        assert_below(np.abs(points).max(), 1.0, "magnitude")
        at_ends = (np.abs(points[:133]) == 1).mean()
        assert_above(at_ends, 0.5, "share of coordinates at ends")
        assert_below(at_ends, 0.7, "share of coordinates at ends")
        for n in range(3):
            assert_equal(set(points[:133, n][np.abs(points[:133, n]) == 1]), {-1.0, 1.0})
        far = np.abs(points[133:266] - near).max(axis=1)
        assert_below(far[0], 1e-4, "distance of the first")
        assert_above(far[-10:].max(), 0.5, "distance of the last")
        assert_below(np.median(far), 2e-2, "median distance")
        assert_equal(points[266], near)
        assert_equal(int((np.abs(points[267:]) == 1).sum()), 0)
        assert_below(np.abs(points[267:].mean(axis=0)).max(), 0.3, "mean of those anywhere")


def test_a_function_that_is_zero_has_one_coefficient_or_all_rows_of_a_discrete_mode() -> None:
    core, factors, lost = finish.shortened(
        np.zeros((2, 1)), [np.ones((5, 2)), np.ones((3, 1))], 0.1, None, [1]
    )
    assert_equal((core.shape, [f.shape for f in factors], lost), ((1, 1), [(1, 1), (3, 1)], 0.0))
    cores, factors, lost = finish.shortened_train(
        [np.zeros((1, 2, 2)), np.ones((2, 2, 1))], [np.ones((5, 2)), np.ones((4, 2))], 0.1
    )
    assert_equal(([c.shape for c in cores], [f.shape for f in factors]), ([(1, 1, 1)] * 2, [(1, 1)] * 2))
    assert_equal(lost, 0.0)
