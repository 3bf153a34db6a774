"""A row of plain layers from the factors of one layer's weight, group by group."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.updates.layout import CONVS, TRANSPOSED
from tenfac.core.report import Report

# Of every group: the factor of the output mode, the core (output mode first, input mode second), the factor
# of the input mode. A factor that is None is the identity.
Factors = tuple[list[Tensor | None], list[Tensor], list[Tensor | None]]


class Compressed(nn.Sequential):
    """Plain layers in a row that stand for one; ``info`` says what was lost."""

    info: Report


def by_group(layer: nn.Module, weight: Tensor) -> list[Tensor]:
    """The weight of every group, output mode first, input mode second."""
    parts = weight.tensor_split(getattr(layer, "groups", 1), dim=0)
    flipped = isinstance(layer, (*TRANSPOSED, nn.Embedding))
    return [part.transpose(0, 1) if flipped else part for part in parts]


def joined(layer: nn.Module, parts: list[Tensor]) -> Tensor:
    """The inverse of ``by_group``."""
    flipped = isinstance(layer, (*TRANSPOSED, nn.Embedding))
    return torch.cat([part.transpose(0, 1) if flipped else part for part in parts])


def without_input(core: Tensor, into: Tensor | None) -> Tensor:
    """A group's core with the factor of its input mode multiplied in."""
    return core if into is None else torch.tensordot(into, core, dims=([1], [1])).movedim(0, 1)


def dense(layer: nn.Module, factors: Factors) -> Tensor:
    """The weight that the factors stand for, in the layer's storage order."""
    parts = [
        without_input(core if out is None else torch.tensordot(out, core, dims=([1], [0])), into)
        for out, core, into in zip(*factors, strict=True)
    ]
    return joined(layer, parts)


@torch.no_grad()
def assemble(layer: nn.Module, factors: Factors, biased: bool) -> Compressed:
    """Plain layers from the factors, in the layer's dtype and place; the last with a bias, or none has."""
    outs, cores, intos = factors
    like = {"dtype": layer.weight.dtype, "device": layer.weight.device}
    bias = getattr(layer, "bias", None)
    if isinstance(layer, nn.Linear):
        into = nn.Linear(layer.in_features, cores[0].shape[0], bias=False, **like)
        out = nn.Linear(cores[0].shape[0], layer.out_features, bias=biased, **like)
        return _filled([(into, cores[0]), (out, outs[0])], bias)
    if isinstance(layer, nn.Embedding):
        rows = nn.Embedding(layer.num_embeddings, cores[0].shape[0], layer.padding_idx, **like)
        out = nn.Linear(cores[0].shape[0], layer.embedding_dim, bias=False, **like)
        return _filled([(rows, cores[0].mT), (out, outs[0])], None)
    return _filled(_convolutions(layer, outs, cores, intos, biased, like), bias)


def _convolutions(
    layer: nn.Module,
    outs: list[Tensor | None],
    cores: list[Tensor],
    intos: list[Tensor | None],
    biased: bool,
    like: dict[str, Any],
) -> list[tuple[nn.Module, Tensor]]:
    groups, spatial = layer.groups, len(layer.kernel_size)
    pointwise = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[spatial - 1]
    ones = (1,) * spatial
    parts: list[tuple[nn.Module, Tensor]] = []
    if intos[0] is not None:
        weight = torch.cat([into.mT for into in intos if into is not None])
        maker = pointwise(layer.in_channels, weight.shape[0], 1, groups=groups, bias=False, **like)
        parts.append((maker, weight.reshape(*weight.shape, *ones)))
    r_out, r_in = (groups * size for size in cores[0].shape[:2])
    options = {name: getattr(layer, name) for name in ("stride", "padding", "dilation", "padding_mode")}
    if layer.transposed:
        options["output_padding"] = layer.output_padding
    base = next(kind for kind in (*CONVS, *TRANSPOSED) if isinstance(layer, kind))
    core = base(
        r_in, r_out, layer.kernel_size, groups=groups, bias=biased and outs[0] is None, **options, **like
    )
    parts.append((core, joined(layer, cores)))
    if outs[0] is not None:
        weight = torch.cat([out for out in outs if out is not None])
        maker = pointwise(r_out, layer.out_channels, 1, groups=groups, bias=biased, **like)
        parts.append((maker, weight.reshape(*weight.shape, *ones)))
    return parts


def _filled(parts: list[tuple[nn.Module, Tensor]], bias: Tensor | None) -> Compressed:
    """Layers with their weights put in, and the bias in the last."""
    for module, weight in parts:
        module.weight.copy_(weight)
    last = parts[-1][0]
    if getattr(last, "bias", None) is not None:
        last.bias.zero_() if bias is None else last.bias.copy_(bias)
    return Compressed(*(module for module, _ in parts))
