"""A user's function as the constructions call it: counted, checked, on the cube [-1, 1]^D."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np

from tenfac.core.errors import DataError, ShapeError

# Parts of a set of points that a pool computes side by side.
_PARTS = 64
# Largest values whose squares and sums of squares are numbers.
_LARGEST = 1e140


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
        moved: Callable[[int], None] | None = None,
    ) -> None:
        self.function = function if vectorized else partial(_one_by_one, function)
        self.executor, self.moved = executor, moved
        self.low, self.high = np.array(domain, dtype=float).T
        self.max_evals, self.n_evals = max_evals, 0
        self.largest, self.place = 0.0, np.zeros(len(domain))
        self.constant: Any = None

    def __call__(self, points: np.ndarray) -> np.ndarray:
        if self.n_evals + len(points) > self.max_evals:
            raise OutOfEvaluationsError
        if not len(points):
            return np.empty(0)
        places = self.to_domain(points)
        values = self._called(places)
        self.n_evals += len(points)
        if self.moved is not None:
            self.moved(len(points))
        at = int(np.abs(values).argmax())
        if abs(values[at]) > self.largest:
            self.largest, self.place = float(abs(values[at])), points[at]
        if self.largest > _LARGEST:
            raise DataError(
                f"chebyshev_tucker: `f` must be below {_LARGEST:g} in magnitude, for its square to be a "
                f"number; got {values[at]:g}. Divide f by {self.largest:.0e}."
            )
        return values

    def _shaped(self, values: Any, count: int) -> np.ndarray:
        values = np.ma.filled(values, np.nan) if np.ma.is_masked(values) else np.asarray(values)
        if values.shape == ():  # a constant
            self._check_constant(values, count)
            return np.full(count, values)
        if values.shape != (count,):
            raise ShapeError(
                f"chebyshev_tucker: `f` must return one number per point; got shape {values.shape} for "
                f"{count} points. Let f work on arrays, or pass vectorized=False."
            )
        return values

    def _check_constant(self, value: Any, count: int) -> None:
        """One number for many points must be the same every time."""
        if count > 1 and value.dtype.kind in "biuf" and np.isfinite(value):
            if self.constant is not None and self.constant != value:
                raise ShapeError(
                    f"chebyshev_tucker: `f` must return one number per point; got {value} for {count} points "
                    f"and {self.constant} for others. Let f sum over no points, or pass vectorized=False."
                )
            self.constant = value

    def to_domain(self, points: np.ndarray) -> np.ndarray:
        """Points of the cube as points of the domain."""
        middle, half = (self.low + self.high) / 2, (self.high - self.low) / 2
        return np.clip(middle + half * points, self.low, self.high)

    def _called(self, places: np.ndarray) -> np.ndarray:
        if self.executor is None:
            values = self._shaped(_call(self.function, places), len(places))
        else:
            parts = np.array_split(places, min(_PARTS, len(places)))
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
    try:
        return function(*places.T)
    except (TypeError, ValueError) as error:
        error.add_note(
            f"chebyshev_tucker: `f` was called with {places.shape[1]} arrays of shape ({len(places)},). A "
            "function of single numbers needs vectorized=False."
        )
        raise
