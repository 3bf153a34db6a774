"""Least squares with nonnegative unknowns, by the hierarchical ALS of TensorLy."""

from __future__ import annotations

from typing import Any

import numpy as np

from tenfac.core.arrays import tensorly_backend, to_numpy

# Rounds over the components in each step; the next sweep changes the step anyway.
_ROUNDS = 5


def nonnegative_step(grams: Any, products: Any, old: Any) -> Any:
    """Lower ``x^T G x - 2 x^T M`` over ``x >= 0``, for several starts.

    Parameters
    ----------
    grams : array, shape (S, R, R)
    products : array, shape (S, R, I)
    old : array, shape (S, R, I)
        Where to begin, nonnegative.

    Returns
    -------
    numpy array, shape (S, R, I)

    References
    ----------
    .. [1] N. Gillis and F. Glineur, Accelerated Multiplicative Updates and Hierarchical ALS Algorithms for
       Nonnegative Matrix Factorization, Neural Computation 24 (2012). doi:10.1162/NECO_a_00256

    Examples
    --------
    >>> nonnegative_step(np.ones((1, 1, 1)), np.array([[[2.0, -1.0]]]), np.ones((1, 1, 2)))
    array([[[2., 0.]]])
    """
    parts = [to_numpy(part) for part in (products, grams, old)]
    found = np.empty_like(parts[2])
    with tensorly_backend(found):
        from tensorly.solvers.nnls import hals_nnls

        for s, (product, gram, start) in enumerate(zip(*parts, strict=True)):
            found[s] = hals_nnls(product, gram, np.array(start), n_iter_max=_ROUNDS)
    return found
