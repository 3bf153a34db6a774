"""The plain competitors, asked for observations of a table."""

import numpy as np

from tenfac.bayes import baselines
from tenfac.bayes.baselines import Neighbours, SliceMean
from tenfac.cli.observations import Observations


def nearest_neighbours(train: Observations, test: Observations, seed: int) -> Neighbours:
    """Predict by the mean of the k nearest rows."""
    return baselines.nearest_neighbours(_columns(train), train.y, _columns(test), _kinds(train), seed)


def slice_mean(train: Observations, test: Observations) -> SliceMean:
    """Predict by the mean of the rows that share one index."""
    return baselines.slice_mean(_columns(train), train.y, _columns(test))


def features(train: Observations, test: Observations) -> tuple[np.ndarray, np.ndarray]:
    """Index values as numbers whose distances can be compared, scaled on the rows fitted."""
    return baselines.features(_columns(train), _columns(test), _kinds(train))


def _columns(obs: Observations) -> list[np.ndarray]:
    return [obs.X[mode.name] for mode in obs.modes]


def _kinds(obs: Observations) -> list[str]:
    return [mode.kind for mode in obs.modes]
