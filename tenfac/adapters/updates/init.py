"""Where an update starts: always at no change, with factors drawn, or taken from the weight or a gradient."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tenfac.adapters.updates.layout import Layout
from tenfac.adapters.updates.pieces import (
    DenseFactor,
    DiagonalFactor,
    FullCore,
    KroneckerCore,
    ScaledCore,
    Selection,
)
from tenfac.adapters.updates.ranks import Ranks, core_shape, n_terms
from tenfac.adapters.updates.structure import Structure
from tenfac.adapters.updates.subspaces import left_vectors, lower_upper, unfolded
from tenfac.adapters.updates.update import Term

INITS = ("orthonormal", "weight", "weight-minor", "gradient", "principal", "flora", "lora", "lu")
# Inits that read the values of the weight, and inits that each core can start from.
FROM_WEIGHT = ("weight", "weight-minor", "principal", "lu")
OF_CORE = {
    "full": ("orthonormal", "weight", "weight-minor", "gradient", "principal", "flora", "lora"),
    "scaled": ("orthonormal", "weight", "weight-minor", "gradient", "lu"),
    "kronecker": ("lora",),
}


@dataclass(frozen=True)
class Start:
    """What the numbers of one update are drawn from.

    Parameters
    ----------
    source : tensor
        The weight, or its gradient for ``init="gradient"``.
    frozen_row : int or None
        Row of the input mode that no update may change: the padding of an Embedding.
    """

    init: str
    layout: Layout
    structure: Structure
    ranks: Ranks
    scale: float
    source: Tensor
    frozen_row: int | None
    dtype: torch.dtype
    rng: torch.Generator

    def put(self, tensor: Tensor) -> Tensor:
        """A tensor at the weight's device and the update's dtype."""
        return tensor.to(self.source.device, self.dtype).contiguous()

    def empty(self, *shape: int) -> Tensor:
        """Room for numbers that are not there yet."""
        return torch.empty(shape, dtype=self.dtype, device=self.source.device)


def draw_terms(start: Start) -> list[Term]:
    """The terms of an update that changes nothing yet."""
    if start.structure.core == "kronecker":
        return [_kronecker(start)]
    if start.structure.core == "scaled":
        return _scaled(start)
    return _full(start)


# --- cores ------------------------------------------------------------------------------------------------


def _full(start: Start) -> list[Term]:
    matrices = draw_factors(start)
    if start.init == "principal":
        core, matrices = _principal(start, matrices)
        copy = _term(start, core.clone(), {n: matrix.clone() for n, matrix in matrices.items()}, -start.scale)
        return [_term(start, core, matrices, start.scale), copy.requires_grad_(False)]
    core = start.empty(*core_shape(start.layout, start.ranks))
    if not core.is_meta:
        core.zero_()
    out = start.layout.out
    if start.init == "lora" and isinstance(matrices.get(out), Tensor) and start.structure.train_factors:
        core = start.put(_uniform(start, tuple(core.shape), math.prod(core.shape) // core.shape[out]))
        matrices[out] = torch.zeros_like(matrices[out])
    return [_term(start, _padded(start, core, matrices), matrices, start.scale)]


def _principal(start: Start, matrices: dict[int, Tensor]) -> tuple[Tensor, dict[int, Tensor]]:
    """The projected weight; of a matrix both sides bear the square roots of the singular values."""
    core = start.empty(*core_shape(start.layout, start.ranks))
    if core.is_meta:
        return core, matrices
    core = start.put(project(start.source.detach().to(start.dtype), matrices) / start.scale)
    core = _padded(start, core, matrices)
    if len(matrices) == 1:
        ((n, matrix),) = matrices.items()
        sizes = unfolded(core, n).norm(dim=1)
        roots = torch.where(sizes > 0, sizes, torch.ones_like(sizes)).sqrt()
        core = core / roots.reshape(-1, *(1,) * (core.ndim - n - 1))
        matrices = {n: matrix * roots}
    return core, matrices


def _scaled(start: Start) -> list[Term]:
    out = start.layout.out
    shape = core_shape(start.layout, start.ranks)
    terms: list[Term] = []
    for _ in range(n_terms(start.layout, start.structure, start.ranks)):
        matrices = draw_factors(start)
        # every term has the first one's frozen core
        tensor = terms[0].core.tensor.detach().clone() if terms else _frozen_core(start, shape, matrices)
        scales = start.empty(shape[out])
        core = ScaledCore(scales if scales.is_meta else scales.zero_(), tensor, out)
        terms.append(_assembled(start, core, matrices, start.scale))
    return terms


def _frozen_core(start: Start, shape: tuple[int, ...], matrices: dict[int, Tensor]) -> Tensor:
    """Rows to be scaled: right singular vectors, rows of ``U``, or random orthonormal rows."""
    out = start.layout.out
    if start.source.is_meta:
        return start.empty(*shape)
    others = [size for n, size in enumerate(shape) if n != out]
    if start.init == "orthonormal":
        rows = torch.linalg.qr(_normal(start, math.prod(others), shape[out])).Q.mT
    elif start.init == "lu":
        rows = lower_upper(unfolded(start.source, out), shape[out])[1]
    else:
        wide = {n: matrix.to(torch.float64) for n, matrix in matrices.items()}
        rows = unfolded(project(start.source.detach().to(torch.float64), wide), out)
        lengths = rows.norm(dim=1, keepdim=True)
        rows = rows / lengths.clamp_min(torch.finfo(torch.float64).tiny)
        rows = torch.where(lengths > 1e-12 * lengths.max(), rows, 0.0)
    empty = (rows == 0).all(1, keepdim=True)
    if bool(empty.any()):  # a weight of lower rank: any direction serves
        drawn = torch.nn.functional.normalize(_normal(start, *rows.shape), dim=1)
        rows = torch.where(empty, drawn.to(rows.device), rows)
    core = start.put(rows.reshape(shape[out], *others).movedim(0, out))
    return _padded(start, core, matrices)


def _kronecker(start: Start) -> Term:
    left = core_shape(start.layout, start.ranks)
    right = [size // r for size, r in zip(start.layout.shape, left, strict=True)]
    if start.source.is_meta:
        core = KroneckerCore(start.empty(*left), start.empty(*right))
    else:
        drawn = _uniform(start, left, math.prod(left) // left[start.layout.out])
        core = KroneckerCore(start.put(drawn), start.empty(*right).zero_())
    return Term(core, {}, start.scale)


# --- factors ----------------------------------------------------------------------------------------------


def draw_factors(start: Start) -> dict[int, Tensor]:
    """Matrices ``(I_n, R_n)`` of modes with a dense factor, indices ``(R_n,)`` of modes with a selection."""
    kinds = start.structure.kinds(start.layout, start.ranks)
    factors = {}
    for n, r in enumerate(core_shape(start.layout, start.ranks)):
        if kinds[n] == "selection":
            factors[n] = _chosen(start, n, r)
        elif kinds[n] == "dense":
            factors[n] = _matrix(start, n, r)
            if n == start.layout.into and start.frozen_row is not None and not factors[n].is_meta:
                factors[n][start.frozen_row] = 0
    return factors


def _matrix(start: Start, mode: int, rank: int) -> Tensor:
    source, size = start.source, start.layout.shape[mode]
    if source.is_meta:
        return start.empty(size, rank)
    if start.init in ("weight", "principal", "gradient"):
        drawn = left_vectors(source, mode, rank, rng=start.rng)
    elif start.init == "weight-minor":
        drawn = left_vectors(source, mode, rank, minor=True, rng=start.rng)
    elif start.init == "lu" and mode == start.layout.out:
        drawn = lower_upper(unfolded(source, mode), rank)[0]
    elif start.init == "lora":
        drawn = _uniform(start, (size, rank), size)
    elif start.init == "flora":  # kaiming_normal with a = sqrt(3): fan-in is the number of columns
        drawn = _normal(start, size, rank) * math.sqrt(2 / (1 + 3) / rank)
    else:
        drawn = torch.linalg.qr(_normal(start, size, rank)).Q
    return start.put(drawn)


def _chosen(start: Start, mode: int, rank: int) -> Tensor:
    """Slices that a selection picks: of largest or smallest norm in the source, or at random; ascending."""
    if start.source.is_meta:
        return torch.empty(rank, dtype=torch.int64, device="meta")
    if start.init in (*FROM_WEIGHT, "gradient"):
        norms = unfolded(start.source, mode).to(torch.float64).norm(dim=1)
        order = norms.argsort(descending=start.init != "weight-minor", stable=True)
    else:
        order = torch.randperm(start.layout.shape[mode], generator=start.rng)
    return order[:rank].sort().values.to(start.source.device)


# --- small pieces -----------------------------------------------------------------------------------------


def _term(start: Start, core: Tensor, matrices: dict[int, Tensor], scale: float) -> Term:
    return _assembled(start, FullCore(core), matrices, scale)


def _assembled(start: Start, core: nn.Module, matrices: dict[int, Tensor], scale: float) -> Term:
    factors: dict[int, nn.Module] = {}
    for n, kind in enumerate(start.structure.kinds(start.layout, start.ranks)):
        if kind == "dense":
            factors[n] = DenseFactor(matrices[n]).requires_grad_(start.structure.train_factors)
        elif kind == "selection":
            factors[n] = Selection(matrices[n], start.layout.shape[n], start.dtype)
        elif kind == "diagonal":
            ones = start.empty(start.layout.shape[n])
            factors[n] = DiagonalFactor(ones if ones.is_meta else ones.fill_(1))
    return Term(core, factors, scale)


def _padded(start: Start, core: Tensor, matrices: dict[int, Tensor]) -> Tensor:
    """A core without the padding row of an Embedding, where that mode is whole."""
    into = start.layout.into
    if start.frozen_row is not None and into not in matrices and not core.is_meta:
        core.select(into, start.frozen_row).zero_()
    return core


def project(tensor: Tensor, factors: dict[int, Tensor]) -> Tensor:
    """Multiply by the transpose of each factor; an index picks slices."""
    for n, factor in factors.items():
        if factor.ndim == 1:
            tensor = tensor.index_select(n, factor)
        else:
            tensor = torch.tensordot(tensor, factor.to(tensor.dtype), dims=([n], [0])).movedim(-1, n)
    return tensor


def _normal(start: Start, rows: int, columns: int) -> Tensor:
    return torch.randn(rows, columns, generator=start.rng, dtype=torch.float64)


def _uniform(start: Start, shape: tuple[int, ...], fan_in: int) -> Tensor:
    """kaiming_uniform with ``a = sqrt(5)``: between plus and minus ``1 / sqrt(fan_in)``."""
    bound = 1 / math.sqrt(fan_in)
    return torch.rand(shape, generator=start.rng, dtype=torch.float64) * (2 * bound) - bound
