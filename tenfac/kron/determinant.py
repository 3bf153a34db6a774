"""Determinants as sign and logarithm: they leave the range of a float long before the matrix does."""

from __future__ import annotations

from typing import Any, NamedTuple

from tenfac.core.arrays import namespace_of
from tenfac.core.errors import DataError
from tenfac.core.precision import is_complex
from tenfac.kron.base import known


class SignedLog(NamedTuple):
    """Sign and logarithm of the magnitude of a determinant, as ``numpy.linalg.slogdet`` gives them.

    Examples
    --------
    >>> SignedLog(-1.0, 0.0).sign
    -1.0
    """

    sign: Any
    logabsdet: Any


def positive_log(found: SignedLog, where: str) -> Any:
    """Logarithm of a determinant that must be positive.

    Raises
    ------
    DataError
        If it is not.

    Examples
    --------
    >>> positive_log(SignedLog(1.0, 2.5), "logdet")
    2.5
    """
    real: float | None
    imaginary: float | None = 0.0
    if not isinstance(found.sign, (int, float)) and is_complex(found.sign):
        xp = namespace_of(found.sign)
        real, imaginary = known(xp.real(found.sign)), known(xp.imag(found.sign))
    else:
        real = known(found.sign)
    if real is not None and imaginary is not None and not (real > 0 and abs(imaginary) < 1e-3):
        raise DataError(
            f"{where}: the determinant must be positive to have a real logarithm; its sign is {real:.3g}"
            + (f"{imaginary:+.3g}j" if imaginary else "")
            + ". Use slogdet."
        )
    return found.logabsdet
