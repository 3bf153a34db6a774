"""What an iterated, truncated or sampled computation says about itself."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tenfac.core.arrays import to_number
from tenfac.core.tracing import is_traced


@dataclass(frozen=True)
class Report:
    """How a result came about.

    Fields that do not apply are None. ``rel_error`` is computed or certified, never a difference of squares.

    Parameters
    ----------
    converged : bool
        Whether the method met its own stopping rule.
    reason : str
        Why it stopped, in words.
    n_iter, n_evals : int or None
        Iterations done; evaluations of a function or objective.
    rel_error : float, array or None
        Relative error (Frobenius norm for arrays, sup norm for functions): an array with one for each tensor
        of a batch, a traced one under ``jit``, ``vmap`` and ``grad``.
    validation_error : float or None
        Relative error on data that were held out from the fit.
    history : tuple of float
        The monitored quantity, one value per iteration.
    seconds : float or None
        Wall time.
    random_state : int or None
        The seed, if an integer was given.
    warnings : tuple of str
        Everything the user should know about the result.

    Examples
    --------
    >>> Report(converged=True, reason="tolerance met", n_iter=3)
    Report(converged, tolerance met, n_iter=3)
    """

    converged: bool
    reason: str
    n_iter: int | None = None
    n_evals: int | None = None
    rel_error: Any = None
    validation_error: float | None = None
    history: tuple[float, ...] = ()
    seconds: float | None = None
    random_state: int | None = None
    warnings: tuple[str, ...] = ()

    def __repr__(self) -> str:
        parts = ["converged" if self.converged else "NOT converged", self.reason]
        shown: dict[str, Any] = {"n_iter": self.n_iter, "n_evals": self.n_evals}
        parts += [f"{name}={value}" for name, value in shown.items() if value is not None]
        if self.rel_error is not None:
            parts.append(_described(self.rel_error))
        if self.validation_error is not None:
            parts.append(f"validation_error={self.validation_error:.3g}")
        if self.seconds is not None:
            parts.append(f"{self.seconds:{'.2g' if self.seconds < 10 else '.0f'}} s")
        if self.warnings:
            parts.append(f"{len(self.warnings)} warning(s)")
        return f"Report({', '.join(parts)})"


def _described(rel_error: Any) -> str:
    if is_traced(rel_error):
        return "rel_error not known yet"
    if hasattr(rel_error, "shape") and len(rel_error.shape):
        return f"rel_error<={to_number(rel_error.max()) if math.prod(rel_error.shape) else 0.0:.3g}"
    return f"rel_error={to_number(rel_error):.3g}"


def stored_report(fields: Mapping[str, Any]) -> Report:
    """A report from its fields as JSON has them: lists in the place of tuples.

    Examples
    --------
    >>> stored_report({"converged": True, "reason": "exact", "history": [0.5, 0.25]}).history
    (0.5, 0.25)
    """
    plain: dict[str, Any] = {
        name: tuple(one) if isinstance(one, list) else one for name, one in fields.items()
    }
    return Report(**plain)
