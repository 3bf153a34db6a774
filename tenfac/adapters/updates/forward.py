"""The factored path: what an update adds to a layer's output, the dense update never formed.

Every geometry is one idea: multiply the input mode first (a pointwise map to few channels), then the core
(convolution, transposed convolution, matrix, rows of a table), then the output mode. A pointwise map without
bias commutes with padding of every kind, so the few channels are padded as the layer pads its input. Groups
share the core and are folded into the batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from tenfac.adapters.updates.layout import Layout
from tenfac.adapters.updates.update import Pieces

_FEW_ROWS = 64  # up to which applying the core to the rows costs less than arranging matrices
_CONV = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TRANSPOSED = {1: functional.conv_transpose1d, 2: functional.conv_transpose2d, 3: functional.conv_transpose3d}


def base_forward(
    layer: nn.Module, weight: Tensor, args: tuple[Any, ...], kwargs: dict[str, Any], *, biased: bool = True
) -> Tensor:
    """What the layer computes with ``weight`` in the place of its own."""
    x, *rest = args
    bias = getattr(layer, "bias", None) if biased else None
    if isinstance(layer, nn.Linear):
        return functional.linear(x, weight, bias)
    if isinstance(layer, nn.Embedding):
        return functional.embedding(
            x,
            weight,
            layer.padding_idx,
            layer.max_norm,
            layer.norm_type,
            layer.scale_grad_by_freq,
            layer.sparse,
        )
    if hasattr(layer, "output_padding") and layer.transposed:
        padding = _output_padding(layer, x, *rest, **kwargs)
        return _TRANSPOSED[weight.ndim - 2](
            x, weight, bias, layer.stride, layer.padding, padding, layer.groups, layer.dilation
        )
    return layer._conv_forward(x, weight, bias)


def is_sound(layer: nn.Module, x: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Whether a call has the form the layer takes; what has not is left to torch, to refuse in its words."""
    if not isinstance(x, Tensor):
        return False
    if isinstance(layer, nn.Embedding):
        return not args and not kwargs
    if isinstance(layer, nn.Linear):
        return x.ndim > 0 and not args and not kwargs
    if x.ndim - len(layer.kernel_size) not in (1, 2):
        return False
    if layer.transposed:
        return len(args) + len(kwargs) <= 1 and kwargs.keys() <= {"output_size"}
    return not args and not kwargs


