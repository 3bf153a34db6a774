"""Updates as the two matrices of LoRA: ``dW = B A``, with the kernel of a convolution in ``A``."""

from __future__ import annotations

import array_api_compat.torch as xp
import torch
from torch import Tensor, nn

from tenfac.adapters.files.placing import layer_type
from tenfac.adapters.layer import AdaptedStock, is_stock
from tenfac.adapters.updates.layout import TRANSPOSED, Layout
from tenfac.adapters.updates.pieces import DenseFactor, FullCore
from tenfac.adapters.updates.update import Pieces, Term, Update
from tenfac.core.contract import contract


def lora_matrices(update: Update) -> tuple[Tensor, Tensor]:
    """``A``, shape (R, I, *kernel), and ``B``, shape (O, R), of an update: its terms one below the other.

    The products are taken in float64, the result has the dtype of the update. Where the terms have more ranks
    together than the weight, they are added.
    """
    pairs = [_pair(*in_order(term.pieces(update.layout), update.layout)) for term in update.terms]
    dtype = next(update.parameters()).dtype
    a, b = torch.cat([pair[0] for pair in pairs]), torch.cat([pair[1] for pair in pairs], dim=1)
    if len(a) > min(b.shape[0], a[0].numel()):
        a, b = _pair(torch.tensordot(b, a, dims=1), None, None)
    return a.to(dtype), b.to(dtype)


def in_order(pieces: Pieces, layout: Layout) -> Pieces:
    """A term in float64 with the modes of its core as (output, input, *kernel)."""
    out, into = (None if piece is None else piece.detach().to(torch.float64) for piece in pieces[1:])
    core = pieces.core.detach().to(torch.float64)
    return Pieces(core.movedim((layout.out, layout.into), (0, 1)), out, into)


def _pair(core: Tensor, out: Tensor | None, into: Tensor | None) -> tuple[Tensor, Tensor]:
    """``A`` and ``B`` of one term, through the narrower side of its core."""
    rows, columns = core.shape[0], core[0].numel()
    eye = {n: torch.eye(n, dtype=core.dtype, device=core.device) for n in {rows, columns}}
    left = eye[rows] if out is None else out
    if columns < rows:
        left, core = left @ core.reshape(rows, columns), eye[columns].reshape(columns, *core.shape[1:])
    factors = [None, into, *[None] * (core.ndim - 2)]
    return contract(core, factors, xp=xp), left


def padded(a: Tensor, b: Tensor, rank: int) -> tuple[Tensor, Tensor]:
    """The same product at a larger rank, by zeros."""
    more = rank - a.shape[0]
    return torch.cat([a, a.new_zeros(more, *a.shape[1:])]), torch.cat([b, b.new_zeros(b.shape[0], more)], 1)


def lora_update(
    a: Tensor, b: Tensor, scale: float, layout: Layout, *, into: Tensor | None = None, dtype: torch.dtype
) -> Update:
    """The update ``scale * B A``, or with a factor ``into`` (I, R), ``A`` of shape (R, R, *kernel)."""
    core = a.movedim((0, 1), (layout.out, layout.into)).to(dtype).contiguous()
    factors = {layout.out: DenseFactor(b.to(dtype).contiguous())}
    if into is not None:
        factors[layout.into] = DenseFactor(into.to(dtype).contiguous())
    recipe = {"init": "imported", "scale": scale, "rank": tuple(core.shape)}
    return Update([Term(FullCore(core), factors, scale)], layout, recipe)


def pads_other_than_zeros(layer: nn.Module) -> bool:
    """Whether a convolution pads its input by anything but zeros."""
    return getattr(layer, "padding_mode", "zeros") != "zeros" and any(layer._reversed_padding_repeated_twice)


def misfit(layer: nn.Module, layout: Layout, who: str) -> str | None:
    """Why a library whose layers apply ``B A`` beside the weight cannot hold an update of this one."""
    if isinstance(layer, TRANSPOSED):
        return f"is of type {layer_type(layer)}, which {who} does not know"
    if layout.kind == "parameter":
        return f"has its update on a parameter that is no layer's own weight, which {who} does not know"
    if not (isinstance(layer, AdaptedStock) or is_stock(layer)):
        return f"has a forward pass of its own, which {who} would apply the update beside"
    if pads_other_than_zeros(layer):
        return (
            f"has padding_mode={layer.padding_mode!r}, where {who} pads the update's input by zeros, and so "
            "gives other outputs"
        )
    return None
