"""Tucker decomposition in numbers of zero or more: by accelerated projected gradients, block after block."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from jaxtyping import Shaped

from tenfac.core.arrays import device_of, dtype_name, eps, generator, namespace_of, seed_of, to_number
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, warn_user
from tenfac.core.ops import unfold
from tenfac.core.progress import STOPPED, Progress
from tenfac.core.rank import check_tol, tucker_rank
from tenfac.core.report import Report
from tenfac.core.tucker import Tucker
from tenfac.decompose.checks import check_count, checked_array, rescaled
from tenfac.decompose.residual import clear, residual_error

_WHERE = "tucker_nonnegative"
_ROUNDINGS = 8  # of the dtype, relative to the error: a smaller fall is none
_STEPS = 10  # on one block: they cost little beside the product with X that they share


@door
def tucker_nonnegative(
    X: Shaped[Any, "*shape"],
    rank: int | Sequence[int],
    *,
    max_iter: int = 1000,
    tol: float = 1e-5,
    random_state: int | Any = 0,
    verbose: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> Tucker:
    """Decompose an array into a core and factors without negative numbers.

    Parts add up and never cancel, so that a column of a factor reads as a profile and an entry of the core as
    the amount of one combination: spectra, counts, intensities. The core and the factors are renewed in turn,
    each by accelerated projected gradient steps [1]_. The error never rises.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
        Real, without NaN. Negative entries are allowed and cannot be fitted.
    rank : int or sequence of int
        One rank for all modes, or one per mode, at most the sizes.
    max_iter : int, default 1000
        Most sweeps over the core and all factors.
    tol : float, default 1e-5
        Stop when a sweep lowers the error by less than this fraction of it, or by less than rounding shows.
    random_state : int, numpy Generator or None, default 0
        Of the start.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar, 2 logs each stage too (logger ``tenfac``).
    callback : callable, optional
        ``callback(n_iter, rel_error)`` after each sweep; a true answer stops.

    Returns
    -------
    Tucker
        With columns of norm one, or zero where a column is not used. ``info.rel_error`` is the relative
        error, ``info.history`` that of every sweep.

    Raises
    ------
    RankError
        If ``rank`` or ``tol`` is not valid.
    ShapeError
        If the array is empty.
    DataError
        If entries are complex, NaN or infinite, or the dtype is not supported.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` sweeps were not enough.

    See Also
    --------
    cp : with ``nonnegative=True``, one product of profiles per component and no core.

    Notes
    -----
    The error is ``||X - G x_0 A_0 x_1 A_1 ...||``, minimised over ``G >= 0``, ``A_n >= 0``. The problem is
    not convex: the result is a stationary point, which depends on the start. Try several ``random_state``
    and keep the lowest ``info.rel_error``.

    References
    ----------
    .. [1] Y. Xu, Alternating proximal gradient method for sparse nonnegative Tucker decomposition,
       Math. Program. Comput. 7 (2015), section 2. doi:10.1007/s12532-014-0074-y

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A, B = rng.random((6, 2)), rng.random((5, 2))
    >>> t = tucker_nonnegative(A @ B.T, 2)
    >>> t.info.rel_error < 0.01, bool(min(t.core.min(), *(f.min() for f in t.factors)) >= 0)
    (True, True)
    """
    start = perf_counter()
    X, norm2 = checked_array(X, _WHERE)
    ranks = tucker_rank(rank, tuple(X.shape), _WHERE)
    max_iter = check_count(max_iter, "max_iter", _WHERE)
    tol = check_tol(tol, where=_WHERE)
    progress = Progress(_WHERE, max_iter, verbose, callback)
    if dtype_name(X.dtype).startswith("complex"):
        raise DataError(f"{_WHERE}: X must be real; got {dtype_name(X.dtype)}. Take abs(X), or use tucker.")
    rng = generator(random_state)
    X, norm2, scale = rescaled(X, norm2)
    xp = namespace_of(X)
    starts = [rng.random((size, r)) for size, r in zip(X.shape, ranks, strict=True)]
    factors = [_unit(xp.asarray(a, dtype=X.dtype, device=device_of(X)), xp)[0] for a in starts]
    with progress:
        core, settled = _iterate(X, factors, norm2, tol, progress, xp)
    converged = settled and not progress.stopped
    reason = STOPPED if progress.stopped else "error stopped falling" if settled else "max_iter reached"
    notes: tuple[str, ...] = ()
    if not converged and not progress.stopped:
        notes = (
            f"{_WHERE}: the last of {max_iter} sweeps still lowered the error by more than tol={tol:g} "
            "of it. Raise max_iter or tol.",
        )
        warn_user(notes[0])
    info = Report(
        converged,
        reason,
        n_iter=progress.n_iter,
        rel_error=progress.history[-1],
        history=tuple(progress.history),
        seconds=perf_counter() - start,
        random_state=seed_of(random_state),
        warnings=notes,
    )
    return Tucker(core * scale, factors, info=info)


def _iterate(
    X: Any, factors: list[Any], norm2: float, tol: float, progress: Progress, xp: Any
) -> tuple[Any, bool]:
    """Sweep until the error stops falling; renews ``factors`` in place."""
    core = contract(X, [f.T for f in factors], xp=xp)
    core = xp.clip(core, 0.0, None)
    settled = False
    while progress.left and not settled:
        for n in range(X.ndim):
            _renew_factor(X, core, factors, n, xp)
            factors[n], norms = _unit(factors[n], xp)
            shape = [-1 if m == n else 1 for m in range(X.ndim)]
            core = core * xp.reshape(norms, shape)
        core, product = _renewed_core(X, core, factors, xp)
        error = _error(X, core, factors, product, norm2, xp)
        before = progress.history[-1] if progress.history else math.inf
        progress(error)
        settled = before - error <= max(tol, _ROUNDINGS * eps(X.dtype)) * error
    progress.log("relative error after %d sweeps %.6g", progress.n_iter, progress.history[-1])
    return core, settled


def _renew_factor(X: Any, core: Any, factors: list[Any], n: int, xp: Any) -> None:
    """Lower the error in one factor: least squares with the rows of the others as regressors."""
    others = [None if m == n else f for m, f in enumerate(factors)]
    grams = [None if f is None else f.T @ f for f in others]
    seen = unfold(contract(X, [None if f is None else f.T for f in others], xp=xp), n)
    own = unfold(core, n)
    gram = unfold(contract(core, grams, xp=xp), n) @ own.T
    height = to_number(xp.linalg.matrix_norm(gram, ord=2))
    factors[n] = _descend(lambda a: a @ gram, seen @ own.T, factors[n], height, xp)


def _renewed_core(X: Any, core: Any, factors: Sequence[Any], xp: Any) -> tuple[Any, Any]:
    """The core after steps that lower the error, and ``X`` times the transposed factors."""
    product = contract(X, [f.T for f in factors], xp=xp)
    grams = [f.T @ f for f in factors]
    height = math.prod(to_number(xp.linalg.matrix_norm(gram, ord=2)) for gram in grams)
    return _descend(lambda g: contract(g, grams, xp=xp), product, core, height, xp), product


def _descend(apply: Callable[[Any], Any], product: Any, old: Any, height: float, xp: Any) -> Any:
    """Lower ``<x, H x> - 2 <x, product>`` over ``x >= 0`` from ``old``; ``H`` is at most ``height``."""
    if height == 0:
        return old
    x = ahead = old
    pace = 1.0
    for _ in range(_STEPS):
        found = xp.clip(ahead + (product - apply(ahead)) / height, 0.0, None)
        if to_number(xp.sum((ahead - found) * (found - x))) > 0:  # the momentum points uphill
            pace = 1.0
            found = xp.clip(x + (product - apply(x)) / height, 0.0, None)
        faster = (1 + math.sqrt(1 + 4 * pace * pace)) / 2
        ahead = found + (pace - 1) / faster * (found - x)
        x, pace = found, faster
    change = x - old
    # by how much it fell, from the change alone
    fell = to_number(xp.sum(change * (2 * (product - apply(old)) - apply(change))))
    return x if fell > 0 else old


def _error(X: Any, core: Any, factors: Sequence[Any], product: Any, norm2: float, xp: Any) -> float:
    """Relative error, on the residual itself where the difference of squares has too few digits."""
    if norm2 == 0:
        return 0.0
    square = to_number(xp.sum(core * contract(core, [f.T @ f for f in factors], xp=xp)))
    lost2 = (norm2 - 2 * to_number(xp.sum(core * product)) + square) / norm2
    return math.sqrt(lost2) if lost2 > clear(X.dtype) else residual_error(X, core, factors, norm2)


def _unit(factor: Any, xp: Any) -> tuple[Any, Any]:
    """Columns of norm one, and the norms; a zero column stays."""
    norms = xp.linalg.vector_norm(factor, axis=0)
    return factor / xp.where(norms > 0, norms, xp.ones_like(norms)), norms
