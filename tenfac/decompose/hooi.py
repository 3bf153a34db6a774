"""Tucker decomposition by higher-order orthogonal iteration: the best subspaces, given each other."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from jaxtyping import Shaped

from tenfac.core.arrays import eps, namespace_of, promote
from tenfac.core.contract import contract
from tenfac.core.door import door
from tenfac.core.errors import DataError, ShapeError, warn_user
from tenfac.core.interchange import as_format
from tenfac.core.progress import STOPPED, Progress
from tenfac.core.rank import check_tol, tucker_rank
from tenfac.core.report import Report
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.decompose.checks import check_count, checked_array, rescaled
from tenfac.decompose.residual import clear, relative_error

# Roundings of the dtype that the sums of squares of an error may make.
_ROUNDINGS = 8


@door
def hooi(
    X: Shaped[Any, "*shape"],
    rank: int | Sequence[int],
    *,
    init: Tucker | None = None,
    max_iter: int = 100,
    tol: float = 1e-6,
    verbose: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> Tucker:
    """Decompose an array by higher-order orthogonal iteration, from ``tucker``'s result on.

    Each sweep replaces one factor after another by the leading left singular vectors of ``X`` projected on
    all the other factors [1]_. The error never rises. It is worth its time where ``X`` is far from low rank:
    noise, textures, counts. On smooth data ``tucker`` is already within a few per cent.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
        Real or complex, without NaN.
    rank : int or sequence of int
        One rank for all modes, or one per mode, at most the sizes.
    init : Tucker, optional
        Start from its factors, of this shape and rank; TensorLy's too. By default from ``tucker(X, rank)``.
    max_iter : int, default 100
        Most sweeps.
    tol : float, default 1e-6
        Stop when a sweep lowers the error by less than this fraction of it, or by less than rounding shows.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar, 2 logs each stage too (logger ``tenfac``).
    callback : callable, optional
        ``callback(n_iter, rel_error)`` after each sweep; a true answer stops.

    Returns
    -------
    Tucker
        With orthonormal factors. ``info.rel_error`` is the relative error, ``info.history`` that of the start
        and of every sweep. float16 and bfloat16 are computed and returned in float32.

    Raises
    ------
    RankError
        If ``rank`` or ``tol`` is not valid.
    ShapeError
        If ``init`` does not fit, or the array is empty.
    DataError
        If entries are NaN or infinite, or the dtype is not supported.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` sweeps were not enough.

    Notes
    -----
    A sweep costs two products of ``X`` with factors, ``R prod(I)`` multiplications each, for any number of
    modes: half of the modes are projected once for all the factors of the other half. Errors below about
    1e-4 (float64) are measured on the residual itself, one product more. The result is a stationary point,
    not always the best approximation.

    References
    ----------
    .. [1] L. De Lathauwer, B. De Moor and J. Vandewalle, On the best rank-1 and rank-(R1, R2, ..., RN)
       approximation of higher-order tensors, SIAM J. Matrix Anal. Appl. 21 (2000), algorithm 4.2.
       doi:10.1137/S0895479898346995

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import tucker
    >>> X = np.random.default_rng(0).standard_normal((12, 12, 12))
    >>> t = hooi(X, 3, tol=1e-4)
    >>> t.info.rel_error < tucker(X, 3).info.rel_error
    True
    """
    start = perf_counter()
    X, norm2 = checked_array(X, "hooi")
    ranks = tucker_rank(rank, tuple(X.shape), "hooi")
    max_iter = check_count(max_iter, "max_iter", "hooi")
    tol = check_tol(tol, where="hooi")
    progress = Progress("hooi", max_iter, verbose, callback)
    if init is not None:
        X, *factors = _start_from(as_format(init), X, ranks)
    X, norm2, scale = rescaled(X, norm2)
    if init is None:
        factors = list(truncate(X, ranks, norm2=norm2)[1])
    with progress:
        core, history, settled = _iterate(X, factors, norm2, tol, progress)
    converged = settled and not progress.stopped
    reason = STOPPED if progress.stopped else "error stopped falling" if settled else "max_iter reached"
    notes: tuple[str, ...] = ()
    if not converged and not progress.stopped:
        fall = 1 - history[-1] / history[-2]
        notes = (
            f"hooi: the last of {max_iter} sweeps still lowered the error by {fall:.1g} of it, more than "
            f"tol={tol:g}. Raise max_iter or tol.",
        )
        warn_user(notes[0])
    info = Report(
        converged,
        reason,
        n_iter=len(history) - 1,
        rel_error=history[-1],
        history=tuple(history),
        seconds=perf_counter() - start,
        warnings=notes,
    )
    return Tucker(core * scale, factors, info=info)


def _start_from(init: Tucker, X: Any, ranks: tuple[int, ...]) -> tuple[Any, ...]:
    """``X`` and orthonormal bases of the factors of ``init``, in one dtype."""
    if not isinstance(init, Tucker):
        raise TypeError(
            f"hooi: init must be a Tucker; got {type(init).__name__}. Leave it out to start from tucker."
        )
    if init.batch_shape:
        raise ShapeError(
            f"hooi: init must be one tensor, no batch; got a batch of shape {init.batch_shape}. Take its "
            "members one by one."
        )
    if init.coef_shape != tuple(X.shape) or init.rank != ranks:
        raise ShapeError(
            f"hooi: init must have shape {tuple(X.shape)} and rank {ranks}; got shape {init.coef_shape} and "
            f"rank {init.rank}. Pass rank={init.rank}, or another init."
        )
    xp = namespace_of(X, *init.factors)
    X, *factors = promote(X, *init.factors, where="hooi")
    if not all(bool(xp.all(xp.isfinite(factor))) for factor in factors):
        raise DataError(
            "hooi: every factor of init must be finite; got NaN or infinite entries. Leave init out."
        )
    return X, *(xp.linalg.qr(factor)[0] for factor in factors)


def _iterate(
    X: Any, factors: list[Any], norm2: float, tol: float, progress: Progress
) -> tuple[Any, list[float], bool]:
    """Sweep until the error stops falling; renews ``factors`` in place."""
    modes = range(X.ndim)
    core = _project(X, factors, modes)
    history = [relative_error(X, core, factors, norm2)]
    progress.log("relative error of the start %.6g", history[0])
    settled = False
    while progress.left and not settled:
        before = list(factors)
        renewed = _sweep(X, factors, modes)
        error = relative_error(X, renewed, factors, norm2)
        if error > history[-1]:  # only rounding can raise it
            factors[:], error = before, history[-1]
        else:
            core = renewed
        history.append(error)
        settled = history[-2] - error <= max(tol * error, _rounding(error, X.dtype))
        progress(error)
    progress.log("relative error after %d sweeps %.6g", progress.n_iter, history[-1])
    return core, history, settled


def _sweep(tensor: Any, factors: list[Any], modes: Sequence[int]) -> Any:
    """Renew the factors of ``modes``; ``tensor`` is projected on all others. Returns the core."""
    if len(modes) == 1:
        n = modes[0]
        ranks = [factors[n].shape[1] if m == n else size for m, size in enumerate(tensor.shape)]
        core, found, _ = truncate(tensor, ranks, modes=modes)
        factors[n] = found[n]
        return core
    first, last = modes[: len(modes) // 2], modes[len(modes) // 2 :]
    _sweep(_project(tensor, factors, last), factors, first)
    return _sweep(_project(tensor, factors, first), factors, last)


def _project(tensor: Any, factors: Sequence[Any], modes: Sequence[int]) -> Any:
    """Coordinates of ``tensor`` in the orthonormal factors of ``modes``."""
    xp = namespace_of(tensor)
    is_complex = xp.isdtype(tensor.dtype, "complex floating")
    adjoint = {n: xp.conj(factors[n].T) if is_complex else factors[n].T for n in modes}
    return contract(tensor, [adjoint.get(n) for n in range(tensor.ndim)], xp=xp)


def _rounding(error: float, dtype: Any) -> float:
    """Change of the error that rounding alone can make."""
    least = _ROUNDINGS * eps(dtype)
    return least / error if error**2 > clear(dtype) else least  # of a difference of squares, or a residual
