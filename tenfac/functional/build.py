"""``chebyshev_tucker``: a function of several variables as a Tucker tensor with Chebyshev modes."""

from __future__ import annotations

import math
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..core.arrays import generator, seed_of
from ..core.contract import contract
from ..core.errors import ConvergenceWarning, DataError, ShapeError
from ..core.modes.chebyshev import Chebyshev, check_interval
from ..core.report import Report
from ..core.truncate import truncate
from ..core.tucker import Tucker
from .cross import Cross
from .evaluator import Evaluator, OutOfEvaluations

# Share of the tolerance that rounding and shortening may use.
_ROUNDING = 0.05


def chebyshev_tucker(
    f: Callable[..., Any],
    domain: Sequence[tuple[float, float]],
    tol: float = 1e-10,
    *,
    hints: Any = None,
    max_evals: int = 1_000_000,
    max_degree: int = 2048,
    vectorized: bool = True,
    random_state: int | np.random.Generator | None = 0,
) -> Tucker:
    """Approximate a function by a core and one matrix of Chebyshev coefficients per variable.

    ``f(x, y, ...) ~ sum G[p, q, ...] u_p(x) v_q(y) ...`` with polynomials ``u, v, ...``: the hybrid
    Chebyshev-Tucker format [1]_, of degrees and ranks found from the function, by an adaptive cross
    approximation in the manner of Chebfun3F [2]_.
    """
    start = time.perf_counter()
    where = "chebyshev_tucker"
    box = _check(domain, tol, max_evals, max_degree, where)
    evaluator = Evaluator(f, box, max_evals, vectorized)
    level = int(math.log2(max_degree))
    cross = Cross(evaluator, len(box), tol, generator(random_state), level)
    reason = "tolerance met"
    try:
        cross.run(_hints(hints, evaluator, where))
    except OutOfEvaluations:
        reason = f"max_evals={max_evals} reached"
    if cross.unresolved:
        reason = _unresolved(cross, evaluator)
    result = _finished(cross, box)
    residual = cross.residual / cross.scale if cross.scale else 0.0
    converged = reason == "tolerance met" and residual <= tol
    if not converged and reason == "tolerance met":
        reason = "ranks no longer lower the residual"
    info = Report(
        converged=converged,
        reason=reason,
        n_iter=cross.rounds,
        n_evals=evaluator.n_evals,
        rel_error=residual,
        seconds=time.perf_counter() - start,
        random_state=seed_of(random_state),
    )
    if not converged:
        warnings.warn(f"{where}: {reason}; residual {residual:.2g} > tol={tol:g}.", ConvergenceWarning, stacklevel=2)
    return replace(result, info=info)


def _check(domain: Any, tol: Any, max_evals: Any, max_degree: Any, where: str) -> list[tuple[float, float]]:
    pairs = list(domain)
    if not pairs or not all(hasattr(pair, "__len__") and len(pair) == 2 for pair in pairs):
        raise ShapeError(f"{where}: `domain` must be one interval (a, b) per variable; got {domain!r}.")
    if not 1e-15 <= tol < 1:
        raise DataError(f"{where}: tol must be from 1e-15, what float64 can give, to below 1; got {tol!r}.")
    if max_evals < 1 or max_degree < 16:
        raise DataError(f"{where}: max_evals must be 1 or more and max_degree 16 or more; got {max_evals}, {max_degree}.")
    return [check_interval(pair, where) for pair in pairs]


def _hints(hints: Any, evaluator: Evaluator, where: str) -> np.ndarray:
    """Hinted points on the cube."""
    d = len(evaluator.low)
    if hints is None:
        return np.empty((0, d))
    points = np.atleast_2d(np.asarray(hints, dtype=float))
    if points.ndim != 2 or points.shape[1] != d:
        raise ShapeError(f"{where}: `hints` must have shape (N, {d}); got {points.shape}.")
    inside = (points >= evaluator.low) & (points <= evaluator.high)
    if not inside.all():
        raise DataError(f"{where}: `hints` must lie in the domain; got {points[~inside.all(axis=1)][0].tolist()}.")
    return 2 * (points - evaluator.low) / (evaluator.high - evaluator.low) - 1


def _unresolved(cross: Cross, evaluator: Evaluator) -> str:
    modes = ", ".join(f"mode {n}" for n in sorted(cross.unresolved))
    return (
        f"{modes} needs a degree above {2**cross.max_level}: the function is not smooth there. Split the domain "
        "at the kink, or use a larger tol"
    )


def _finished(cross: Cross, box: list[tuple[float, float]]) -> Tucker:
    """Orthonormal factors, ranks rounded, degrees cut where their sum is below the rounding's share."""
    budget = _ROUNDING * cross.tol * cross.scale
    if not cross.scale or 0 in cross.core.shape:
        modes = [Chebyshev(1, interval) for interval in box]
        return Tucker(np.zeros((1,) * len(box)), [np.ones((1, 1)) for _ in box], modes)
    pairs = [np.linalg.qr(axis.factor) for axis in cross.axes]
    core = contract(cross.core, [triangle for _, triangle in pairs])
    size = float(np.linalg.norm(core))
    core, factors, _ = truncate(core, None, max(budget / size, 1e-16))
    factors = [q @ u for (q, _), u in zip(pairs, factors, strict=True)]
    for n, factor in enumerate(factors):
        flat = np.moveaxis(core, n, 0).reshape(core.shape[n], -1)
        heights = np.linalg.norm(factor @ flat, axis=1)
        kept = np.flatnonzero(np.cumsum(heights[::-1])[::-1] > budget)
        factors[n] = factor[: (kept[-1] + 1 if len(kept) else 1)]
    return Tucker(core, factors, [Chebyshev(f.shape[0], interval) for f, interval in zip(factors, box, strict=True)])
