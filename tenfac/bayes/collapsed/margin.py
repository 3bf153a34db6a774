"""Learning where the floor and the ceiling of y lie: the margin of highest evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from tenfac.bayes.collapsed.site_loop import Solved
from tenfac.bayes.likelihoods.response import START, Response

Array = NDArray[Any]
_SMALLEST, _LARGEST = 1e-9, 3.0
_CLOSE = 0.2  # of the logarithm of the margin; the evidence is flat on that scale


class Fit(NamedTuple):
    """A response, and what was learned with it."""

    response: Response
    solved: Solved
    jacobian: float

    @property
    def beyond(self) -> float:
        """The log evidence of y, or its bound, in the unit of y, less that of the Gaussian targets."""
        return self.solved.beyond + self.jacobian

    @property
    def log_evidence(self) -> float:
        """Of y in its own unit."""
        return self.solved.prediction.log_evidence + self.beyond


def learn_with_response(
    kind: str,
    y: Array,
    weights: Array,
    solve: Callable[[Array, Solved | None], Solved],
    search: bool,
) -> Fit:
    """Hyperparameters and, unless the response is the identity, the margin of highest evidence.

    Parameters
    ----------
    kind : {"identity", "log", "logit"}
    y, weights : arrays, shape (N,)
    solve : callable
        What is learned from latent values (N,), and from where to start.
    search : bool
        False keeps the margin that is tried first.
    """

    def attempt(margin: float, start: Solved | None) -> Fit:
        response = Response.learn(kind, y, weights, margin)
        jacobian = float(weights @ response.log_slope(y))
        return Fit(response, solve(response.latent(y), start), jacobian)

    best = attempt(START, None)
    if kind == "identity" or not search or np.ptp(y) == 0:
        return best
    n_iter, n_evals = best.solved.learned.n_iter, best.solved.learned.n_evals

    def loss(log_margin: float) -> float:
        nonlocal best, n_iter, n_evals
        found = attempt(float(np.exp(log_margin)), best.solved)
        n_iter, n_evals = n_iter + found.solved.learned.n_iter, n_evals + found.solved.learned.n_evals
        if found.log_evidence > best.log_evidence:
            best = found  # of the others nothing is kept: a posterior may be large
        return -found.log_evidence

    bounds = float(np.log(_SMALLEST)), float(np.log(_LARGEST))
    minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": _CLOSE})
    learned = replace(best.solved.learned, n_iter=n_iter, n_evals=n_evals)
    return best._replace(solved=best.solved._replace(learned=learned))
