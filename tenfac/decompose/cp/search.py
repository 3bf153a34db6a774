"""From many random starts to the best fit: the better half, the best two, the best one."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tenfac.core.progress import Progress
from tenfac.decompose.cp.start import random_start
from tenfac.decompose.cp.sweep import Starts

# Sweeps after which the better half of the starts, then the best two, go on.
_STAGES = (20, 40)


@dataclass(frozen=True)
class Options:
    """What ``cp`` was asked, validated.

    Parameters
    ----------
    rank : int
    init : CP, tuple or None
    n_init : int or None
    tol : float
    nonnegative : bool
    rng : Generator
    progress : Progress

    Examples
    --------
    >>> Options(2).progress.max_iter, Options(2).tol, Options(2).nonnegative
    (100, 1e-07, False)
    """

    rank: int
    init: Any = None
    n_init: int | None = None
    tol: float = 1e-7
    nonnegative: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    progress: Progress = field(default_factory=lambda: Progress("cp", 100))


def search(target: Any, options: Options, n_init: int) -> Starts:
    """Fit from ``n_init`` random starts (or ``options.n_init``), and go on with the best ones.

    All starts are swept together; the better half goes on after some sweeps, then the best two.

    Returns
    -------
    Starts
        Of one start.

    Examples
    --------
    >>> from tenfac.decompose.cp.mttkrp import DenseTensor
    >>> X = DenseTensor(np.ones((3, 4, 5)))
    >>> best = search(X, Options(rank=1), 4)
    >>> best.errors.shape, bool(best.done[0])
    ((1,), True)
    """
    progress, only = options.progress, {"nonnegative": options.nonnegative}
    factors = random_start(target, options.rank, options.n_init or n_init, options.rng, **only)
    starts = Starts(target, factors, options.tol, **only)
    half = max(2, (len(starts.errors) + 1) // 2)
    for n_iter, count in zip((*_STAGES, math.inf), (half, 2, 1), strict=True):
        starts.advance(int(min(n_iter, progress.left)), progress)
        order = np.argsort(starts.errors, kind="stable")
        progress.log("sweep %d, relative errors of the starts %s", progress.n_iter, starts.errors[order])
        ended = progress.left == 0 or starts.done.all()
        starts.keep(order[: 1 if ended else count])
        if ended:
            break
    return starts
