"""A damped harmonic oscillator driven by white noise: a process that swings and forgets."""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any

from tenfac.core.arrays import namespace_of, to_number
from tenfac.core.errors import DataError
from tenfac.core.modes.process import Process, like_of, matrices, steps_of

_TERMS = 26  # of power series at arguments up to 1: the last is below rounding
_SWUNG = 1.0  # squared angle below which the swing is summed from its series
_SHORT = 0.5  # in units of period / (2 pi): below, Q(dt) is summed from its series


@dataclass(frozen=True)
class Oscillator(Process):
    """A unit-variance damped oscillation, driven by white noise.

    It solves ``f'' + (w / quality) f' + w^2 f = white noise`` with ``w = 2 pi / period``. A swing decays to
    ``1 / e`` in ``quality / pi`` periods. At a quality of 1/2 the process no longer swings: it is Matérn-3/2
    of lengthscale ``sqrt(3) / w``.

    Parameters
    ----------
    period : float
        Of the oscillator without damping, in the unit of the index.
    quality : float
        1/2 or more.

    Notes
    -----
    With ``a = 1 / (2 quality)``, ``eta^2 = 1 - a^2`` and ``s = w |x - x'|``, the covariance is
    ``exp(-a s) (cos(eta s) + a / eta sin(eta s))`` [1]_. The state is ``(f, f' / w)``, of covariance ``I``.

    References
    ----------
    .. [1] D. Foreman-Mackey et al., Fast and scalable Gaussian process modeling with applications to
       astronomical time series, The Astronomical Journal 154, 220 (2017), equations 20-23.
       doi:10.3847/1538-3881/aa9332

    Examples
    --------
    >>> import numpy as np
    >>> process = Oscillator(period=2.0, quality=10.0)
    >>> process.transition(np.array([0.0, 2.0]))[:, 0, 0].round(2).tolist()
    [1.0, 0.73]
    """

    period: Any
    quality: Any
    positive = ("period", "quality")
    order = 2
    smoothness = 1

    def check(self, where: str) -> None:
        """Raise DataError if a hyperparameter is not a positive number, or the quality is below 1/2."""
        super().check(where)
        if to_number(self.quality) < 0.5:
            raise DataError(
                f"{where}: `quality` of Oscillator must be 1/2 or more; got {to_number(self.quality):g}. "
                "What does not swing is a sum of two 'matern12' processes, or about one of them."
            )

    def correlation(self, x: Any, z: Any) -> Any:
        """Covariance between places of shapes (N,) and (M,): (N, M)."""
        s = self.rate * abs(steps_of(x)[:, None] - steps_of(z)[None, :])
        still, swing = self._response(s, namespace_of(s))
        return still + self.damping * swing

    def correlation_slope(self, x: Any, z: Any) -> Any:
        """Derivative of ``correlation`` by ``x``."""
        s = self.rate * (steps_of(x)[:, None] - steps_of(z)[None, :])
        xp = namespace_of(s)
        return -self.rate * xp.sign(s) * self._response(abs(s), xp)[1]

    @property
    def rate(self) -> Any:
        """``w = 2 pi / period``: the angular frequency without damping."""
        return 2 * pi / self.period

    @property
    def damping(self) -> Any:
        """``a = 1 / (2 quality)``: the decay rate in units of ``rate``."""
        return 0.5 / self.quality

    def stationary(self, like: Any = None) -> Any:
        """State covariance: the identity."""
        xp, keywords = like_of(like)
        return xp.eye(2, **keywords)

    def transition(self, dt: Any) -> Any:
        """Transition matrices ``A(dt) = expm(F dt)``, shape (len(dt), 2, 2)."""
        s = self.rate * steps_of(dt)
        xp, a = namespace_of(s), self.damping
        still, swing = self._response(s, xp)
        return matrices([[still + a * swing, swing], [-swing, still - a * swing]], xp)

    def innovation(self, dt: Any) -> Any:
        """Innovation covariances ``Q(dt) = I - A A^T``, shape (len(dt), 2, 2), also of short steps exact."""
        s = self.rate * steps_of(dt)
        xp, a = namespace_of(s), self.damping
        still, swing = self._response(s, xp)
        lost, cross = -xp.expm1(-2 * a * s), 2 * a * swing * swing
        value = xp.where(s < _SHORT, self._short(s, xp), lost - 2 * a * swing * (still + a * swing))
        return matrices([[value, cross], [cross, lost + 2 * a * swing * (still - a * swing)]], xp)

    def observation(self, x: Any, derivative: int = 0) -> Any:
        """``H``: entry ``derivative`` of the state, in the unit of the index."""
        x = steps_of(x)
        xp, keywords = like_of(x)
        unit = xp.eye(2, **keywords)[derivative : derivative + 1, :]
        return xp.ones_like(x)[:, None] * (unit * self.rate**derivative)

    def _response(self, s: Any, xp: Any) -> tuple[Any, Any]:
        """``exp(-a s) cos(eta s)`` and ``exp(-a s) sin(eta s) / eta``, with gradients also at ``eta = 0``."""
        decay, square = xp.exp(-self.damping * s), 1 - self.damping**2
        z = square * s * s
        near, far = xp.clip(z, None, _SWUNG), xp.clip(z, _SWUNG, None) ** 0.5
        cosine = sine = xp.ones_like(z)
        for k in range(_TERMS, 1, -2):
            cosine, sine = 1.0 - near / (k * (k - 1)) * cosine, 1.0 - near / (k * (k + 1)) * sine
        swing = xp.where(z < _SWUNG, sine, xp.sin(far) / far)
        return decay * xp.where(z < _SWUNG, cosine, xp.cos(far)), decay * s * swing

    def _short(self, s: Any, xp: Any) -> Any:
        """``4 a`` times the integral to ``s`` of the squared impulse response, from its power series."""
        a, s = self.damping, xp.clip(s, None, _SHORT)
        # y = response^2 solves y''' + 6 a y'' + (8 a^2 + 4) y' + 8 a y = 0, y = s^2 + ...
        y = [0.0, 0.0, 1.0]
        for n in range(3, _TERMS):
            known = 6 * a * (n - 1) * (n - 2) * y[n - 1]
            known = known + (8 * a * a + 4) * (n - 2) * y[n - 2] + 8 * a * y[n - 3]
            y.append(-known / (n * (n - 1) * (n - 2)))
        total = 0.0
        for n in reversed(range(2, _TERMS)):
            total = y[n] / (n + 1) + s * total
        return 4 * a * s**3 * total
