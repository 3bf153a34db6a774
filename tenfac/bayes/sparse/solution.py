"""What every solver of sparse recovery gives back."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Solution:
    """Hyperparameters of a sparse prior, found for one set of measurements.

    Parameters
    ----------
    gammas : tuple of arrays, shapes (N_i,)
        Prior variances per mode, nonnegative, of full length: the variance of ``X[j, k, ...]`` is
        ``gammas[0][j] * gammas[1][k] * ...``. Zero means pruned. The overall scale is in the last. An empty
        model has zeros in every mode.
    noise_variance : float
        Variance of the noise, learned or given; ``noise`` is its root.
    evidence : float
        Log marginal likelihood of the measurements with all its constants.
    trace : tuple of float
        The same after every sweep.
    n_iter : int
        Sweeps (iterations of EM) done.
    converged : bool
    reason : str
        Why it stopped, in words.

    Examples
    --------
    >>> import numpy as np
    >>> Solution((np.ones(2), np.zeros(2)), 1.0, -3.0, (-3.0,), 1, True, "tolerance met").n_iter
    1
    """

    gammas: tuple[Any, ...]
    noise_variance: float
    evidence: float
    trace: tuple[float, ...]
    n_iter: int
    converged: bool
    reason: str

    @property
    def noise(self) -> float:
        """Standard deviation of the noise."""
        return math.sqrt(self.noise_variance)
