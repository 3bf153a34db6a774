"""Tucker decomposition by random sketches: for modes of a thousand entries and more."""

from __future__ import annotations

import math
from collections.abc import Sequence
from time import perf_counter
from typing import Any

import numpy as np
from jaxtyping import Shaped

from tenfac.core.arrays import device_of, generator, namespace_of, seed_of
from tenfac.core.contract import adjoint
from tenfac.core.door import door
from tenfac.core.rank import tucker_rank
from tenfac.core.report import Report
from tenfac.core.truncate import truncate
from tenfac.core.tucker import Tucker
from tenfac.decompose.checks import check_count, checked_array, rescaled
from tenfac.decompose.residual import relative_error

# A sketch pays where the mode is this many times as long as the sketch is wide.
_PAYS = 8


@door
def randomized_tucker(
    X: Shaped[Any, "*shape"],
    rank: int | Sequence[int],
    *,
    oversampling: int = 8,
    power_iterations: int = 1,
    random_state: int | np.random.Generator | None = 0,
) -> Tucker:
    """Decompose an array as ``tucker`` does, the long modes from a random sketch of their unfolding.

    The range of an unfolding is found from its product with ``rank + oversampling`` random columns, sharpened
    by power iterations [1]_, mode after mode, each on what the modes before left [2]_.

    Parameters
    ----------
    X : array, shape (I_0, ..., I_{D-1})
        Real or complex, without NaN.
    rank : int or sequence of int
        One rank for all modes, or one per mode, at most the sizes.
    oversampling : int, default 8
        Columns of the sketch beyond the rank.
    power_iterations : int, default 1
        0 is faster, and its error up to twice that of ``tucker`` on noisy data; 1 is within one per cent.
    random_state : int, numpy Generator or None, default 0
        Draws the sketch.

    Returns
    -------
    Tucker
        With orthonormal factors; ``info.rel_error`` is its relative error, computed, not estimated.
        float16 and bfloat16 are computed and returned in float32.

    Raises
    ------
    RankError, DataError, ShapeError
        If ``rank`` or a setting is not valid, or the array is empty or not finite.

    Notes
    -----
    Against ``tucker``, CPU seconds on one thread, rank 10, one power iteration, equal error to 5 digits:
    0.07 and 0.07 at 200^3, 0.29 and 0.21 at 300^3, 0.61 and 0.18 at 1000 x 1000 x 20, 3.0 and 0.22 at 2000 x
    1500 x 10 (the first is ``tucker``; ``benchmarks/tucker_variants.py``). A sketch costs
    ``2 (1 + power_iterations) (R + oversampling)`` multiplications per entry, a Gram matrix ``I``, and its
    eigenvectors ``I^3`` once. So modes shorter than 8 sketches are done as in ``tucker``; where no mode is
    longer, use ``tucker``, which also takes a tolerance. Extra memory: a copy of what the modes before left.

    References
    ----------
    .. [1] N. Halko, P. G. Martinsson and J. A. Tropp, Finding structure with randomness, SIAM Review 53
       (2011), algorithm 4.4. doi:10.1137/090771806
    .. [2] R. Minster, A. K. Saibaba and M. E. Kilmer, Randomized algorithms for low-rank tensor
       decompositions in the Tucker format, SIAM J. Math. Data Sci. 2 (2020), algorithm 3.2.
       doi:10.1137/19M1261043

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0, 1, 400)
    >>> X = 1 / (1 + x[:, None, None] + x[:, None] + x[:5])
    >>> randomized_tucker(X, 3).info.rel_error < 1e-4
    True
    """
    start = perf_counter()
    X, norm2 = checked_array(X, "randomized_tucker")
    ranks = tucker_rank(rank, tuple(X.shape), "randomized_tucker")
    oversampling = check_count(oversampling, "oversampling", "randomized_tucker", 0)
    power_iterations = check_count(power_iterations, "power_iterations", "randomized_tucker", 0)
    rng = generator(random_state)
    X, norm2, scale = rescaled(X, norm2)
    core, factors = X, [None] * X.ndim
    for n in sorted(range(X.ndim), key=lambda n: (ranks[n] / X.shape[n], X.shape[n])):
        width = ranks[n] + oversampling
        if _PAYS * width > core.shape[n] or width * core.shape[n] > math.prod(core.shape):
            core, found, _ = truncate(core, ranks_at(core, n, ranks[n]), modes=(n,))
            factors[n] = found[n]
        else:
            core, factors[n] = _sketched(core, n, ranks[n], width, power_iterations, rng)
    error = relative_error(X, core, factors, norm2)
    info = Report(
        True,
        "rank reached",
        rel_error=error,
        seconds=perf_counter() - start,
        random_state=seed_of(random_state),
    )
    return Tucker(core * scale, factors, info=info)


def ranks_at(tensor: Any, n: int, rank: int) -> list[int]:
    """The shape of ``tensor`` with ``rank`` in mode ``n``.

    Examples
    --------
    >>> import numpy as np
    >>> ranks_at(np.ones((3, 4)), 1, 2)
    [3, 2]
    """
    return [rank if m == n else size for m, size in enumerate(tensor.shape)]


def _sketched(
    tensor: Any, n: int, rank: int, width: int, power_iterations: int, rng: np.random.Generator
) -> tuple[Any, Any]:
    """Project mode ``n`` on its leading directions in a random sketch of ``width`` columns."""
    xp = namespace_of(tensor)
    matrix = xp.reshape(xp.moveaxis(tensor, n, 0), (tensor.shape[n], -1))
    draws = xp.asarray(rng.standard_normal((matrix.shape[1], width)), device=device_of(tensor))
    basis = xp.linalg.qr(matrix @ xp.astype(draws, tensor.dtype))[0]
    for _ in range(power_iterations):
        basis = xp.linalg.qr(matrix @ adjoint(adjoint(basis, xp) @ matrix, xp))[0]
    inner = adjoint(basis, xp) @ matrix
    vectors = truncate(inner, (rank, inner.shape[1]), modes=(0,))[1][0]
    core = xp.reshape(adjoint(vectors, xp) @ inner, (rank, *np.delete(tensor.shape, n).tolist()))
    return xp.moveaxis(core, 0, n), basis @ vectors
