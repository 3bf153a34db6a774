"""Leading and trailing directions of a weight along one mode, at the least cost that finds them."""

from __future__ import annotations

import torch
from torch import Tensor

# Modes above this size, of which few directions are wanted, are searched by a block Krylov method.
_DENSE = 1024
_OVERSAMPLING, _STEPS = 8, 3


def unfolded(tensor: Tensor, mode: int) -> Tensor:
    """The mode-n unfolding of a weight, ``(I_n, all others)``, detached."""
    return tensor.detach().movedim(mode, 0).reshape(tensor.shape[mode], -1)


def left_vectors(
    tensor: Tensor,
    mode: int,
    rank: int | None = None,
    *,
    minor: bool = False,
    rng: torch.Generator | None = None,
) -> Tensor:
    """Left singular vectors of a mode's unfolding, largest first, in float64.

    Parameters
    ----------
    tensor : tensor, shape (I_0, ..., I_{D-1})
    mode : int
    rank : int, optional
        How many; all ``I_n`` if not given.
    minor : bool
        Those of the smallest singular values instead.
    rng : torch.Generator, optional
        For the sketch of large modes, and for directions that the unfolding does not have.

    Returns
    -------
    tensor, shape (I_n, rank)
        Orthonormal columns, each with its largest entry positive.

    Notes
    -----
    Cost, with ``m`` the smaller side of the unfolding: ``m * numel`` multiplications and an
    eigendecomposition of an ``(m, m)`` matrix. When ``m > 1024`` and ``rank < m / 8``, a block Krylov method
    with ``rank + 8`` columns and 3 steps takes its place, about ``12 * numel * rank`` multiplications in
    float32: 0.3 s instead of 24 s for 4096 x 4096 at rank 8 on one core. It kept 95 % of what the exact
    vectors keep of white noise, the worst case, and all but 2e-6 where singular values fall as ``k**-0.5``.
    """
    flat = unfolded(tensor, mode)
    size, others = flat.shape
    rank = size if rank is None else rank
    rng = torch.Generator().manual_seed(0) if rng is None else rng
    sketched = not minor and min(size, others) > _DENSE and 8 * rank < min(size, others)
    flat = flat.to(torch.promote_types(flat.dtype, torch.float32) if sketched else torch.float64)
    largest = flat.abs().amax()
    flat = flat / torch.where(largest > 0, largest, 1.0)
    if sketched:
        return _signed(_krylov(flat, rank, rng))
    return _signed(_trailing(flat, rank, rng) if minor else _leading(flat, rank, rng))


def _leading(flat: Tensor, rank: int, rng: torch.Generator) -> Tensor:
    size, others = flat.shape
    if size <= others:
        return torch.linalg.eigh(flat @ flat.mT).eigenvectors.flip(1)[:, :rank]
    right = torch.linalg.eigh(flat.mT @ flat).eigenvectors.flip(1)[:, :rank]
    columns = flat @ right
    if rank > others:
        columns = torch.cat([columns, _normal(flat, size, rank - others, rng)], 1)
    return torch.linalg.qr(columns).Q


def _trailing(flat: Tensor, rank: int, rng: torch.Generator) -> Tensor:
    size, others = flat.shape
    if others + rank <= size:  # the unfolding has no such directions: any orthogonal to it
        columns = torch.cat([flat, _normal(flat, size, rank, rng)], 1)
        return torch.linalg.qr(columns).Q[:, others:]
    return torch.linalg.eigh(flat @ flat.mT).eigenvectors[:, :rank].flip(1)


def _krylov(flat: Tensor, rank: int, rng: torch.Generator) -> Tensor:
    block = flat @ _normal(flat, flat.shape[1], rank + _OVERSAMPLING, rng)
    blocks = [torch.linalg.qr(block).Q]
    for _ in range(_STEPS):
        blocks.append(torch.linalg.qr(flat @ (flat.mT @ blocks[-1])).Q)
    basis = torch.linalg.qr(torch.cat(blocks, 1)).Q
    small = (basis.mT @ flat).to(torch.float64)
    best = torch.linalg.eigh(small @ small.mT).eigenvectors.flip(1)[:, :rank]
    return torch.linalg.qr(basis.to(torch.float64) @ best).Q


def _normal(like: Tensor, rows: int, columns: int, rng: torch.Generator) -> Tensor:
    drawn = torch.randn(rows, columns, generator=rng, dtype=torch.float64)
    return drawn.to(like.device, like.dtype)


def _signed(vectors: Tensor) -> Tensor:
    top = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    return vectors * torch.where(top < 0, -1.0, 1.0).to(vectors.dtype)


def lower_upper(matrix: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The first ``rank`` columns of ``P L`` and rows of unit-diagonal ``U`` in ``W = P L D U``, in float64.

    Only the first columns are eliminated: the pivots of ``rank`` steps do not depend on the others. A pivot
    of zero leaves its row undivided.
    """
    matrix = matrix.detach().to(torch.float64)
    packed, swaps, _ = torch.linalg.lu_factor_ex(matrix[:, :rank])
    order = list(range(len(matrix)))
    for i, j in enumerate(swaps.tolist()):
        order[i], order[j - 1] = order[j - 1], order[i]
    lower = packed.tril(-1)
    lower.diagonal().fill_(1)
    upper = torch.linalg.solve_triangular(lower[:rank], matrix[order[:rank]], upper=False, unitriangular=True)
    pivots = packed.diagonal()
    columns = torch.empty_like(lower)
    columns[order] = lower
    return columns, upper / torch.where(pivots == 0, 1.0, pivots)[:, None]
