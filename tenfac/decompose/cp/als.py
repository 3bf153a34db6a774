"""CP decomposition (PARAFAC) by alternating least squares, in a compressed core and then in the array."""

from __future__ import annotations

import math
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Shaped

from tenfac.core.arrays import dtype_name, generator
from tenfac.core.cp import CP
from tenfac.core.door import door
from tenfac.core.errors import DataError
from tenfac.core.progress import Progress
from tenfac.core.rank import check_tol
from tenfac.decompose.checks import check_count, checked_array
from tenfac.decompose.cp.fit import as_result, fit_dense, fit_sparse
from tenfac.decompose.cp.search import Options
from tenfac.decompose.cp.sparse_tensor import SparseTensor
from tenfac.decompose.cp.start import checked_rank
from tenfac.decompose.sparse_input import is_sparse


@door
def cp(
    X: Shaped[Any, "*shape"],
    rank: int,
    *,
    init: Any = None,
    n_init: int | None = None,
    max_iter: int = 2000,
    tol: float = 1e-7,
    nonnegative: bool = False,
    random_state: int | np.random.Generator | None = 0,
    verbose: int = 0,
    callback: Callable[[int, float], Any] | None = None,
) -> CP:
    """Decompose an array into a sum of rank-one terms.

    ``X[i, j, ...] ~ sum_r w[r] A[i, r] B[j, r] ...`` with the smallest sum of squares found: the canonical
    polyadic decomposition, also called PARAFAC [1]_.

    Parameters
    ----------
    X : array or sparse array, shape (I_0, ..., I_{D-1})
        ``D >= 2``, real or complex, without NaN, of numpy, torch or JAX. A sparse array of scipy
        (``coo_array`` of any order) or of pydata ``sparse`` is fitted without forming the dense one; entries
        that are not stored are zeros.
    rank : int
        Number of terms R, at most ``prod(I) / max(I)``.
    init : CP or tuple, optional
        Go on from this tensor, or ``(weights, factors)``, instead of random starts.
    n_init : int, optional
        Random starts. If not given, 10 where they are cheap (compressed or small arrays), else 3.
    max_iter : int, default 2000
        Sweeps at most, all stages together.
    tol : float, default 1e-7
        Stop when two sweeps in a row lower the error by less than this share of it.
    nonnegative : bool, default False
        Keep weights and factors at zero or above; each step is the hierarchical ALS [4]_ of TensorLy.
    random_state : int, Generator or None, default 0
        Sets the random starts.
    verbose : {0, 1, 2}, default 0
        1 shows a progress bar, 2 logs each stage too (logger ``tenfac``).
    callback : callable, optional
        ``callback(n_iter, rel_error)`` after each sweep, with the error of the best start so far; a true
        answer stops.

    Returns
    -------
    CP
        Columns of norm 1, weights positive and falling; the largest entry of a column is positive except in
        mode 0. ``info.rel_error`` is computed from the residual of the tensor returned. Library, dtype and
        device of ``X``; integers become float64; float16 and bfloat16 are computed and returned in float32;
        sparse input gives numpy.

    Raises
    ------
    RankError
        If ``rank`` or ``tol`` is not valid, or ``rank`` is above any CP rank of this shape.
    ShapeError
        If the array has fewer than two modes, no entries, or ``init`` does not fit.
    DataError
        If entries are NaN or infinite, or the dtype is not supported.

    Warns
    -----
    ConvergenceWarning
        If ``max_iter`` ended it, or two components cancel each other while they grow (degeneracy: there may
        be no best approximation).

    Notes
    -----
    The array is compressed to at most ``R`` per mode by ``tucker`` when that makes it smaller; starts are
    compared there, all swept at once, and the best is polished on the array itself. One sweep costs two
    products of ``R prod(I)`` multiplications, whatever the order (dimension tree [2]_); between sweeps the
    factors are extrapolated [3]_. A term is unique up to signs and scale that cancel, for ``D > 2`` under
    mild conditions [1]_; for matrices it is not: there the singular value decomposition is returned.
    No gradient flows through.

    References
    ----------
    .. [1] T. G. Kolda and B. W. Bader, Tensor Decompositions and Applications, SIAM Review 51 (2009), section
       3. doi:10.1137/07070111X
    .. [2] A.-H. Phan, P. Tichavsky and A. Cichocki, Fast alternating LS algorithms for high order
       CANDECOMP/PARAFAC tensor factorizations, IEEE Trans. Signal Process. 61 (2013), section III.
       doi:10.1109/TSP.2013.2269903
    .. [3] A. M. S. Ang, J. E. Cohen, N. Gillis and L. T. K. Hien, Accelerating block coordinate descent for
       nonnegative tensor factorization, Numer. Linear Algebra Appl. 28 (2021), algorithm 3.
       doi:10.1002/nla.2373
    .. [4] N. Gillis and F. Glineur, Accelerated Multiplicative Updates and Hierarchical ALS Algorithms for
       Nonnegative Matrix Factorization, Neural Computation 24 (2012). doi:10.1162/NECO_a_00256

    Examples
    --------
    >>> import numpy as np
    >>> rng = np.random.default_rng(0)
    >>> A, B, C = (rng.standard_normal((size, 3)) for size in (6, 7, 8))
    >>> t = cp(np.einsum("ir,jr,kr->ijk", A, B, C), rank=3)
    >>> t
    CP(shape=(6, 7, 8), rank=3, numpy.float64, 66 numbers for 336 entries)
    >>> t.info.converged, t.info.rel_error < 1e-7
    (True, True)
    """
    return fitted(
        X, rank, init=init, n_init=n_init, max_iter=max_iter, tol=tol, nonnegative=nonnegative,
        random_state=random_state, verbose=verbose, callback=callback, warn=True,
    )  # fmt: skip


def fitted(
    X: Any,
    rank: Any,
    *,
    init: Any = None,
    n_init: Any,
    max_iter: Any,
    tol: Any,
    nonnegative: Any,
    random_state: Any,
    verbose: Any = 0,
    callback: Any = None,
    warn: bool,
) -> CP:
    """``cp``, which may keep its warning to itself.

    Examples
    --------
    >>> asked = {"n_init": 2, "max_iter": 9, "tol": 1e-3, "nonnegative": False, "random_state": 0}
    >>> fitted(np.ones((2, 3, 4)), 1, **asked, warn=False).rank
    1
    """
    start = perf_counter()
    tol = check_tol(tol, where="cp")
    max_iter = check_count(max_iter, "max_iter", "cp")
    n_init = None if n_init is None else check_count(n_init, "n_init", "cp")
    progress = Progress("cp", max_iter, verbose, callback)
    if not isinstance(nonnegative, (bool, np.bool_)):
        raise TypeError(f"cp: nonnegative must be True or False; got {nonnegative!r}.")
    rng = generator(random_state)
    X, norm2 = (SparseTensor.from_array(X, "cp"), math.nan) if is_sparse(X) else checked_array(X, "cp")
    rank = checked_rank(rank, tuple(X.shape))
    if nonnegative and dtype_name(X.dtype).startswith("complex"):
        raise DataError("cp: nonnegative=True needs real data; got complex ones. Take abs(X).")
    with progress:
        options = Options(rank, init, n_init, tol, bool(nonnegative), rng, progress)
        fit = fit_sparse(X, options) if isinstance(X, SparseTensor) else fit_dense(X, norm2, options)
    return as_result(fit, options, random_state, start, warn)
