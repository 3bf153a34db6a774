"""Processes whose state stands still: a constant, a linear trend, a periodic function.

Their covariance is ``H(x) P H(x')^T`` with fixed random coefficients of covariance ``P``. Multiplied by a
Matérn process they are allowed to drift.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

import numpy as np

from tenfac.core.arrays import is_array, to_number
from tenfac.core.errors import DataError
from tenfac.core.modes.process import Process, like_of, steps_of

_MOST_TERMS = 200  # of a periodic process: a state of 401, minutes rather than seconds
_LEFT_OUT = 1e-14  # of a covariance of 1, where the number of cosines is not given
_REACH = 14  # times as many coefficients as half of their sum takes leave out nothing
_AFTER = 400  # of them are summed at least
_SERIES = 1.5  # times the argument, and so many terms more, of the power series of a Bessel function
_SERIES_MORE = 40


class _Still(Process):
    def transition(self, dt: Any) -> Any:
        """Transition matrices: the identity."""
        xp, keywords = like_of(dt)
        return xp.zeros((dt.shape[0], 1, 1), **keywords) + xp.eye(self.order, **keywords)

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances: zero."""
        xp, keywords = like_of(dt)
        return xp.zeros((dt.shape[0], self.order, self.order), **keywords)


@dataclass(frozen=True)
class Constant(_Still):
    """A constant of unknown level: covariance ``variance`` everywhere.

    Parameters
    ----------
    variance : float

    Examples
    --------
    >>> Constant(2.0).stationary().tolist()
    [[2.0]]
    """

    variance: Any = 1.0
    positive = ("variance",)
    order = 1

    def stationary(self, like: Any = None) -> Any:
        """State covariance: the variance."""
        xp, keywords = like_of(like)
        return xp.ones((1, 1), **keywords) * self.variance

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """1 for the value, 0 for a derivative."""
        xp, keywords = like_of(x)
        return xp.full((x.shape[0], 1), 0.0 if derivative else 1.0, **keywords)


