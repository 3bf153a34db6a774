"""What a layer sees and puts out on a user's data: means and second moments, in float64, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.updates.forward import base_forward
from tenfac.core.errors import DataError

_ROUNDING = 1e-12  # of squares: float32 keeps 1e-14


def batches(inputs: Tensor | Iterable[Tensor], layer: nn.Module, where: str) -> list[Tensor]:
    """Batches of inputs, one tensor being one batch; ``DataError`` where a layer could not take them."""
    found = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if not found or not all(isinstance(x, Tensor) for x in found):
        raise DataError(
            f"{where}: `inputs` must be a tensor, or batches of tensors; got {type(inputs).__name__}."
        )
    if not sum(x.numel() for x in found):
        raise DataError(f"{where}: `inputs` must hold at least one example; got none.")
    for i, x in enumerate(found):
        if x.is_floating_point() and not torch.isfinite(x).all():
            raise DataError(f"{where}: `inputs` must be finite; batch {i} holds NaN or infinity.")
        if not (_is_index(x, layer) if isinstance(layer, nn.Embedding) else _is_signal(x, layer)):
            raise DataError(
                f"{where}: `inputs` must be what the layer takes, {_taken(layer)}; batch {i} is of shape "
                f"{tuple(x.shape)}, {x.dtype}, on {x.device}."
            )
    return found


def _is_index(x: Tensor, layer: nn.Module) -> bool:
    known = not x.numel() or 0 <= int(x.min()) <= int(x.max()) < layer.num_embeddings
    return x.dtype in (torch.int64, torch.int32) and x.device == layer.weight.device and known


def _is_signal(x: Tensor, layer: nn.Module) -> bool:
    spatial = _spatial(layer)
    right = x.ndim > 0 if not spatial else x.ndim - spatial in (1, 2)
    right = right and x.shape[-(spatial + 1)] == (layer.in_channels if spatial else layer.in_features)
    return right and x.dtype == layer.weight.dtype and x.device == layer.weight.device


def _taken(layer: nn.Module) -> str:
    if isinstance(layer, nn.Embedding):
        return f"int64 numbers of rows below {layer.num_embeddings} on {layer.weight.device}"
    spatial = _spatial(layer)
    sizes = ["...", layer.in_features] if not spatial else ["N", layer.in_channels, *"DHW"[3 - spatial :]]
    return f"({', '.join(map(str, sizes))}) in {layer.weight.dtype} on {layer.weight.device}"


def _spatial(layer: nn.Module) -> int:
    return len(getattr(layer, "kernel_size", ()))


class Moments:
    """Running mean and second moment of vectors.

    ``covariance()`` is about the mean, ``second()`` about zero.
    """

    def __init__(self) -> None:
        self.count = 0
        self.total: Any = None
        self.square: Any = None

    def add(self, rows: Tensor) -> None:
        """Add vectors, ``(N, I)``."""
        rows = rows.to(torch.float64)
        total, square = rows.sum(0), rows.mT @ rows
        self.total = total if self.total is None else self.total + total
        self.square = square if self.square is None else self.square + square
        self.count += rows.shape[0]

    @property
    def mean(self) -> Tensor:
        """Mean vector, ``(I,)``."""
        return self.total / self.count

    def second(self) -> Tensor:
        """``E[x x']``, ``(I, I)``."""
        return self.square / self.count

    def covariance(self) -> Tensor:
        """``E[(x - mean) (x - mean)']``, ``(I, I)``; zero where it is no more than the rounding of ``x``."""
        second = self.second()
        spread = second - torch.outer(self.mean, self.mean)
        return spread if torch.trace(spread) > _ROUNDING * torch.trace(second) else torch.zeros_like(spread)


def channel_rows(x: Tensor, layer: nn.Module) -> Tensor:
    """The vectors over channels that an input or output of a layer consists of, ``(N, channels)``."""
    x = x.movedim(-(_spatial(layer) + 1), -1)
    return x.reshape(-1, x.shape[-1])


def moments_of(layer: nn.Module, batches_of_rows: Iterable[Tensor]) -> list[Moments]:
    """Moments of vectors over channels, of each group of the layer by itself."""
    moments = [Moments() for _ in range(getattr(layer, "groups", 1))]
    for rows in batches_of_rows:
        for moment, part in zip(moments, rows.tensor_split(len(moments), dim=1), strict=True):
            moment.add(part)
    return moments


def output_moments(layer: nn.Module, weight: Tensor, xs: list[Tensor], centered: bool) -> list[Tensor]:
    """Second moments, or covariances, of what a layer puts out with ``weight`` and no bias; one per group."""
    weight = weight.to(torch.promote_types(layer.weight.dtype, torch.float32))
    signals = (x.to(weight.dtype) if x.is_floating_point() else x for x in xs)
    rows = (channel_rows(base_forward(layer, weight, (x,), {}, biased=False), layer) for x in signals)
    moments = moments_of(layer, rows)
    return [m.covariance() if centered else m.second() for m in moments]


@torch.no_grad()
def move_bias(last: nn.Module, gap: Callable[[Tensor], Tensor], xs: list[Tensor]) -> None:
    """Add the mean of ``gap(x)`` per channel to the bias of a layer."""
    gaps = Moments()
    for x in xs:
        gaps.add(channel_rows(gap(x), last))
    last.bias.add_(gaps.mean.to(last.bias.dtype))
