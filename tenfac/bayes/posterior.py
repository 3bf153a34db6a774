"""What both exact-mode solvers return: the coefficient functions' joint posterior."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


class CoefficientPosterior(Protocol):
    """Joint Gaussian posterior of the coefficient functions ``h(t)`` over the exact mode."""

    def at(self, positions: Array) -> tuple[Array, Array]:
        """Means (U, P) and covariances (U, P, P) of ``h`` at exact-mode positions, seen or not."""
        ...

    def average(self) -> tuple[Array, Array]:
        """Mean (P,) and covariance (P, P) of the average of ``h`` over the observed indices."""
        ...