def factored_forward(
    layer: nn.Module,
    layout: Layout,
    weight: Tensor,
    terms: Sequence[Pieces],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Tensor:
    """The layer's output with ``weight`` and what every term adds to it."""
    x, *rest = args
    if layout.kind in ("linear", "embedding"):
        return _by_rows(layer, layout.kind, weight, terms, x)
    y = base_forward(layer, weight, args, kwargs)
    if x.ndim == len(layout.shape):
        batched, whole = x, y
    else:
        batched, whole = x[None], y[None]
    for pieces in terms:
        if layout.kind == "conv":
            addition = _conv(layer, batched, pieces)
        else:
            padding = _output_padding(layer, x, *rest, **kwargs)
            addition = _conv_transpose(layer, batched, pieces, padding)
        whole = adds_in_place(whole, addition)
    return whole if x.ndim == len(layout.shape) else whole[0]


def _by_rows(layer: nn.Module, kind: str, weight: Tensor, terms: Sequence[Pieces], x: Tensor) -> Tensor:
    """Linear and Embedding: inputs as rows, ``y = base + rows @ matrix``, the sum made by the product."""
    lead = x.shape[:-1] if kind == "linear" else x.shape
    flat = x.flatten() if kind == "embedding" else x.flatten(0, -2) if x.ndim > 1 else x[None]
    y = base_forward(layer, weight, (flat,), {})
    for pieces in terms:
        rows, matrix = _linear(flat, pieces) if kind == "linear" else _embedding(layer, flat, pieces)
        if matrix is None:
            y = adds_in_place(y, rows)
        elif y.dtype == rows.dtype == matrix.dtype and not _in_transform():
            y = y.addmm_(rows, matrix)
        else:
            y = adds_in_place(y, rows @ matrix)
    return y if len(lead) == 1 else y.reshape(*lead, y.shape[-1])


def _linear(x: Tensor, pieces: Pieces) -> tuple[Tensor, Tensor]:
    core, out, into = pieces
    if x.shape[0] <= _FEW_ROWS:
        x = x if into is None else x @ into
        return (x, core.mT) if out is None else (x @ core.mT, out.mT)
    # matrices with the long axis last, so that their gradients are: 5 times faster
    if into is not None:
        return x @ into.mT.contiguous().mT, core.mT.contiguous() if out is None else core.mT @ out.mT
    if out is not None:  # the core maps the inputs themselves; core times out would be of the weight's size
        return x @ core.mT, out.mT.contiguous()
    return x, core.mT


def _embedding(layer: nn.Module, x: Tensor, pieces: Pieces) -> tuple[Tensor, Tensor | None]:
    core, out, into = pieces  # the core is (input, output) here
    if into is None:
        rows, table = functional.embedding(x, core, layer.padding_idx), None
    else:
        rows, table = functional.embedding(x, into, layer.padding_idx), core
    if out is not None:
        table = out.mT if table is None else table @ out.mT
    return rows, table


def _conv(layer: nn.Module, x: Tensor, pieces: Pieces) -> Tensor:
    core, out, into = pieces
    spatial = core.ndim - 2
    conv, groups, batch = _CONV[spatial], layer.groups, x.shape[0]
    if into is not None:
        x = conv(_fold(x, groups), _pointwise(into.mT, spatial))
        x = _unfold(x, groups, batch)
    padding = layer.padding
    if layer.padding_mode != "zeros":
        x, padding = functional.pad(x, layer._reversed_padding_repeated_twice, mode=layer.padding_mode), 0
    if out is None:
        return conv(x, core, None, layer.stride, padding, layer.dilation, groups)
    x = conv(_fold(x, groups), core, None, layer.stride, padding, layer.dilation)
    return conv(_unfold(x, groups, batch), _pointwise(out, spatial), groups=groups)


def _conv_transpose(layer: nn.Module, x: Tensor, pieces: Pieces, output_padding: Any) -> Tensor:
    core, out, into = pieces
    spatial = core.ndim - 2
    conv, groups, batch = _CONV[spatial], layer.groups, x.shape[0]
    if into is not None:
        blocks = into.reshape(groups, -1, into.shape[1]).mT
        x = conv(x, _pointwise(blocks.reshape(-1, blocks.shape[2]), spatial), groups=groups)
        x, inner = _fold(x, groups), 1
    else:
        inner = groups
    x = _TRANSPOSED[spatial](
        x, core, None, layer.stride, layer.padding, output_padding, inner, layer.dilation
    )
    if out is not None:
        x = conv(_fold(x, inner), _pointwise(out, spatial))
        return _unfold(x, groups, batch)
    return x if inner == groups else _unfold(x, groups, batch)


def _pointwise(matrix: Tensor, spatial: int) -> Tensor:
    return matrix.reshape(*matrix.shape, *(1,) * spatial)


def _fold(x: Tensor, groups: int) -> Tensor:
    """Channels of a group to the batch."""
    return x if groups == 1 else x.reshape(x.shape[0] * groups, x.shape[1] // groups, *x.shape[2:])


def _unfold(x: Tensor, groups: int, batch: int) -> Tensor:
    """Groups of the batch back to channels."""
    return x if groups == 1 else x.reshape(batch, groups * x.shape[1], *x.shape[2:])


def _output_padding(layer: nn.Module, x: Tensor, output_size: Any = None) -> Any:
    if output_size is None:
        return layer.output_padding
    spatial = len(layer.kernel_size)
    return layer._output_padding(
        x, output_size, layer.stride, layer.padding, layer.kernel_size, spatial, layer.dilation
    )


def adds_in_place(y: Tensor, addition: Tensor) -> Tensor:
    """``y + addition`` into ``y``, which nothing else holds."""
    if y.dtype != addition.dtype or _in_transform():
        return torch.add(y, addition).to(y.dtype)
    return y.add_(addition)


def _in_transform() -> bool:
    """Whether torch.func or the compiler runs this; under ``vmap`` the addition may be the larger one."""
    return torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None
