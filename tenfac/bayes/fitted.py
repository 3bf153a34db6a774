"""What the estimator asks of a fitted function, whichever inference made it."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class FittedFunction(Protocol):
    """A posterior of the function over scaled positions, on the scale where it has a Gaussian likelihood."""

    @property
    def log_evidence(self) -> float | None:
        """Of the scaled observations, or a lower bound of it; None where the inference has neither."""
        ...

    def at(self, positions: list[Array], with_variance: bool = True) -> tuple[Array, Array, Array]:
        """Mean, variance of f, variance of an observation at N points (one scaled position per mode)."""
        ...

    def marginal(self, mode: int, x: Array) -> tuple[Array, Array]:
        """Mean and variance of the average of f over all modes but one, at positions ``x`` (N,)."""
        ...
