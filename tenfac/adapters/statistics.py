"""What a layer sees and puts out on a user's data: means and second moments, in float64, batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn

from ..core.errors import DataError
from .forward import base_forward


def batches(inputs: Tensor | Iterable[Tensor], where: str) -> list[Tensor]:
    """Batches of inputs, one tensor being one batch; ``DataError`` where they are none, or not finite."""
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
    return found


class Moments:
    """Running mean and second moment of vectors.

    ``covariance()`` is about the mean, ``second()`` about zero.
    """

    def __init__(self) -> None:
        self.count, self.total, self.square = 0, None, None

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
        """``E[(x - mean) (x - mean)']``, ``(I, I)``."""
        return self.second() - torch.outer(self.mean, self.mean)


def channel_rows(x: Tensor, layer: nn.Module) -> Tensor:
    """The vectors over channels that an input or output of a layer consists of, ``(N, channels)``."""
    spatial = len(getattr(layer, "kernel_size", ()))
    x = x.movedim(-(spatial + 1), -1)
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
    bias = getattr(layer, "bias", None)
    weight = weight.to(layer.weight.dtype)
    rows = (channel_rows(base_forward(layer, weight, (x,), {}), layer) for x in xs)
    moments = moments_of(layer, rows if bias is None else (part - bias for part in rows))
    return [m.covariance() if centered else m.second() for m in moments]


@torch.no_grad()
def move_bias(last: nn.Module, gap: Callable[[Tensor], Tensor], xs: list[Tensor]) -> None:
    """Add the mean of ``gap(x)`` per channel to the bias of a layer."""
    gaps = Moments()
    for x in xs:
        gaps.add(channel_rows(gap(x), last))
    if last.bias is None:
        last.bias = nn.Parameter(torch.zeros_like(gaps.mean, dtype=last.weight.dtype))
    last.bias.add_(gaps.mean.to(last.bias.dtype))
