"""Which rank for a CP decomposition: core consistency, and error and consistency over several ranks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped

from tenfac.core.arrays import eps, namespace_of, to_numpy
from tenfac.core.cp import CP
from tenfac.core.door import door
from tenfac.core.errors import RankError, ShapeError
from tenfac.core.ops import multi_mode_product
from tenfac.core.precision import double_of, is_complex
from tenfac.core.progress import Progress
from tenfac.decompose.checks import checked_array
from tenfac.decompose.cp.als import fitted
from tenfac.decompose.cp.sparse_tensor import SparseTensor
from tenfac.decompose.cp.start import as_cp, checked_rank, detached
from tenfac.decompose.sparse_input import is_sparse


class ScreePoint(NamedTuple):
    """One rank of ``cp_scree``.

    Parameters
    ----------
    rank : int
    rel_error : float
    core_consistency : float
        Percent; 100 is best.
    cp : CP

    Examples
    --------
    >>> ScreePoint(2, 0.1, 99.0, None).rank
    2
    """

    rank: int
    rel_error: Any
    core_consistency: float
    cp: Any


@door
def corcondia(X: Shaped[Any, "*shape"], cp: CP) -> float:
    """Core consistency of a CP decomposition, in percent.

    ``100 (1 - sum (G - T)^2 / R)``, with ``G`` the core that fits ``X`` best with the factors of ``cp`` and
    ``T`` the superdiagonal core of ones that CP assumes [1]_.

    Parameters
    ----------
    X : array or sparse array, shape (I_0, ..., I_{D-1})
    cp : CP or tuple (weights, factors)
        A decomposition of ``X``, of the same library unless X is sparse (then numpy).

    Returns
    -------
    float
        Near 100 where the terms describe ``X`` each on its own; it falls, often far below zero, from the
        first rank that is too high. Always 100 for a fitted CP of rank 1.

    Raises
    ------
    ShapeError
        If the shapes differ.
    DataError
        If ``X`` is not finite.

    Notes
    -----
    ``G = X x_0 A^+ x_1 B^+ ...`` [2]_: a product of ``R prod(I)`` multiplications and smaller ones, and
    ``R^D`` numbers. Weights are spread evenly over the modes.

    References
    ----------
    .. [1] R. Bro and H. A. L. Kiers, A new efficient method for determining the number of components in
       PARAFAC models, Journal of Chemometrics 17 (2003), equation 3. doi:10.1002/cem.801
    .. [2] E. E. Papalexakis and C. Faloutsos, Fast efficient and scalable core consistency diagnostic for the
       PARAFAC decomposition for big sparse tensors, ICASSP 2015, section 3. doi:10.1109/ICASSP.2015.7179011

    Examples
    --------
    >>> A = np.array([[1.0, 0.2], [0.3, 1.0], [0.5, -0.4]])
    >>> t = CP(None, [A, A, A])
    >>> round(corcondia(t.to_tensor(), t), 6)
    100.0
    """
    cp = as_cp(cp, "corcondia", "cp")
    if not is_sparse(X):
        namespace_of(X, *cp.factors)
    if tuple(X.shape) != cp.shape:
        raise ShapeError(
            f"corcondia: X and cp must have the same shape; got {tuple(X.shape)} and {cp.shape}."
        )
    inverses = _inverses(cp)
    if is_sparse(X):
        core = SparseTensor.from_array(X, "corcondia").multiplied([to_numpy(inverse) for inverse in inverses])
    else:
        X = detached(checked_array(X, "corcondia")[0])
        core = np.array(to_numpy(multi_mode_product(X, inverses)))
    diagonal = (np.arange(cp.rank),) * cp.ndim
    core[diagonal] -= 1
    return float(100 * (1 - np.sum(np.abs(core.astype(complex)) ** 2) / cp.rank))


@door
def cp_scree(
    X: Shaped[Any, "*shape"],
    ranks: Sequence[int],
    *,
    n_init: int | None = None,
    max_iter: int = 2000,
    tol: float = 1e-7,
    nonnegative: bool = False,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
) -> list[ScreePoint]:
    """Decompose at several ranks, to choose one by its error and core consistency.

    Parameters
    ----------
    X : array or sparse array, shape (I_0, ..., I_{D-1})
    ranks : sequence of int
    n_init : int, optional
        This and the others as in ``cp``.
    max_iter : int, default 2000
    tol : float, default 1e-7
    nonnegative : bool, default False
    random_state : int, Generator or None, default 0
    verbose : {0, 1, 2}
        1 shows a bar of ranks, 2 also logs a line per rank (logger ``tenfac``).

    Returns
    -------
    list of ScreePoint
        ``(rank, rel_error, core_consistency, cp)`` for each rank, in the order given. Take the largest rank
        before the consistency drops and after which the error hardly falls.

    Raises
    ------
    RankError
        If there is no rank, or one is not valid.

    Notes
    -----
    Fits that did not converge, as ranks that are too high often do not, say so in ``cp.info``; no warning.

    References
    ----------
    .. [1] R. Bro and H. A. L. Kiers, A new efficient method for determining the number of components in
       PARAFAC models, Journal of Chemometrics 17 (2003). doi:10.1002/cem.801

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> X = CP(None, [rng.standard_normal((size, 2)) for size in (5, 6, 7)]).to_tensor()
    >>> for point in cp_scree(X + 0.01 * rng.standard_normal(X.shape), [1, 2, 3], max_iter=50):
    ...     print(point.rank, round(point.rel_error, 3), point.core_consistency > 99)
    1 0.368 True
    2 0.015 True
    3 0.015 False
    """
    named = list(ranks) if np.iterable(ranks) else []
    if not named:
        raise RankError(f"cp_scree: ranks must name at least one rank; got {ranks!r}. Write range(1, 6).")
    if not is_sparse(X):
        namespace_of(X)
    for rank in named:
        checked_rank(rank, tuple(X.shape), "cp_scree")
    chosen = {"n_init": n_init, "max_iter": max_iter, "tol": tol, "nonnegative": nonnegative}
    points = []
    with Progress("cp_scree", len(named), verbose, unit="rank") as progress:
        for rank in named:
            t = fitted(X, rank, **chosen, random_state=random_state, warn=False)
            error = None if t.info is None else t.info.rel_error
            consistency = corcondia(X, t)
            points.append(ScreePoint(t.rank, error, consistency, t))
            progress.move()
            progress.log("rank %d: relative error %.3g, core consistency %.3g", t.rank, error, consistency)
    return points


def _inverses(cp: CP) -> list[Any]:
    """Pseudo-inverses (R, I_n) of the factors with the weights spread over them."""
    xp = namespace_of(cp.weights)
    wide = double_of(xp, complex_=is_complex(cp.weights))
    weights = xp.astype(detached(cp.weights), wide)
    sizes = xp.abs(weights)
    share = sizes ** (1 / cp.ndim)
    factors = [xp.astype(detached(factor), wide) * share for factor in cp.factors]
    factors[0] = factors[0] * (weights / xp.where(sizes > 0, sizes, 1.0))
    rounding = max(*cp.coef_shape, cp.rank) * eps(wide)
    inverses = [xp.linalg.pinv(factor, rtol=rounding) for factor in factors]
    return [xp.astype(inverse, cp.dtype, copy=False) for inverse in inverses]
