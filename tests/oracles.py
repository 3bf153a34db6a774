"""Dense, slow, obvious answers in numpy float64 (or complex128); never the code under test."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from tests.checks import to_numpy

_LETTERS = "abcdefghijklm"
_RANKS = "nopqrstuvwxyz"


def _wide(array: Any) -> np.ndarray:
    array = to_numpy(array)
    return array.astype(np.complex128 if np.iscomplexobj(array) else np.float64)


def tucker_dense(core: Any, factors: Sequence[Any]) -> np.ndarray:
    """``X[i, j, ...] = sum_{p, q, ...} G[p, q, ...] A[i, p] B[j, q] ...`` by one einsum."""
    d = len(factors)
    terms = [_RANKS[:d], *(_LETTERS[n] + _RANKS[n] for n in range(d))]
    return np.einsum(f"{','.join(terms)}->{_LETTERS[:d]}", _wide(core), *map(_wide, factors), optimize=True)


def cp_dense(weights: Any, factors: Sequence[Any]) -> np.ndarray:
    """``X[i, j, ...] = sum_r w[r] A[i, r] B[j, r] ...`` by a loop over ``r``."""
    factors = [_wide(factor) for factor in factors]
    weights = np.ones(factors[0].shape[1]) if weights is None else _wide(weights)
    return sum(w * reduce(np.multiply.outer, [f[:, r] for f in factors]) for r, w in enumerate(weights))


def kron_all(matrices: Sequence[Any]) -> np.ndarray:
    """``A_0 (x) A_1 (x) ...`` by ``np.kron``, first mode first."""
    return reduce(np.kron, [_wide(matrix) for matrix in matrices])


def khatri_rao_dense(matrices: Sequence[Any]) -> np.ndarray:
    """Column-wise Kronecker product, one ``np.kron`` per column."""
    matrices = [_wide(matrix) for matrix in matrices]
    columns = [reduce(np.kron, [m[:, r] for m in matrices]) for r in range(matrices[0].shape[1])]
    return np.stack(columns, axis=1)


def mode_product_dense(tensor: Any, matrix: Any, mode: int) -> np.ndarray:
    """``Y[..., j, ...] = sum_i M[j, i] X[..., i, ...]`` by einsum."""
    tensor = _wide(tensor)
    letters = _LETTERS[: tensor.ndim]
    out = letters.replace(letters[mode], "z")
    return np.einsum(f"{letters},z{letters[mode]}->{out}", tensor, _wide(matrix))


def best_rank_by_mode(tensor: Any, tol: float) -> tuple[int, ...]:
    """Smallest rank of each unfolding with relative error ``<= tol`` in that mode alone, by a full SVD."""
    tensor = _wide(tensor)
    ranks = []
    for n in range(tensor.ndim):
        s = np.linalg.svd(np.moveaxis(tensor, n, 0).reshape(tensor.shape[n], -1), compute_uv=False)
        tails = np.sqrt(np.cumsum(s[::-1] ** 2))[::-1]
        ranks.append(int(np.sum(tails > tol * np.linalg.norm(s))))
    return tuple(ranks)
