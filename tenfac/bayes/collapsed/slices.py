"""Observations grouped by the index of the exact mode, compressed to sufficient statistics."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
_ROWS = 4096  # made at a time


@dataclass(frozen=True)
class Slices:
    """One weighted regression ``z_t ~ E_t h(t)`` per index t of the exact mode.

    Parameters
    ----------
    designs : tuple of arrays, shape (n_t, P)
        Rows of the product basis, QR-compressed when a slice has more than P rows.
    targets : tuple of arrays, shape (n_t,)
        Observed values in the same compression.
    n_obs : float
        Sum of the weights: rows before compression, repeats counted.
    leftover : float
        Weighted sum of squares that no coefficient can explain, removed by the compression.
    log_precision : float
        Sum of the logarithms of the precisions, repeats counted.
    """

    designs: tuple[Array, ...]
    targets: tuple[Array, ...]
    n_obs: float
    leftover: float
    log_precision: float = 0.0

    @property
    def pair(self) -> tuple[tuple[Array, ...], tuple[Array, ...]]:
        """Designs and targets."""
        return self.designs, self.targets

    @property
    def n_rows(self) -> int:
        """Number of rows kept."""
        return sum(target.size for target in self.targets)

    @classmethod
    def group(
        cls,
        rows_of: Callable[[NDArray[np.intp]], Array],
        y: Array,
        weights: Array,
        codes: NDArray[np.intp],
        size: int,
        precision: Array | None = None,
        *,
        whole: bool = False,
    ) -> Slices:
        """Group observations by ``codes`` (N,) in 0 .. size - 1; every code occurs.

        ``rows_of`` gives the rows of the product basis of some observations, by their numbers. A weight is a
        number of repeats: weight 2 is the same as the row given twice. ``precision`` (N,) is what one row
        tells relative to the noise: 2 is half its variance. ``whole`` keeps the rows as they are, without
        weight or compression.
        """
        precision = np.ones(y.size) if precision is None else precision
        designs, targets, leftover = [], [], 0.0
        for chosen, rows in _with_rows(rows_of, rows_by_slice(codes, size)):
            if whole:
                designs.append(rows)
                targets.append(y[chosen])
                continue
            root = np.sqrt(weights[chosen] * precision[chosen])
            block, value = rows * root[:, None], y[chosen] * root
            if block.shape[0] > block.shape[1]:
                block, value, rest = _compress(block, value)
                leftover += rest
            designs.append(block)
            targets.append(value)
        log_precision = float(weights @ np.log(precision))
        return cls(tuple(designs), tuple(targets), float(weights.sum()), leftover, log_precision)

    def joined(
        self, other: Slices, places: NDArray[np.intp], fresh: NDArray[np.bool_], whole: bool = False
    ) -> Slices:
        """Both in one: slice i of ``other`` comes to ``places[i]``, ascending places of the result.

        Where ``fresh[i]`` it is a slice of its own, else its rows join those of the slice there.
        """
        designs, targets = list(self.designs), list(self.targets)
        leftover = self.leftover + other.leftover
        for place, is_new, design, target in zip(places, fresh, other.designs, other.targets, strict=True):
            if is_new:
                designs.insert(place, design)
                targets.insert(place, target)
                continue
            block, value = np.vstack([designs[place], design]), np.concatenate([targets[place], target])
            if block.shape[0] > block.shape[1] and not whole:
                block, value, rest = _compress(block, value)
                leftover += rest
            designs[place], targets[place] = block, value
        return Slices(tuple(designs), tuple(targets), self.n_obs + other.n_obs, leftover)

    def constant_terms(self, noise_variance: float) -> float:
        """The part of the log evidence that does not depend on the prior."""
        squares = self.leftover + sum(float(z @ z) for z in self.targets)
        logs = self.n_obs * np.log(2 * np.pi * noise_variance) - self.log_precision
        return -0.5 * (logs + squares / noise_variance)


def _with_rows(
    rows_of: Callable[[NDArray[np.intp]], Array], slices: list[NDArray[np.intp]]
) -> Iterator[tuple[NDArray[np.intp], Array]]:
    """Every slice with its rows, which are made for many slices at a time."""
    ends = np.cumsum([part.size for part in slices])
    for group in np.split(np.arange(len(slices)), np.flatnonzero(np.diff(ends // _ROWS)) + 1):
        parts = [slices[t] for t in group]
        rows = rows_of(np.concatenate(parts))
        yield from zip(parts, np.split(rows, np.cumsum([part.size for part in parts])[:-1]), strict=True)


def rows_by_slice(codes: NDArray[np.intp], size: int) -> list[NDArray[np.intp]]:
    """Numbers of the rows of every slice."""
    order = np.argsort(codes, kind="stable")
    return np.split(order, np.cumsum(np.bincount(codes, minlength=size))[:-1])


def _compress(block: Array, value: Array) -> tuple[Array, Array, float]:
    """``min ||block h - value||`` as a square problem and the residual sum of squares left out."""
    triangle: Array = np.asarray(np.linalg.qr(np.column_stack([block, value]), mode="r"))
    return triangle[:-1, :-1], triangle[:-1, -1], float(triangle[-1, -1] ** 2)
