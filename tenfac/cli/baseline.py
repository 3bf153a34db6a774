"""The plain competitor: k nearest neighbours, k and the error bar chosen by leaving one out."""

from dataclasses import dataclass

import numpy as np

from tenfac.cli.observations import Observations

_NEIGHBOURS = (1, 3, 5, 10, 20)
_QUERIES = 5000


@dataclass(frozen=True)
class Neighbours:
    """What the baseline predicts at the held-out rows."""

    k: int
    mean: np.ndarray
    std: float


def nearest_neighbours(train: Observations, test: Observations, seed: int) -> Neighbours:
    """Predict by the mean of the k nearest rows.

    Continuous indices are scaled to unit standard deviation, discrete ones are one-hot. ``k`` is the best of
    1, 3, 5, 10, 20 when every row fitted (at most 5,000 of them) is predicted from all others, and the root
    mean square error there is the standard deviation of every prediction.
    """
    from sklearn.neighbors import NearestNeighbors

    known, asked = features(train, test)
    choices = np.array([k for k in _NEIGHBOURS if k < train.size])
    tree = NearestNeighbors(algorithm="kd_tree" if known.shape[1] <= 100 else "auto").fit(known)
    rows = np.random.default_rng(seed).permutation(train.size)[:_QUERIES]
    near = tree.kneighbors(known[rows], choices.max() + 1, return_distance=False)
    own = near == rows[:, None]
    own[~own.any(axis=1), -1] = True  # among many rows at one place, a row may miss itself
    values = train.y[near[~own].reshape(rows.size, -1)]
    errors = np.cumsum(values, axis=1)[:, choices - 1] / choices - train.y[rows, None]
    squares = np.mean(errors**2, axis=0)
    best = int(np.argmin(squares))
    k = int(choices[best])
    mean = train.y[tree.kneighbors(asked, k, return_distance=False)].mean(axis=1)
    return Neighbours(k, mean, float(np.sqrt(squares[best])))


def features(train: Observations, test: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Index values as numbers whose distances can be compared, scaled on the rows fitted."""
    parts: list[tuple[np.ndarray, np.ndarray]] = []
    for mode in train.modes:
        a, b = train.X[mode.name], test.X[mode.name]
        if mode.kind == "discrete":
            labels = np.unique(a)
            parts.append((1.0 * (a[:, None] == labels), 1.0 * (b[:, None] == labels)))
        else:
            center, scale = a.mean(), a.std() or 1.0
            parts.append((((a - center) / scale)[:, None], ((b - center) / scale)[:, None]))
    known, asked = (np.concatenate(side, axis=1) for side in zip(*parts, strict=True))
    return known, asked
