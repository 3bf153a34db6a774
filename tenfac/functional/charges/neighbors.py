"""Pairs of points and charges nearer than a cutoff, block by block."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from scipy.spatial import cKDTree

from tenfac.core.arrays import spans
from tenfac.core.errors import DataError

# Points and pairs handled at once.
_PAIRS = 2**20
# Points whose neighbors are counted to know how many are handled at once.
_SAMPLE = 64
# Charges nearer than this, relative to the largest coordinate, are at one place.
_SAME = 1e-12


def check_apart(tree: cKDTree, where: str) -> None:
    """No two charges at one place."""
    limit = _SAME * float(np.abs(tree.data).max())
    distance = tree.query(tree.data, k=[2])[0][:, 0]
    worst = int(distance.argmin())
    if distance[worst] <= limit:
        rows = sorted(tree.query_ball_point(tree.data[worst], limit))
        raise DataError(
            f"{where}: no two charges may be at one place, their energy is infinite; got "
            f"{tree.data[worst].tolist()} in rows {rows[:2]}. Join them into one charge."
        )


def _per_point(tree: cKDTree, points: np.ndarray, cutoff: float) -> float:
    """Neighbors of a point, from a sample, rounded up."""
    sample = points[:: math.ceil(len(points) / _SAMPLE)]
    return float(np.mean(tree.query_ball_point(sample, cutoff, return_length=True))) + 1


def neighbors(
    tree: cKDTree, points: np.ndarray, cutoff: float
) -> Iterator[tuple[int, int, np.ndarray, np.ndarray]]:
    """Blocks of points ``start:stop`` with the pairs (row in the block, charge) nearer than the cutoff."""
    if not len(points):
        none = np.array([], dtype=np.int64)
        yield 0, 0, none, none
        return
    step = max(int(_PAIRS / _per_point(tree, points, cutoff)), 16)
    for span in spans(len(points), step):
        found = cKDTree(points[span]).sparse_distance_matrix(tree, cutoff, output_type="ndarray")
        yield span.start, span.stop, found["i"].copy(), found["j"].copy()


def pairs(tree: cKDTree, cutoff: float) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Blocks of pairs of charges nearer than the cutoff, each pair once."""
    for start, _, i, j in neighbors(tree, tree.data, cutoff):
        once = i + start < j
        yield i[once] + start, j[once]
