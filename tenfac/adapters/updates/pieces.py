"""Kinds of cores and factors: what is learned, what is frozen, and the array they stand for.

Frozen arrays are parameters without gradient, so that they move, copy and are saved like any other.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FullCore(nn.Module):
    """A core whose every entry is a number of its own."""

    def __init__(self, tensor: Tensor) -> None:
        super().__init__()
        self.tensor = nn.Parameter(tensor)

    @property
    def rank(self) -> tuple[int, ...]:
        """Ranks as a user gives them, one per mode."""
        return tuple(self.tensor.shape)

    def value(self) -> Tensor:
        """The core, one axis per mode."""
        return self.tensor


class ScaledCore(nn.Module):
    """A frozen core whose slices along one mode are multiplied by learned numbers."""

    def __init__(self, scales: Tensor, tensor: Tensor, mode: int) -> None:
        super().__init__()
        self.scales = nn.Parameter(scales)
        self.tensor = nn.Parameter(tensor, requires_grad=False)
        self.mode = mode

    @property
    def rank(self) -> tuple[int, ...]:
        """Ranks as a user gives them, one per mode."""
        return tuple(self.tensor.shape)

    def value(self) -> Tensor:
        """The core, one axis per mode."""
        return along(self.scales, self.tensor, self.mode)


class KroneckerCore(nn.Module):
    """The Kronecker product of two small tensors, ``left (x) right`` in every mode."""

    def __init__(self, left: Tensor, right: Tensor) -> None:
        super().__init__()
        self.left = nn.Parameter(left)
        self.right = nn.Parameter(right)

    @property
    def rank(self) -> tuple[int, ...]:
        """Ranks as a user gives them, one per mode: the sizes of the left block."""
        return tuple(self.left.shape)

    def value(self) -> Tensor:
        """The core, one axis per mode."""
        return torch.kron(self.left, self.right)


class DenseFactor(nn.Module):
    """A matrix, ``(I_n, R_n)``; frozen where a method does not learn it."""

    def __init__(self, matrix: Tensor) -> None:
        super().__init__()
        self.matrix = nn.Parameter(matrix)

    def value(self) -> Tensor:
        """The factor, ``(I_n, R_n)``."""
        return self.matrix


class Selection(nn.Module):
    """Columns of the identity: the chosen slices of a mode change, the others do not."""

    def __init__(self, index: Tensor, size: int, dtype: torch.dtype) -> None:
        super().__init__()
        self.register_buffer("index", index)
        self.size = size
        self.dtype = dtype

    def value(self) -> Tensor:
        """The factor, ``(I_n, R_n)``."""
        rows = torch.arange(self.size, device=self.index.device)
        return (rows[:, None] == self.index[None, :]).to(self.dtype)


class DiagonalFactor(nn.Module):
    """A square diagonal factor, ``(I_n, I_n)``: one learned number per slice of the mode."""

    def __init__(self, scales: Tensor) -> None:
        super().__init__()
        self.scales = nn.Parameter(scales)

    def value(self) -> Tensor:
        """The factor, ``(I_n, I_n)``."""
        return torch.diag(self.scales)


def along(scales: Tensor, tensor: Tensor, mode: int) -> Tensor:
    """Multiply the slices of ``tensor`` along ``mode`` by ``scales``."""
    return scales.reshape(-1, *(1,) * (tensor.ndim - mode - 1)) * tensor
