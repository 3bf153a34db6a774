"""The plain competitor: k nearest neighbours, k and the error bar chosen by cross-validation."""

from dataclasses import dataclass

import numpy as np

from tenfac.cli.observations import Observations

_NEIGHBOURS = (1, 3, 5, 10, 20)
_FOLDS = 5
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
    1, 3, 5, 10, 20 in 5-fold cross-validation on the rows fitted (at most 5,000 of them are predicted), and
    the root mean square error there is the standard deviation of every prediction.
    """
    known, asked = features(train, test)
    rng = np.random.default_rng(seed)
    fold = rng.permutation(train.size) % min(_FOLDS, train.size)
    smallest = train.size - int(np.bincount(fold).max())
    choices = [k for k in _NEIGHBOURS if k <= smallest]
    queries = rng.permutation(train.size)[:_QUERIES]
    squares = np.zeros(len(choices))
    for part in np.unique(fold[queries]):
        rows = queries[fold[queries] == part]
        others = np.flatnonzero(fold != part)
        means = _running_means(known[others], train.y[others], known[rows], choices)
        squares += np.sum((means - train.y[rows, None]) ** 2, axis=0)
    best = int(np.argmin(squares))
    mean = _running_means(known, train.y, asked, [choices[best]])[:, 0]
    return Neighbours(choices[best], mean, float(np.sqrt(squares[best] / len(queries))))


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


def _running_means(X: np.ndarray, y: np.ndarray, at: np.ndarray, choices: list[int]) -> np.ndarray:
    """Mean of the k nearest values for each k in ``choices``, shape (N, len(choices))."""
    from sklearn.neighbors import NearestNeighbors

    method = "kd_tree" if X.shape[1] <= 100 else "auto"
    nearest = NearestNeighbors(n_neighbors=max(choices), algorithm=method).fit(X)
    values = y[nearest.kneighbors(at, return_distance=False)]
    means = np.cumsum(values, axis=1) / np.arange(1, values.shape[1] + 1)
    return means[:, np.array(choices) - 1]
