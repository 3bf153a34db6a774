"""The update of one weight: a sum of terms, each a core and one factor per mode."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import NamedTuple

import array_api_compat.torch as xp
import torch
from torch import Tensor, nn

from tenfac.adapters.updates.cost import TermShape, excess_of, gradient_cost_of
from tenfac.adapters.updates.layout import Layout
from tenfac.adapters.updates.pieces import DiagonalFactor, along
from tenfac.core.contract import contract
from tenfac.core.tucker import Tucker


class Pieces(NamedTuple):
    """A term to apply: its core with scale, diagonal and kernel factors absorbed; None is the identity."""

    core: Tensor
    out: Tensor | None
    into: Tensor | None


class Term(nn.Module):
    """``scale * G x_0 U_0 x_1 U_1 ...``, one core and one factor per mode; a mode without factor is whole.

    Parameters
    ----------
    core : module
        A core of ``tenfac.adapters.updates.pieces``; its ``value()`` has shape ``(R_0, ..., R_{D-1})``.
    factors : mapping from mode to module
        Factors of ``tenfac.adapters.updates.pieces``, ``(I_n, R_n)``. Modes left out are identities.
    scale : float
        Fixed multiplier.

    Examples
    --------
    >>> import torch
    >>> from tenfac.adapters.updates.layout import layout_of
    >>> from tenfac.adapters.updates.pieces import DenseFactor, FullCore
    >>> term = Term(FullCore(torch.ones(2, 4)), {0: DenseFactor(torch.ones(3, 2))}, scale=0.5)
    >>> term.delta(layout_of(torch.nn.Linear(4, 3), "weight"))[0].tolist()
    [1.0, 1.0, 1.0, 1.0]
    """

    def __init__(self, core: nn.Module, factors: Mapping[int, nn.Module], scale: float = 1.0) -> None:
        super().__init__()
        self.core = core
        self.factors = nn.ModuleDict({str(mode): factor for mode, factor in sorted(factors.items())})
        self.scale = float(scale)

    def pieces(self, layout: Layout, weight: float = 1.0, dtype: torch.dtype | None = None) -> Pieces:
        """The term as the factored path applies it, multiplied by ``weight``."""
        core = self.core.value()
        if self.scale * weight != 1.0:
            core = core * (self.scale * weight)
        core = core if dtype is None or core.dtype == dtype else core.to(dtype)
        dense: dict[int, Tensor] = {}
        for key, factor in self.factors.items():
            if isinstance(factor, DiagonalFactor):
                core = along(factor.scales.to(core.dtype), core, int(key))
            else:
                dense[int(key)] = factor.value().to(core.dtype)
        if len(dense) > (layout.out in dense) + (layout.into in dense):
            rest = layout.rest
            core = contract(core, [dense.get(n) if n in rest else None for n in range(core.ndim)], xp=xp)
        return Pieces(core, dense.get(layout.out), dense.get(layout.into))

    def shape(self, layout: Layout) -> TermShape:
        """What the cost of the term depends on."""
        with torch.no_grad():
            rank = tuple(self.core.value().shape)
        return TermShape(rank, str(layout.out) in self.factors, str(layout.into) in self.factors)

    def delta(self, layout: Layout) -> Tensor:
        """The term as a dense array of the weight's shape."""
        half, matrix = self._halves(layout, 1.0)
        return half if matrix is None else (matrix @ half.flatten(1)).reshape(layout.shape)

    def added(self, weight: Tensor, layout: Layout, factor: float = 1.0) -> Tensor:
        """``weight + factor * delta``, formed in one operation where types and strides allow it."""
        half, matrix = self._halves(layout, factor)
        if matrix is None:
            return weight + half
        if half.dtype != weight.dtype or not weight.is_contiguous():
            return weight + (matrix @ half.flatten(1)).reshape(layout.shape)
        return torch.addmm(weight.flatten(1), matrix, half.flatten(1)).reshape(layout.shape)

    def _halves(self, layout: Layout, factor: float) -> tuple[Tensor, Tensor | None]:
        """The term but for the matrix of mode 0, and that matrix: None if it is none or better first."""
        core, out, into = self.pieces(layout, factor)
        matrices: list[Tensor | None] = [None] * core.ndim
        matrices[layout.out], matrices[layout.into] = out, into
        last = matrices[0]
        if last is not None and first_mode_last(tuple(core.shape), layout.shape):
            matrices[0] = None
        else:
            last = None
        return contract(core, matrices, xp=xp), last


