"""Near pairs: each found, in blocks of bounded size; charges at one place."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.spatial import cKDTree

from tenfac import DataError, Electrostatics
from tenfac.functional.charges import neighbors as module
from tenfac.functional.charges.neighbors import check_apart, neighbors, pairs
from tests.checks import assert_above, assert_below, assert_equal, assert_says


def distances(points: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.linalg.norm(points[:, None] - places, axis=2)


@pytest.mark.parametrize("at_once", [1, 2**20])
def test_near_pairs_are_all_found_and_each_once(monkeypatch, at_once) -> None:
    monkeypatch.setattr(module, "_PAIRS", at_once)
    rng = np.random.default_rng(0)
    places, points = rng.uniform(size=(90, 3)), rng.uniform(size=(70, 3))
    found = [(i + start, j, stop - start) for start, stop, i, j in neighbors(cKDTree(places), points, 0.4)]
    assert_equal(sum(size for _, _, size in found), 70)
    got = {(int(i), int(j)) for rows, columns, _ in found for i, j in zip(rows, columns, strict=True)}
    assert_equal(sum(len(rows) for rows, _, _ in found), len(got))
    assert_equal(got, set(zip(*np.nonzero(distances(points, places) < 0.4), strict=True)))
    own = [
        p for block in pairs(cKDTree(places), 0.4) for p in zip(*map(np.ndarray.tolist, block), strict=True)
    ]
    near = np.triu(distances(places, places) < 0.4, 1)
    assert_equal(sorted(own), sorted(zip(*(x.tolist() for x in np.nonzero(near)), strict=True)))


def test_a_block_holds_as_many_points_and_pairs_as_are_allowed(monkeypatch) -> None:
    monkeypatch.setattr(module, "_PAIRS", 200)
    apart = np.arange(400.0)[:, None] * [10.0, 0.0, 0.0]
    alone = neighbors(cKDTree(apart), apart + 5.0 * np.eye(3)[1], 1.0)
    assert_equal([(start, stop) for start, stop, _, _ in alone], [(0, 200), (200, 400)])
    # a first point that has none says nothing about the others, each of which has four
    four = np.repeat(apart[1:], 4, axis=0) + np.tile(0.1 * np.eye(4, 3), (399, 1))
    blocks = [(stop - start, len(i)) for start, stop, i, _ in neighbors(cKDTree(four), apart, 1.0)]
    assert_equal(sum(pairs for _, pairs in blocks), 4 * 399)
    assert_below(max(sum(block) for block in blocks), 220, "points and pairs of a block")
    assert_above(max(sum(block) for block in blocks), 180, "points and pairs of a block")


def test_no_points_have_no_neighbors_of_any_part() -> None:
    system = Electrostatics([[0.0, 0, 0], [1, 2, 3]], [1.0, 1.0], tol=1e-3)
    for part in ("short", "long", "total"):
        assert_equal(system.potential(np.zeros((0, 3)), part=part).shape, (0,))
        assert_equal(system.field(np.zeros((0, 3)), part=part).shape, (0, 3))
    assert_equal([b[:2] for b in neighbors(cKDTree(np.eye(3)), np.zeros((0, 3)), 1.0)], [(0, 0)])


def test_one_place_is_to_rounding_of_the_largest_coordinate_and_the_first_two_rows_are_named() -> None:
    check_apart(cKDTree(np.array([[0.0, 0.0, 0.0]])), "here")
    for scale in (1e-3, 1.0, 1e6):
        near = scale * np.array([[1.0, 0, 0], [0, 0, 0.5], [1.0, 0, 0], [1.0, 0, 0], [0.3, 0, 0]])
        near[2, 1], near[3, 1] = 2e-13 * scale, -2e-13 * scale
        with pytest.raises(DataError) as error:
            check_apart(cKDTree(near), "here")
        assert_says(error, "here", "rows [0, 2]")
        with pytest.raises(DataError) as error:
            check_apart(cKDTree(near[[1, 2, 4, 0]]), "here")
        assert_says(error, "rows [1, 3]")
        near[2, 1], near[3, 1] = 2e-11 * scale, -2e-11 * scale
        check_apart(cKDTree(near), "here")
