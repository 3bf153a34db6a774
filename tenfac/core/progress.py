"""What an iterative fit tells while it runs: a bar, a log line per stage, a callback that may stop it."""

from __future__ import annotations

import logging
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from .errors import check_verbose

_LOG = logging.getLogger("tenfac")

# The reason a report gives after a true answer of the callback.
STOPPED = "stopped by the callback"


@dataclass
class Progress:
    """Counts the iterations of a fit, keeps their errors, calls back, moves the bar.

    A context manager: the bar is open inside.

    Parameters
    ----------
    where : str
        Name of the caller, for the bar and for messages.
    max_iter : int or None
        Length of the bar.
    verbose : {0, 1, 2}
        1 shows a bar, 2 logs each stage too (logger ``tenfac``).
    callback : callable or None
        ``callback(n_iter, error)`` after each iteration; a true answer stops.
    unit : str
        What the bar counts.

    Attributes
    ----------
    n_iter : int
    history : list of float
    stopped : bool
        Whether the callback has stopped the fit.
    total : callable
        From the error of the stage to that of the whole.

    Raises
    ------
    DataError, TypeError
        If ``verbose`` or ``callback`` is not valid.

    Examples
    --------
    >>> with Progress("cp", 10, callback=lambda n_iter, error: error < 0.6) as progress:
    ...     progress(0.7), progress(0.5), progress.n_iter, progress.history, progress.left
    (False, True, 2, [0.7, 0.5], 0)
    """

    where: str
    max_iter: int | None = None
    verbose: int = 0
    callback: Callable[[int, float], Any] | None = None
    unit: str = "sweep"
    n_iter: int = field(default=0, init=False)
    history: list[float] = field(default_factory=list, init=False)
    stopped: bool = field(default=False, init=False)
    total: Callable[[float], float] = field(default=float, init=False)
    _bar: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.callback is not None and not callable(self.callback):
            raise TypeError(
                f"{self.where}: callback must be callable as callback(n_iter, error); got "
                f"{type(self.callback).__name__}."
            )
        check_verbose(self.verbose, self.where)

    def __enter__(self) -> Progress:
        if self.verbose:
            from tqdm import tqdm

            self._bar = tqdm(total=self.max_iter, desc=self.where, unit=self.unit, leave=False)
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    @property
    def left(self) -> int:
        """Iterations left; without a limit there are always more."""
        limit = sys.maxsize if self.max_iter is None else self.max_iter
        return 0 if self.stopped else limit - self.n_iter

    def log(self, message: str, *values: Any) -> None:
        """One line per stage from ``verbose=2`` on."""
        if self.verbose >= 2:
            _LOG.info(f"{self.where}: {message}", *values)

    def move(self, steps: int = 1) -> None:
        """Move the bar."""
        if self._bar is not None:
            self._bar.update(steps)

    def __call__(self, error: float, steps: int = 1) -> bool:
        """Note the error of an iteration, in which the bar moves by ``steps``; whether to stop."""
        self.n_iter += 1
        self.history.append(self.total(error))
        if self._bar is not None:
            self._bar.set_postfix_str(f"error={self.history[-1]:.3g}", refresh=False)
        self.move(steps)
        if self.callback is not None:
            self.stopped = bool(self.callback(self.n_iter, self.history[-1]))
        return self.stopped
