"""The last cut of a construction: which share of the budget it takes, where it looks, what it leaves."""

from __future__ import annotations

import numpy as np

from tenfac.functional import finish
from tests.checks import assert_above, assert_below, assert_close, assert_equal


def test_the_first_cut_that_keeps_the_budget_is_taken_or_the_last() -> None:
    for slope, want in ((1.0, 1.0), (3.0, 0.9), (20.0, 0.6), (2e4, 0.6), (1e9, 1e4)):
        tried = []

        def cut(spent: float, tried: list[float] = tried) -> tuple[float, float]:
            tried.append(spent)
            return spent, 0.0

        found, _, lost = finish._fitting(
            (0.0, 0.0), cut, lambda a, _, slope=slope: np.array([0.0, -slope * a, slope * a / 2]), 1.0
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
