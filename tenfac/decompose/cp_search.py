"""From many random starts to the best fit: the better half, the best two, the best one."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from .cp_start import random_start
from .cp_sweep import Starts

_LOG = logging.getLogger("tenfac")
# Sweeps after which the better half of the starts, then the best two, go on.
_STAGES = (20, 40)


@dataclass
class Progress:
    """What a fit tells while it runs: counts sweeps, calls back, moves the bar.

    Parameters
    ----------
    max_iter : int
    callback : callable or None
        ``callback(n_iter, rel_error)``; a true answer stops.
    bar : tqdm or None
    verbose : int
    n_iter : int
    stopped : bool
    history : list of float
        Relative error of the best start so far after each sweep.
    total : callable
        From the relative error of the stage to that of the whole.

    Examples
    --------
    >>> progress = Progress(10)
    >>> progress(1, 0.5), progress.n_iter, progress.history
    (False, 1, [0.5])
    """

    max_iter: int
    callback: Callable[[int, float], Any] | None = None
    bar: Any = None
    verbose: int = 0
    n_iter: int = 0
    stopped: bool = False
    history: list[float] = field(default_factory=list)
    total: Callable[[float], float] = float

    @property
    def left(self) -> int:
        """Sweeps left."""
        return 0 if self.stopped else self.max_iter - self.n_iter

    def log(self, message: str, *values: Any) -> None:
        """One line per stage from ``verbose=2`` on."""
        if self.verbose >= 2:
            _LOG.info(message, *values)

    def __call__(self, _: int, error: float) -> bool:
        self.n_iter += 1
        self.history.append(self.total(error))
        if self.bar is not None:
            self.bar.update()
        if self.callback is not None:
            self.stopped = bool(self.callback(self.n_iter, self.history[-1]))
        return self.stopped


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
    >>> Options(2).progress.max_iter
    100
    """

    rank: int
    init: Any = None
    n_init: int | None = None
    tol: float = 1e-7
    nonnegative: bool = False
    rng: np.random.Generator = field(default_factory=lambda: np.random.default_rng(0))
    progress: Progress = field(default_factory=lambda: Progress(100))


def search(target: Any, options: Options, n_init: int) -> Starts:
    """Fit from ``n_init`` random starts (or ``options.n_init``), and go on with the best ones.

    All starts are swept together; the better half goes on after some sweeps, then the best two.

    Returns
    -------
    Starts
        Of one start.

    Examples
    --------
    >>> from tenfac.decompose.mttkrp import DenseTensor
    >>> X = DenseTensor(np.ones((3, 4, 5)))
    >>> best = search(X, Options(rank=1), 4)
    >>> best.errors.shape, bool(best.done[0])
    ((1,), True)
    """
    progress, only = options.progress, {"nonnegative": options.nonnegative}
    factors = random_start(target, options.rank, options.n_init or n_init, options.rng, **only)
    starts = Starts(target, factors, options.tol, **only)
    for n_iter in (*_STAGES, math.inf):
        starts.advance(int(min(n_iter, progress.left)), progress)
        order = np.argsort(starts.errors, kind="stable")
        progress.log("cp: sweep %d, relative errors of the starts %s", progress.n_iter, starts.errors[order])
        count = max(2, (order.size + 1) // 2) if n_iter == _STAGES[0] else 2
        if progress.left == 0 or n_iter == math.inf or starts.done.all():
            count = 1
        starts.keep(order[:count])
        if count == 1:
            break
    return starts


@contextmanager
def progress_bar(verbose: int, total: int) -> Iterator[Any]:
    """A tqdm bar from ``verbose=1`` on, else None.

    Examples
    --------
    >>> with progress_bar(0, 10) as bar:
    ...     bar is None
    True
    """
    if verbose < 1:
        yield None
        return
    from tqdm import tqdm

    with tqdm(total=total, desc="cp", unit="sweep", leave=False) as bar:
        yield bar