@dataclass(frozen=True)
class Linear(_Still):
    """A line through 0 at ``center``: covariance ``variance * (x - center) * (x' - center)``.

    A trend of unknown level is ``Constant(a) + Linear(b)``.

    Parameters
    ----------
    variance : float
        Of the slope.
    center : float

    Examples
    --------
    >>> import numpy as np
    >>> Linear(1.0, center=2.0).observation(np.array([5.0])).tolist()
    [[3.0]]
    """

    variance: Any = 1.0
    center: Any = 0.0
    positive = ("variance",)
    order = 1

    def stationary(self, like: Any = None) -> Any:
        """State covariance: the variance of the slope."""
        xp, keywords = like_of(like)
        return xp.ones((1, 1), **keywords) * self.variance

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``x - center``, then 1, then 0."""
        x = steps_of(x)
        xp, keywords = like_of(x)
        if derivative:
            return xp.full((x.shape[0], 1), 1.0 if derivative == 1 else 0.0, **keywords)
        return (x - self.center)[:, None]


@dataclass(frozen=True)
class Periodic(_Still):
    """A periodic function: covariance ``exp(-2 sin(pi (x - x') / period)^2 / lengthscale^2)``.

    The covariance is expanded in cosines, ``sum_j q_j cos(2 pi j (x - x') / period)``, with
    ``q_0 = exp(-z) I_0(z)`` and ``q_j = 2 exp(-z) I_j(z)``, ``z = lengthscale^-2`` [1]_. The terms left out
    are positive, so the error is largest at ``x = x'`` and known: see ``truncation``.

    Parameters
    ----------
    period : float
    lengthscale : float
        Relative to the period divided by ``pi``, without unit.
    terms : int, optional
        Number of cosines; None takes as many as bring ``truncation`` below 1e-14.

    References
    ----------
    .. [1] A. Solin and S. Särkkä, Explicit link between periodic covariance functions and state space
       models, AISTATS (2014), equations 15-27. https://proceedings.mlr.press/v33/solin14.html

    Examples
    --------
    >>> process = Periodic(period=7.0, lengthscale=1.0)
    >>> process.order, process.truncation < 1e-14
    (27, True)
    """

    period: Any
    lengthscale: Any = 1.0
    terms: int | None = None
    positive = ("period", "lengthscale")

    def check(self, where: str) -> None:
        """Raise DataError if a hyperparameter cannot be used, or the lengthscale needs too many terms."""
        super().check(where)
        if self.terms is not None and not (isinstance(self.terms, int) and self.terms >= 1):
            raise DataError(
                f"{where}: `terms` of Periodic must be an integer of 1 or more; got {self.terms!r}."
            )
        if self.terms is None and not self.truncation <= _LEFT_OUT:
            raise DataError(
                f"{where}: `lengthscale` of Periodic must be large enough for {_MOST_TERMS} cosines; got "
                f"{to_number(self.lengthscale):g}. Take a longer one, or say `terms` and read `truncation`."
            )

    @property
    def cosines(self) -> int:
        """Number of cosines used besides the constant."""
        if self.terms is not None:
            return self.terms
        return max(1, min(int(np.argmax(self._tails() <= _LEFT_OUT)), _MOST_TERMS))

    @property
    def order(self) -> int:
        """Dimension of the state, ``1 + 2 cosines``."""
        return 1 + 2 * self.cosines

    @property
    def truncation(self) -> float:
        """Largest error of the covariance: the sum of the coefficients left out."""
        return float(self._tails()[self.cosines])

    def stationary(self, like: Any = None) -> Any:
        """State covariance: the coefficients, twice each but the first, on the diagonal."""
        xp, keywords = like_of(like)
        q = self._coefficients(xp, keywords)
        both = xp.reshape(xp.stack([q[1:], q[1:]], axis=-1), (-1,))
        return xp.concat([q[:1], both])[:, None] * xp.eye(self.order, **keywords)

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """1, then cosine and sine of each multiple of the frequency, or their derivative."""
        x = steps_of(x)
        xp, keywords = like_of(x)
        turns = x / self.period
        turns = (turns - xp.floor(turns))[:, None]
        multiple = xp.arange(1, self.cosines + 1, **keywords)
        # the n-th derivative of a cosine is a cosine a quarter turn later, n times
        angle = 2 * pi * multiple * turns + derivative * pi / 2
        growth = (2 * pi * multiple / self.period) ** derivative
        waves = xp.stack([growth * xp.cos(angle), growth * xp.sin(angle)], axis=-1)
        first = xp.full((x.shape[0], 1), 0.0 if derivative else 1.0, **keywords)
        return xp.concat([first, xp.reshape(waves, (x.shape[0], 2 * self.cosines))], axis=-1)

    def _tails(self) -> np.ndarray:
        """Sum of the coefficients after each number of cosines."""
        from scipy.special import ive

        count = _REACH * self.terms if self.terms else _MOST_TERMS
        q = 2 * ive(np.arange(count + _AFTER), to_number(self.lengthscale) ** -2)
        q[0] /= 2
        # where few are held of many, not even all of these are all: together they are 1
        after, without = np.cumsum(q[::-1])[::-1][1:], 1 - np.cumsum(q)[:-1]
        return np.where(without > 0.5, without, after)

    def _coefficients(self, xp: Any, keywords: dict[str, Any]) -> Any:
        from scipy.special import gammaln, ive

        j = np.arange(self.cosines + 1)
        if not is_array(self.lengthscale):
            q = 2 * ive(j, float(self.lengthscale) ** -2)
            return xp.asarray(np.append(q[0] / 2, q[1:]), **keywords)
        # the power series of I_j, all terms positive, in logarithms: has a gradient by the lengthscale
        z = xp.astype(self.lengthscale, keywords["dtype"]) ** -2
        i = np.arange(int(_SERIES * to_number(z)) + _SERIES_MORE)
        powers, fixed = 2 * i + j[:, None], gammaln(i + 1) + gammaln(i + j[:, None] + 1)
        logs = xp.asarray(powers, **keywords) * xp.log(z / 2) - xp.asarray(fixed, **keywords) - z
        twice = xp.asarray(np.where(j == 0, 1.0, 2.0), **keywords)
        return twice * xp.sum(xp.exp(logs), axis=-1)
