"""A user's function as the constructions call it: counted, checked, on the cube [-1, 1]^D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..core.errors import DataError


class OutOfEvaluations(Exception):
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
    """

    def __init__(
        self,
        function: Callable[..., Any],
        domain: Sequence[tuple[float, float]],
        max_evals: int,
        vectorized: bool,
    ) -> None:
        self.function = function if vectorized else np.vectorize(function, otypes=[float])
        self.low, self.high = np.array(domain, dtype=float).T
        self.max_evals, self.n_evals = max_evals, 0
        self.largest, self.place = 0.0, np.zeros(len(domain))

    def __call__(self, points: np.ndarray) -> np.ndarray:
        if self.n_evals + len(points) > self.max_evals:
            raise OutOfEvaluations
        places = self.to_domain(points)
        values = self._called(places)
        self.n_evals += len(points)
        if len(values):
            at = int(np.abs(values).argmax())
            if abs(values[at]) > self.largest:
                self.largest, self.place = float(abs(values[at])), points[at]
        return values

    def to_domain(self, points: np.ndarray) -> np.ndarray:
        """Points of the cube as points of the domain."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return np.clip(middle + half * points, self.low, self.high)

    def _called(self, places: np.ndarray) -> np.ndarray:
        values = np.asarray(self.function(*places.T))
        if values.shape != (len(places),):
            if values.shape != ():
                raise DataError(
                    f"chebyshev_tucker: `f` must return one number per point; got shape {values.shape} for "
                    f"{len(places)} points. Let f work on arrays, or pass vectorized=False."
                )
            values = np.full(len(places), values)
        if np.iscomplexobj(values):
            raise DataError("chebyshev_tucker: `f` must return real numbers; got complex. Build Re f and Im f.")
        values = values.astype(float)
        bad = np.flatnonzero(~np.isfinite(values))
        if len(bad):
            place = ", ".join(f"{x:.6g}" for x in places[bad[0]])
            raise DataError(
                f"chebyshev_tucker: `f` must be finite on the domain; got {values[bad[0]]} at ({place}). Leave the "
                "singularity out of the domain."
            )
        return values
