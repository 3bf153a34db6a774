"""Append slices to a Tucker tensor without the data it came from."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

from jaxtyping import Shaped

from tenfac.core.arrays import dtype_name, eps, namespace_of, promote, to_number
from tenfac.core.cp import CP
from tenfac.core.door import door
from tenfac.core.errors import ShapeError, warn_user
from tenfac.core.interchange import as_format
from tenfac.core.ops import check_mode
from tenfac.core.rank import REACHABLE, rank_or_tol
from tenfac.core.report import Report
from tenfac.core.train import TuckerTrain
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.decompose.checks import checked_array, rescaled

# Share of what the tolerance leaves that the new slices may use before all is rounded.
_NEW = 0.5
# Largest core of a CP tensor or a train, in bytes.
_BYTES = 2**30
# Share of its data that the tensor so far is taken to hold at least, squared, and the largest error of a cut.
_LEAST_SHARE, _ALL = 1e-12, 0.99
# Roundings of the dtype below which nothing is cut.
_ROUNDINGS = 10


@door
def tucker_append(
    t: Tucker,
    X_new: Shaped[Any, "*shape"],
    mode: int,
    *,
    rank: int | Sequence[int] | None = None,
    tol: float | None = None,
) -> Tucker:
    """Append slices along one mode to a decomposed tensor; its own data are not needed any more.

    The new slices are compressed, joined with ``t`` in the bases of both, and the joint core is truncated:
    the rank grows only by directions that the new slices bring.

    Parameters
    ----------
    t : Tucker, CP or TuckerTrain
        The tensor so far, of discrete modes, with its error in ``t.info.rel_error``; TensorLy's too.
    X_new : array, shape (I_0, ..., J, ..., I_{D-1})
        New slices, J of them along ``mode``; the other sizes as in ``t``. Same library as ``t``.
    mode : int
        ``0 <= mode < D``. Negative values count from the end.
    rank : int or sequence of int, optional
        Rank of the result.
    tol : float, optional
        Relative Frobenius error of the result against all data, that of ``t`` included. Give either
        ``rank`` or ``tol``.

    Returns
    -------
    Tucker
        Shape as ``t`` with ``I_mode + J``, orthonormal factors. ``info.rel_error`` is a bound of the error
        against all data: that of ``t``, that of the new slices, and that of the last truncation together.
        float16 and bfloat16 are computed and returned in float32.

    Raises
    ------
    ShapeError, TypeError, RankError, DataError
        If the slices do not fit or are not finite, ``t`` is a batch, or ``rank`` or ``tol`` is not valid.

    Warns
    -----
    ConvergenceWarning
        If the error of ``t`` alone is above ``tol``.

    Notes
    -----
    Cost: that of ``tucker(X_new)``, plus ``sum I_n S_n^2 + S^(D+1)`` with S the sum of both ranks. The bound
    takes ``t`` for the projection of its data on its factors, as ``tucker`` and ``hooi`` leave it, and takes
    it for exact if ``t.info`` says nothing. It adds up with every call: give a smaller ``tol`` at first, or
    decompose anew, when many calls follow.

    References
    ----------
    .. [1] J. Sun, D. Tao, S. Papadimitriou, P. S. Yu and C. Faloutsos, Incremental tensor analysis, ACM
       Trans. Knowl. Discov. Data 2 (2008), section 4. doi:10.1145/1409620.1409621

    Examples
    --------
    >>> import numpy as np
    >>> from tenfac import tucker
    >>> x = np.linspace(0, 1, 30)
    >>> X = 1 / (1 + x[:, None, None] + x[:, None] + x)
    >>> t = tucker_append(tucker(X[:20], tol=1e-6), X[20:], 0, tol=1e-4)
    >>> t.shape, bool(np.linalg.norm(t.to_tensor() - X) <= 1e-4 * np.linalg.norm(X))
    ((30, 30, 30), True)
    """
    start = perf_counter()
    t, X_new, norm2, mode = _checked(as_format(t), X_new, mode)
    X_new, norm2, scale = rescaled(X_new, norm2)
    new_norm = math.sqrt(norm2) * scale
    shape = tuple(s + X_new.shape[n] if n == mode else s for n, s in enumerate(t.coef_shape))
    ranks, tol = rank_or_tol(rank, tol, shape, t.dtype, "tucker_append")
    before = None if t.info is None else t.info.rel_error
    old_error = before or 0.0
    t_norm = to_number(t.norm())
    old_norm = t_norm / math.sqrt(max(1 - old_error**2, _LEAST_SHARE))
    old_lost, norm = old_error * old_norm, math.hypot(old_norm, new_norm)
    cut = _ROUNDINGS * eps(t.dtype)
    if tol is not None and new_norm:
        slack = tol * norm - old_lost
        cut = min(max(_NEW * (slack if slack > 0 else tol * norm) / new_norm, cut), _ALL)
    core, factors, new_error = truncate(X_new, None, cut, norm2=norm2)
    new = Tucker(core * scale, factors)
    joined = _stacked(t, new, mode)
    lost = math.hypot(old_lost, new_error * new_norm)
    joined_norm = math.hypot(t_norm, to_number(new.norm()))
    if tol is None:
        rounded = joined.round(ranks)
    else:
        left = (tol * norm - lost) / joined_norm if joined_norm else _ALL
        rounded = joined.round(tol=min(max(left, REACHABLE[dtype_name(t.dtype)]), _ALL))
    lost += (0.0 if rounded.info is None else rounded.info.rel_error) * joined_norm
    info = _report(lost / norm if norm else 0.0, before, tol, start)
    return Tucker(rounded.core, rounded.factors, info=info)


def _checked(t: Tucker, X_new: Any, mode: int) -> tuple[Tucker, Any, float, int]:
    """The tensor and the slices in one dtype, their squared norm, the mode counted from the start."""
    t = t.to_tucker(max_bytes=_BYTES) if isinstance(t, (CP, TuckerTrain)) else t
    if not isinstance(t, Tucker):
        raise TypeError(
            f"tucker_append: t must be a Tucker; got {type(t).__name__}. Write tucker(X, ...) first."
        )
    if t.is_functional:
        raise ShapeError(f"tucker_append: t must have discrete modes only; got shape {t.shape}.")
    if t.batch_shape:
        raise ShapeError(
            f"tucker_append: t must be one tensor, no batch; got a batch of shape {t.batch_shape}. Append to "
            "its members one by one."
        )
    namespace_of(t.core, X_new)
    X_new, norm2 = checked_array(X_new, "tucker_append", "X_new")
    mode = check_mode(mode, t.ndim, "tucker_append")
    want = tuple("J" if n == mode else size for n, size in enumerate(t.coef_shape))
    if X_new.ndim != t.ndim or any(
        size != X_new.shape[n] for n, size in enumerate(t.coef_shape) if n != mode
    ):
        raise ShapeError(
            f"tucker_append: X_new must have shape ({', '.join(map(str, want))}), as t but for mode {mode}; "
            f"got {tuple(X_new.shape)}. Write X_new[None] for a single slice of mode 0."
        )
    X_new, core, *factors = promote(X_new, t.core, *t.factors, where="tucker_append")
    return Tucker(core, factors, info=t.info), X_new, norm2, mode


def _stacked(t: Tucker, new: Tucker, mode: int) -> Tucker:
    """``t`` and ``new`` one after the other along ``mode``, in the bases of both."""
    xp = namespace_of(t.core)
    above, below = t.factors[mode], new.factors[mode]

    def zeros(rows: Any, like: Any) -> Any:
        return xp.zeros((rows.shape[0], like.shape[1]), dtype=like.dtype, device=like.device)

    first, second = list(t.factors), list(new.factors)
    first[mode] = xp.concat([above, zeros(below, above)], axis=0)
    second[mode] = xp.concat([zeros(above, below), below], axis=0)
    return Tucker(t.core, first) + Tucker(new.core, second)


def _report(error: float, before: float | None, tol: float | None, start: float) -> Report:
    notes: list[str] = []
    if before is None:
        notes.append("tucker_append: t.info gives no error, so that rel_error counts t as exact.")
    converged = tol is None or error <= tol
    if not converged:
        notes.append(
            f"tucker_append: the bound of the error is {error:.2g}, above tol={tol:g}; t alone has "
            f"{before or 0.0:.2g} of its own data. Raise tol, or decompose all data anew."
        )
        warn_user(notes[-1])
    reason = "rank reached" if tol is None else "tolerance met" if converged else "error of t above tolerance"
    return Report(converged, reason, rel_error=error, seconds=perf_counter() - start, warnings=tuple(notes))
