"""A bent axis: where a process that is stationary on it varies faster in some part of the index."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from math import asinh, isfinite
from numbers import Real
from typing import Any

from tenfac.core.errors import DataError
from tenfac.core.modes.process import Process


@dataclass(frozen=True)
class Bend:
    """The axis ``w(x)``, a scaled ``asinh(sharpness * (p - center))`` of ``p = (x - start) / span``.

    It runs from 0 to 1 where ``p`` does, steepest at ``center``, and goes on straight beyond.

    Parameters
    ----------
    sharpness : float
        Above 0; a small one leaves the axis straight.
    center : float
        From 0 to 1.
    start, span : float
        Of the index where the axis is bent; ``span`` above 0.

    Raises
    ------
    DataError
        If these are not such numbers.

    Examples
    --------
    >>> import numpy as np
    >>> bend = Bend(sharpness=50.0, center=0.0, start=0.0, span=10.0)
    >>> bend.places(np.array([0.0, 1.0, 10.0]), np).round(4)
    array([0.    , 0.5021, 1.    ])
    """

    sharpness: float
    center: float
    start: float
    span: float

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not (isinstance(value, Real) and isfinite(value)):
                raise DataError(f"Bend: `{name}` must be a finite number; got {value!r}.")
            object.__setattr__(self, name, float(value))
        if not (self.sharpness > 0 and self.span > 0 and 0 <= self.center <= 1):
            raise DataError(
                "Bend: `sharpness` and `span` must be above 0, `center` from 0 to 1; got "
                f"{self.sharpness:g}, {self.span:g} and {self.center:g}."
            )

    def places(self, x: Any, xp: Any) -> Any:
        """Places on the axis, shape (N,)."""
        return bent((x - self.start) / self.span, self.sharpness, self.center, xp)

    def slopes(self, x: Any, xp: Any) -> tuple[Any, Any]:
        """First and second derivatives of ``places``, shapes (N,)."""
        p = (x - self.start) / self.span
        inside = xp.clip(p, 0.0, 1.0)
        first, far = steepness(p, self.sharpness, self.center, xp), self.sharpness * (inside - self.center)
        second = xp.where(p == inside, -self.sharpness * far / (1 + far**2) * first, xp.zeros_like(first))
        return first / self.span, second / self.span**2


def bent(p: Any, sharpness: Any, center: Any, xp: Any) -> Any:
    """The axis ``w``, of the shape of ``p``.

    Parameters
    ----------
    p : array
    sharpness, center : float or array
        Arrays of the library ``xp`` that broadcast with ``p``.
    xp : module

    Examples
    --------
    >>> import numpy as np
    >>> bent(np.array([0.0, 0.1, 1.0, 2.0]), 50.0, 0.0, np).round(4)
    array([0.    , 0.5021, 1.    , 1.2171])
    """
    inside = xp.clip(p, 0.0, 1.0)
    start, scale = _asinh(sharpness * center, xp), _scale(sharpness, center, xp)
    straight = (p - inside) * steepness(p, sharpness, center, xp)
    return (xp.asinh(sharpness * (inside - center)) + start) / scale + straight


def steepness(p: Any, sharpness: Any, center: Any, xp: Any) -> Any:
    """Derivative of ``bent`` by ``p``, of the shape of ``p``.

    Parameters
    ----------
    p : array
    sharpness, center : float or array
        As of ``bent``.
    xp : module

    Examples
    --------
    >>> import numpy as np
    >>> steepness(np.array([0.0, 0.1, 1.0, 2.0]), 50.0, 0.0, np).round(4)
    array([10.8571,  2.1293,  0.2171,  0.2171])
    """
    far = sharpness * (xp.clip(p, 0.0, 1.0) - center)
    return sharpness / xp.sqrt(1 + far**2) / _scale(sharpness, center, xp)


def _scale(sharpness: Any, center: Any, xp: Any) -> Any:
    return _asinh(sharpness * (1 - center), xp) + _asinh(sharpness * center, xp)


def _asinh(value: Any, xp: Any) -> Any:
    return asinh(value) if isinstance(value, float) else xp.asinh(value)


def seen_at(process: Process, bend: Bend | None, x: Any, derivative: int, xp: Any) -> tuple[Any, Any]:
    """Places on the axis of a process, and what is seen of its state there: ``(N,)`` and ``(N, order)``.

    Parameters
    ----------
    process : Process
    bend : Bend or None
        None is a straight axis.
    x : array, shape (N,)
    derivative : int
        By ``x``; up to 2 on a bent axis.
    xp : module

    Raises
    ------
    DataError
        If there is no such derivative.

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac.core.modes.state_space import StateSpace
    >>> seen_at(StateSpace("matern12", 1.0), None, np.array([3.0]), 0, np)
    (array([3.]), array([[1.]]))
    """
    if bend is None:
        return x, process.observation(x, derivative)
    place = bend.places(x, xp)
    seen = process.observation(place, derivative)
    if derivative == 0:
        return place, seen
    first, second = bend.slopes(x, xp)
    if derivative == 1:
        return place, seen * first[:, None]
    if derivative > 2:
        raise DataError(f"GP: on a bent axis derivatives up to 2 exist; asked for {derivative}.")
    return place, seen * (first**2)[:, None] + process.observation(place, 1) * second[:, None]