def first_mode_last(rank: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether mode 0 is multiplied last: one large product, unless its rank is far the larger."""
    others = [r for r, size in zip(rank[1:], shape[1:], strict=True) if r < size]
    return rank[0] <= 4 * min(others, default=rank[0])


class Update(nn.Module):
    """The update of one weight: the sum of its terms.

    ``delta()`` is differentiable in every learned number; ``tucker()`` is a detached copy to look at.

    Parameters
    ----------
    terms : iterable of Term
    layout : Layout
        Of the weight.
    recipe : dict
        What it was built from (structure, rank, init, scale), as files and reports show it.

    Examples
    --------
    >>> import torch
    >>> from tenfac import tucker_adapter
    >>> conv = tucker_adapter(torch.nn.Conv2d(16, 32, 3), rank=4)
    >>> update = conv.tenfac.named["default"]["weight"]
    >>> update
    Update(shape=(32, 16, 3, 3), rank=(4, 4, 3, 3), 336 trainable numbers)
    >>> update.delta().shape, update.tucker().rank
    (torch.Size([32, 16, 3, 3]), (4, 4, 3, 3))
    """

    def __init__(self, terms: list[Term], layout: Layout, recipe: Mapping[str, object]) -> None:
        super().__init__()
        self.terms = nn.ModuleList(terms)
        self.layout = layout
        self.recipe = dict(recipe)
        self.excess, self.gradient_cost = excess_of(self.term_shapes, layout), gradient_cost_of(layout)

    def delta(self) -> Tensor:
        """The update as a dense array of the weight's shape."""
        return sum(term.delta(self.layout) for term in self.terms)

    def added(self, weight: Tensor, factor: float = 1.0) -> Tensor:
        """``weight + factor * delta``, in the wider precision of the two."""
        for term in self.terms:
            weight = term.added(weight, self.layout, factor)
        return weight

    def pieces(self, weight: float = 1.0, dtype: torch.dtype | None = None) -> Iterator[Pieces]:
        """Every term as the factored path applies it."""
        return (term.pieces(self.layout, weight, dtype) for term in self.terms)

    def tucker(self) -> Tucker:
        """The update as a detached ``Tucker`` of the weight's shape; modes without factor get the identity.

        Several terms are one Tucker whose ranks are the sums of theirs.
        """
        parts = [_as_tucker(term) for term in self.terms]
        total = parts[0]
        for part in parts[1:]:
            total = total + part
        return total

    @property
    def term_shapes(self) -> list[TermShape]:
        """Of every term what its cost depends on."""
        return [term.shape(self.layout) for term in self.terms]

    @property
    def n_trainable(self) -> int:
        """Learned numbers."""
        return sum(p.numel() for p in self.parameters() if p.requires_grad)

    @property
    def rank(self) -> tuple[int, ...]:
        """Sizes of the first term's core; of a Kronecker core, those of its left block."""
        return self.terms[0].core.rank

    def __repr__(self) -> str:
        return f"Update(shape={self.layout.shape}, rank={self.rank}, {self.n_trainable} trainable numbers)"


def _as_tucker(term: Term) -> Tucker:
    with torch.no_grad():
        core = term.core.value() * term.scale
        eye = {n: torch.eye(size, dtype=core.dtype, device=core.device) for n, size in enumerate(core.shape)}
        factors = [
            term.factors[str(n)].value().detach() if str(n) in term.factors else eye[n]
            for n in range(core.ndim)
        ]
    return Tucker(core.detach().clone(), [factor.clone() for factor in factors])
