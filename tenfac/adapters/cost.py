"""Which forward path costs least: in factors, or one operation with the fused weight."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor, nn

from .layout import Layout
from .update import Update

# Cost of touching one number of a feature map, and of a weight, in multiplications: measured, see benchmarks.
_MAP, _WEIGHT = 250, 300


def choose_path(layer: nn.Module, x: Tensor, updates: Sequence[Update], path: str) -> str:
    """``"factored"`` or ``"fused"``: ``path`` itself unless it is ``"auto"``."""
    if path != "auto":
        return path
    if getattr(layer, "sparse", False):
        return "factored"
    positions = n_positions(layer, x)
    factored = sum(factored_cost(update, positions) for update in updates)
    fused = sum(fused_cost(update, positions) for update in updates)
    return "factored" if factored <= fused else "fused"


def n_positions(layer: nn.Module, x: Tensor) -> int:
    """Batch times output positions of a layer for an input."""
    if isinstance(layer, nn.Embedding):
        return x.numel()
    if isinstance(layer, nn.Linear):
        return x.numel() // max(x.shape[-1], 1)
    spatial = len(layer.kernel_size)
    batch = x.shape[0] if x.ndim == spatial + 2 else 1
    size = x.shape[-spatial:]
    for n, stride in zip(size, layer.stride, strict=True):
        batch *= n * stride if layer.transposed else max(n // stride, 1)
    return batch


def factored_cost(update: Update, positions: int) -> float:
    """Multiplications of a step with the factored path, beyond the base layer's."""
    layout = update.layout
    kernel = math.prod([layout.shape[n] for n in layout.rest])
    out, into = layout.shape[layout.out], layout.shape[layout.into]
    total = 0.0
    for term in update.terms:
        rank = term.core.value().shape
        total += 3 * positions * _macs(layout, out, into, rank[layout.out], rank[layout.into], kernel)
        total += _MAP * positions * (out + into)
    return total


def _macs(layout: Layout, out: int, into: int, r_out: int, r_into: int, kernel: int) -> float:
    outer = into * layout.groups * r_into + layout.groups * r_into * r_out * kernel + r_out * out
    return float(outer)


def fused_cost(update: Update, positions: int) -> float:
    """Multiplications of a step with the fused weight, beyond the base layer's."""
    layout = update.layout
    rank = update.rank
    contraction = math.prod(rank) * layout.shape[layout.into] + layout.numel * rank[layout.out]
    return positions * layout.numel + 3 * contraction + _WEIGHT * layout.numel
