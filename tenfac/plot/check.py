"""Rows that a model has not seen, and what it and the plain baselines say of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tenfac.bayes.baselines import nearest_neighbours, slice_mean
from tenfac.bayes.likelihoods.named import kind_of
from tenfac.bayes.metrics import gaussian_metrics
from tenfac.bayes.predictive import columns_by_mode, predictive, without_rows
from tenfac.core.errors import DataError, ShapeError

SHARE = 0.1
LEVELS = (0.5, 0.8, 0.95)


@dataclass(frozen=True, eq=False)
class Check:
    """Predictions where they can be judged.

    Parameters
    ----------
    X : dict of arrays, shape (N,)
        Index values per mode.
    y, mean, std, z : arrays, shape (N,)
        Observed, predicted, its standard deviation (noise included), standard normal quantile of y.
    rivals : dict
        Means and standard deviations of other predictions of y, by name.
    scope : str
        Which rows these are and who has seen them, in a sentence.
    """

    X: dict[str, np.ndarray]
    y: np.ndarray
    mean: np.ndarray
    std: np.ndarray
    z: np.ndarray
    rivals: dict[str, tuple[np.ndarray, np.ndarray]]
    scope: str

    @property
    def pit(self) -> np.ndarray:
        """Probability integral transforms, shape (N,)."""
        from scipy.special import ndtr

        return ndtr(self.z)

    def scores(self) -> dict[str, dict[str, float]]:
        """RMSE, MAE, NLL, CRPS and coverage, ours first."""
        found = {"tenfac": gaussian_metrics(self.y, self.mean, self.std)}
        found["tenfac"]["coverage"] = self.coverage(0.95)
        found |= {name: gaussian_metrics(self.y, mean, std) for name, (mean, std) in self.rivals.items()}
        return found

    def coverage(self, level: float, rows: np.ndarray | slice = slice(None)) -> float:
        """Share of values inside their central interval of probability ``level``."""
        return float(np.mean(np.abs(self.pit[rows] - 0.5) <= level / 2))


def held_out(model: Any, fitted: Any, y: np.ndarray, X_test: Any, y_test: np.ndarray) -> Check:
    """Judge on rows that the model was not fitted to."""
    y_test = np.asarray(y_test, dtype=float)
    known, asked = columns_by_mode(model, fitted), columns_by_mode(model, X_test)
    if y_test.shape != next(iter(asked.values())).shape or not np.isfinite(y_test).all():
        raise ShapeError(
            f"report: `test` must be (X, y) with one finite y per row of X; got shape {y_test.shape} "
            f"for {next(iter(asked.values())).size} rows."
        )
    _refuse_shares(model)
    found = predictive(model, asked, y_test)
    scope = f"{y_test.size:,} rows that were held out: the model was not fitted to them."
    rivals = _rivals(model, known, y, asked)
    return Check(asked, y_test, found.observation_mean, found.observation_std, found.z, rivals, scope)


def _refuse_shares(model: Any) -> None:
    if kind_of(model._likelihood) == "binomial":
        raise DataError(
            "report: shares of successes are judged by their numbers of trials, which a report does not "
            "take; got likelihood='binomial'. Call calibration(X, y, sample_weight=trials) of the model."
        )


def left_out(model: Any, X: Mapping[str, np.ndarray], y: np.ndarray, seed: int) -> Check:
    """Judge on a tenth of the rows fitted, which a second posterior leaves out."""
    discrete = [
        name for name, kind in zip(model.mode_names_, model.kinds_, strict=True) if kind == "discrete"
    ]
    held = rows_to_leave_out(X, discrete, y.size, seed)
    _refuse_shares(model)
    other = without_rows(model, X, y, held)
    part = {name: values[~held] for name, values in X.items()}
    check = held_out(other, part, y[~held], {name: values[held] for name, values in X.items()}, y[held])
    scope = (
        f"{int(held.sum()):,} rows, drawn with seed {seed} and left out of a second posterior with the same "
        "hyperparameters. Those were learned from all rows, so this is a little kinder than rows never seen."
    )
    return replace(check, scope=scope)


def rows_to_leave_out(
    X: Mapping[str, np.ndarray], discrete: Sequence[str], size: int, seed: int
) -> np.ndarray:
    """Mask of a tenth of ``size`` rows, drawn; a label that no other row has stays."""
    if size < 3:
        raise DataError(
            f"report: three rows are needed to leave one out and fit the others; got {size}. Give more."
        )
    held, count = np.zeros(size, dtype=bool), min(max(round(SHARE * size), 1), size - 2)
    held[np.random.default_rng(seed).permutation(size)[:count]] = True
    for name in discrete:
        _, first, code = np.unique(X[name], return_index=True, return_inverse=True)
        held[first[np.setdiff1d(np.arange(first.size), code[~held])]] = False
    if not held.any():
        raise DataError(
            "report: of the rows drawn, each has a label that no other row has, and none can be left out to "
            "judge the fit. Give `test` rows, draw others, or leave the report out."
        )
    return held


def _rivals(
    model: Any, known: Mapping[str, np.ndarray], y: np.ndarray, asked: Mapping[str, np.ndarray]
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    names = list(model.mode_names_)
    sides = [[side[name] for name in names] for side in (known, asked)]
    plain = slice_mean(sides[0], y, sides[1])
    found = {f"mean of the same {names[plain.mode]}": (plain.mean, plain.std)}
    if y.size > 1:
        near = nearest_neighbours(sides[0], y, sides[1], model.kinds_, 0)
        found[near.name] = (near.mean, near.std)
    tiny = np.finfo(float).tiny
    return {name: (mean, np.full(mean.size, max(std, tiny))) for name, (mean, std) in found.items()}
