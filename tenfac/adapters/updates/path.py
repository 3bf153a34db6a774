"""Which forward path a call takes: in factors, or one operation with the fused weight."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from tenfac.adapters.updates.update import Update


def choose_path(layer: nn.Module, x: Tensor, updates: Sequence[Update], path: str) -> str:
    """``"factored"`` or ``"fused"``: ``path`` itself unless it is ``"auto"``; fused if nothing acts."""
    if not updates:
        return "fused"
    if path != "auto":
        return path
    if updates[0].layout.kind == "embedding" and layer.sparse:
        return "factored"
    inputs, outputs = n_positions(layer, x)
    kind = (x.device.type == "cuda", torch.is_grad_enabled())
    per_input, per_output, fixed = updates[0].gradient_cost[kind]  # once, however many updates there are
    excess = -(per_input * inputs + per_output * outputs + fixed)
    for update in updates:
        per_input, per_output, fixed = update.excess[kind]
        excess += per_input * inputs + per_output * outputs + fixed
    return "factored" if excess <= 0 else "fused"


def n_positions(layer: nn.Module, x: Tensor) -> tuple[int, int]:
    """Batch times positions at a layer's input and at its output."""
    if isinstance(layer, nn.Embedding):
        return x.numel(), x.numel()
    if isinstance(layer, nn.Linear):
        rows = x.numel() // max(x.shape[-1], 1)
        return rows, rows
    spatial = len(layer.kernel_size)
    inputs = outputs = x.shape[0] if x.ndim == spatial + 2 else 1
    padding = layer._reversed_padding_repeated_twice
    for axis in range(spatial):
        n, stride = x.shape[axis - spatial], layer.stride[axis]
        reach = layer.dilation[axis] * (layer.kernel_size[axis] - 1)
        if layer.transposed:
            size = (n - 1) * stride - 2 * layer.padding[axis] + reach + layer.output_padding[axis] + 1
        else:
            size = (n + padding[-2 * axis - 2] + padding[-2 * axis - 1] - reach - 1) // stride + 1
        inputs *= n
        outputs *= size
    return inputs, outputs
