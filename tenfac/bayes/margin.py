"""Learning where the floor and the ceiling of y lie: the margin of highest evidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar

from tenfac.bayes.evidence import Hyper
from tenfac.bayes.prediction import Prediction
from tenfac.bayes.response import START, Response
from tenfac.bayes.search import Learned, Task, learn

Array = NDArray[np.float64]
_SMALLEST, _LARGEST = 1e-9, 3.0
_CLOSE = 0.2  # of the logarithm of the margin; the evidence is flat on that scale


class Fit(NamedTuple):
    """A response, and what was learned with it."""

    response: Response
    task: Task
    learned: Learned
    prediction: Prediction
    jacobian: float

    @property
    def log_evidence(self) -> float:
        """Of y in its own unit."""
        return self.prediction.log_evidence + self.jacobian


def learn_with_response(
    kind: str,
    y: Array,
    weights: Array,
    task_of: Callable[[Array], Task],
    settings: tuple[int, float, int],
    start: Hyper | None = None,
) -> Fit:
    """Hyperparameters and, unless the response is the identity, the margin of highest evidence.

    Parameters
    ----------
    kind : {"identity", "log", "logit"}
    y, weights : arrays, shape (N,)
    task_of : callable
        Task from latent values (N,).
    settings : tuple
        ``max_iter``, ``tol``, ``verbose``.
    start : Hyper, optional
        Where the search begins.
    """

    def attempt(margin: float, start: Hyper | None) -> Fit:
        response = Response.learn(kind, y, weights, margin)
        task = task_of(response.latent(y))
        learned = learn(task, *settings, start)
        jacobian = float(weights @ response.log_slope(y))
        return Fit(response, task, learned, learned.prediction(task), jacobian)

    best = attempt(START, start)
    if kind == "identity" or settings[0] == 0 or np.ptp(y) == 0:
        return best
    n_iter, n_evals = best.learned.n_iter, best.learned.n_evals

    def loss(log_margin: float) -> float:
        nonlocal best, n_iter, n_evals
        found = attempt(float(np.exp(log_margin)), best.learned.hyper)
        n_iter, n_evals = n_iter + found.learned.n_iter, n_evals + found.learned.n_evals
        if found.log_evidence > best.log_evidence:
            best = found  # of the others nothing is kept: a posterior may be large
        return -found.log_evidence

    bounds = float(np.log(_SMALLEST)), float(np.log(_LARGEST))
    minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": _CLOSE})
    return best._replace(learned=replace(best.learned, n_iter=n_iter, n_evals=n_evals))
