"""Plain competitors: the mean of a slice, and k nearest neighbours; their error bars by leaving one out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

Columns = Sequence[NDArray[Any]]
_NEIGHBOURS = (1, 3, 5, 10, 20)
_QUERIES = 5000
_TREE = 100  # dimensions up to which a tree is searched


@dataclass(frozen=True)
class Neighbours:
    """What k nearest neighbours predict: means, shape (N,), and one standard deviation."""

    k: int
    mean: NDArray[np.float64]
    std: float

    @property
    def name(self) -> str:
        """What it is called beside others."""
        return f"nearest neighbours (k = {self.k})"


@dataclass(frozen=True)
class SliceMean:
    """What the mean of all rows with the same index of one mode predicts; ``mode`` is that mode's number."""

    mode: int
    mean: NDArray[np.float64]
    std: float


def nearest_neighbours(
    known: Columns, y: NDArray[np.float64], asked: Columns, kinds: Sequence[str], seed: int
) -> Neighbours:
    """Predict by the mean of the k nearest rows.

    Continuous indices are scaled to unit standard deviation, discrete ones are one-hot. ``k`` is the best of
    1, 3, 5, 10, 20 when every row known (at most 5,000 of them) is predicted from all others, and the root
    mean square error there is the standard deviation of every prediction. ``known`` and ``asked`` hold one
    column per mode.
    """
    places, new = features(known, asked, kinds)
    choices = np.array([k for k in _NEIGHBOURS if k < y.size])
    nearest = _search(places)
    rows = np.random.default_rng(seed).permutation(y.size)[:_QUERIES]
    near = nearest(places[rows], int(choices.max()) + 1)
    own = near == rows[:, None]
    own[~own.any(axis=1), -1] = True  # among many rows at one place, a row may miss itself
    values = y[near[~own].reshape(rows.size, -1)]
    errors = np.cumsum(values, axis=1)[:, choices - 1] / choices - y[rows, None]
    squares = np.mean(errors**2, axis=0)
    best = int(np.argmin(squares))
    k = int(choices[best])
    mean = y[nearest(new, k)].mean(axis=1)
    return Neighbours(k, mean, float(np.sqrt(squares[best])))


def _search(places: NDArray[np.float64]) -> Callable[[NDArray[np.float64], int], NDArray[np.intp]]:
    """What gives the numbers of the ``k`` rows of ``places`` nearest to each row asked for, shape (N, k)."""
    if places.shape[1] > _TREE:
        from sklearn.neighbors import NearestNeighbors

        brute = NearestNeighbors(algorithm="brute").fit(places)
        return lambda asked, k: brute.kneighbors(asked, k, return_distance=False)
    tree = cKDTree(places, balanced_tree=False, compact_nodes=False)  # the others are slow where many tie
    return lambda asked, k: tree.query(asked, range(1, k + 1))[1]


def features(known: Columns, asked: Columns, kinds: Sequence[str]) -> tuple[NDArray[Any], NDArray[Any]]:
    """Index values as numbers whose distances can be compared, scaled on the rows known."""
    parts: list[tuple[NDArray[Any], NDArray[Any]]] = []
    for a, b, kind in zip(known, asked, kinds, strict=True):
        if kind == "discrete":
            labels = np.unique(a)
            parts.append((1.0 * (a[:, None] == labels), 1.0 * (b[:, None] == labels)))
        else:
            center, scale = a.mean(), a.std() or 1.0
            parts.append((((a - center) / scale)[:, None], ((b - center) / scale)[:, None]))
    places, new = (np.concatenate(side, axis=1) for side in zip(*parts, strict=True))
    return places, new


def slice_mean(known: Columns, y: NDArray[np.float64], asked: Columns) -> SliceMean:
    """Predict by the mean of the rows that share one index: of the mode where that works best.

    Best when every row known is predicted from the others of its slice; the root mean square error there is
    the standard deviation. A row alone in its slice, or of an index not known, gets the mean of all.
    """
    total = y.mean()
    found = []
    for mode, column in enumerate(known):
        values, codes = np.unique(column, return_inverse=True)
        counts, sums = np.bincount(codes), np.bincount(codes, weights=y)
        others = counts[codes] - 1
        alone = np.where(others > 0, (sums[codes] - y) / np.maximum(others, 1), total)
        found.append((float(np.sqrt(np.mean((alone - y) ** 2))), mode, values, sums / counts))
    std, mode, values, means = min(found, key=lambda one: one[:2])
    place = np.minimum(np.searchsorted(values, asked[mode]), values.size - 1)
    return SliceMean(mode, np.where(values[place] == asked[mode], means[place], total), std)
