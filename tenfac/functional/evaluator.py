"""A user's function as the constructions call it: counted, checked, on the cube [-1, 1]^D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from ..core.errors import DataError, ShapeError

# Parts of a set of points that a pool computes side by side.
_PARTS = 64


class OutOfEvaluationsError(Exception):
    """The budget of evaluations is spent."""


class Evaluator:
    """Values of a function at points of the cube; remembers how many, and the largest with its place.

    Parameters
    ----------
    function : callable
        ``f(x, y, ...)`` of D arrays of one shape, to an array of that shape; with ``vectorized=False`` of D
        floats, to a float.
    domain : sequence of (float, float)
    max_evals : int
    vectorized : bool
    executor : concurrent.futures.Executor, optional
    """

    def __init__(
        self,
        function: Callable[..., Any],
        domain: Sequence[tuple[float, float]],
        max_evals: int,
        vectorized: bool,
        executor: Executor | None = None,
    ) -> None:
        self.function = function if vectorized else partial(_one_by_one, function)
        self.executor = executor
        self.low, self.high = np.array(domain, dtype=float).T
        self.max_evals, self.n_evals = max_evals, 0
        self.largest, self.place = 0.0, np.zeros(len(domain))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        if self.n_evals + len(points) > self.max_evals:
            raise OutOfEvaluationsError
        places = self.to_domain(points)
        values = self._called(places)
        self.n_evals += len(points)
        if len(values):
            at = int(np.abs(values).argmax())
            if abs(values[at]) > self.largest:
                self.largest, self.place = float(abs(values[at])), points[at]
        return values

    @staticmethod
    def _shaped(values: Any, count: int) -> np.ndarray:
        values = np.asarray(values)
        if values.shape == ():  # a constant
            return np.full(count, values)
        if values.shape != (count,):
            raise ShapeError(
                f"chebyshev_tucker: `f` must return one number per point; got shape {values.shape} for "
                f"{count} points. Let f work on arrays, or pass vectorized=False."
            )
        return values

    def to_domain(self, points: np.ndarray) -> np.ndarray:
        """Points of the cube as points of the domain."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return np.clip(middle + half * points, self.low, self.high)

    def _called(self, places: np.ndarray) -> np.ndarray:
        if self.executor is None:
            values = self._shaped(self.function(*places.T), len(places))
        else:
            parts = np.array_split(places, min(_PARTS, max(len(places), 1)))
            found = self.executor.map(partial(_call, self.function), parts)
            values = np.concatenate([self._shaped(x, len(p)) for x, p in zip(found, parts, strict=True)])
        if np.iscomplexobj(values):
            raise DataError(
                "chebyshev_tucker: `f` must return real numbers; got complex. Build Re f and Im f."
            )
        if values.dtype.kind not in "biuf":
            raise DataError(f"chebyshev_tucker: `f` must return real numbers; got dtype {values.dtype}.")
        values = values.astype(float)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            place = ", ".join(f"{x:.6g}" for x in places[bad[0]])
            raise DataError(
                f"chebyshev_tucker: `f` must be finite on the domain; got {values[bad[0]]} at ({place}). "
                "Leave the singularity out of the domain."
            )
        return values


def _one_by_one(function: Callable[..., Any], *columns: np.ndarray) -> np.ndarray:
    """A function of numbers, at arrays of them."""
    return np.array([function(*place) for place in zip(*(x.tolist() for x in columns), strict=True)])


def _call(function: Callable[..., Any], places: np.ndarray) -> Any:
    return function(*places.T)
