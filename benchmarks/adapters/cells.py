"""Layers, inputs and ranks at which paths are timed: one set to fit the costs on, another to judge by."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

_KINDS: dict[str, type[nn.Module]] = {
    "linear": nn.Linear,
    "conv1d": nn.Conv1d,
    "conv2d": nn.Conv2d,
    "conv3d": nn.Conv3d,
    "transposed1d": nn.ConvTranspose1d,
    "transposed2d": nn.ConvTranspose2d,
    "transposed3d": nn.ConvTranspose3d,
    "embedding": nn.Embedding,
}


@dataclass(frozen=True)
class Cell:
    """One layer, its input and the rank of its update; ``train=False`` is a forward pass alone."""

    kind: str
    sizes: tuple[int, ...]
    input: tuple[int, ...]
    rank: int
    options: dict[str, Any] = field(default_factory=dict)
    train: bool = True

    @property
    def name(self) -> str:
        """For tables: ``conv2d 64 64 3, input 4x64x56x56, rank 8``."""
        options = "".join(f" {key}={value}" for key, value in self.options.items())
        grid = "x".join(map(str, self.input))
        sizes = " ".join(map(str, self.sizes))
        return f"{self.kind} {sizes}{options}, input {grid}, rank {self.rank}" + (
            "" if self.train else ", forward"
        )

    def layer(self) -> nn.Module:
        """The base layer."""
        return _KINDS[self.kind](*self.sizes, **self.options)

    def x(self) -> Tensor:
        """An input of the layer."""
        if self.kind == "embedding":
            return torch.randint(0, self.sizes[0], self.input)
        return torch.randn(self.input)


def linear(into: int, out: int, rows: int, rank: int, train: bool = True) -> Cell:
    return Cell("linear", (into, out), (rows, into), rank, {}, train)


def conv(
    into: int, out: int, kernel: int, grid: tuple[int, ...], rank: int, train: bool = True, **more: Any
) -> Cell:
    """A convolution of as many dimensions as ``grid``, a batch of 4, padded to the size of its input."""
    options = {"padding": kernel // 2, **more}
    return Cell(f"conv{len(grid)}d", (into, out, kernel), (4, into, *grid), rank, options, train)


def transposed(into: int, out: int, kernel: int, grid: tuple[int, ...], rank: int, **more: Any) -> Cell:
    return Cell(f"transposed{len(grid)}d", (into, out, kernel), (4, into, *grid), rank, more)


def embedding(rows: int, width: int, tokens: int, rank: int, train: bool = True) -> Cell:
    return Cell("embedding", (rows, width), (tokens,), rank, {}, train)


CALIBRATION = [
    linear(512, 512, 1024, 8),
    linear(512, 512, 1024, 128),
    linear(512, 512, 1024, 192),
    linear(512, 512, 16, 8),
    linear(512, 512, 16, 128),
    linear(1024, 256, 256, 32),
    linear(64, 64, 2048, 4),
    linear(64, 64, 2048, 20),
    conv(64, 64, 3, (28, 28), 8),
    conv(64, 64, 3, (28, 28), 16),
    conv(64, 64, 3, (28, 28), 32),
    conv(128, 128, 3, (14, 14), 8),
    conv(128, 128, 3, (14, 14), 64),
    conv(256, 256, 3, (7, 7), 16),
    conv(256, 256, 3, (7, 7), 128),
    conv(32, 64, 3, (28, 28), 8, stride=2),
    conv(16, 16, 3, (32, 32), 4),
    conv(3, 32, 3, (32, 32), 3),
    conv(128, 128, 1, (14, 14), 8),
    conv(128, 128, 1, (14, 14), 48),
    conv(64, 64, 3, (14, 14), 4, groups=4),
    conv(128, 128, 3, (14, 14), 8, groups=16),
    conv(64, 64, 3, (28, 28), 1, groups=64),
    conv(128, 128, 7, (14, 14), 8, groups=128),
    conv(64, 64, 3, (256,), 8),
    conv(64, 64, 9, (256,), 32),
    conv(32, 32, 3, (6, 12, 12), 8),
    conv(32, 32, 3, (6, 12, 12), 16),
    transposed(64, 32, 4, (14, 14), 8, stride=2, padding=1),
    transposed(64, 32, 4, (14, 14), 16, stride=2, padding=1),
    embedding(2000, 128, 256, 8),
    embedding(500, 64, 4096, 32),
    linear(512, 512, 1024, 32, train=False),
    linear(512, 512, 4, 8, train=False),
    conv(64, 64, 3, (28, 28), 16, train=False),
    conv(128, 128, 3, (14, 14), 64, train=False),
    conv(96, 96, 7, (14, 14), 8, groups=96, train=False),
    conv(32, 32, 3, (8, 8), 8, train=False),
]

JUDGMENT = [
    linear(768, 768, 788, 8),
    linear(768, 768, 788, 64),
    linear(768, 768, 788, 288),
    linear(768, 768, 8, 8),
    linear(768, 768, 8, 256),
    linear(256, 1024, 512, 16),
    linear(128, 128, 4096, 48),
    conv(64, 64, 3, (56, 56), 8),
    conv(64, 64, 3, (56, 56), 16),
    conv(64, 64, 3, (56, 56), 32),
    conv(128, 128, 3, (28, 28), 8),
    conv(256, 256, 3, (14, 14), 8),
    conv(256, 256, 3, (14, 14), 64),
    conv(512, 512, 3, (7, 7), 8),
    conv(24, 48, 5, (20, 20), 6),
    conv(64, 128, 3, (28, 28), 8, stride=2),
    conv(8, 8, 3, (32, 32), 1),
    conv(64, 256, 1, (14, 14), 8),
    conv(256, 64, 1, (14, 14), 32),
    conv(64, 64, 3, (28, 28), 8, groups=2),
    conv(96, 96, 3, (14, 14), 6, groups=8),
    conv(96, 96, 7, (28, 28), 8, groups=96),
    conv(384, 384, 7, (7, 7), 1, groups=384),
    conv(48, 48, 5, (200,), 6),
    conv(128, 128, 3, (100,), 64),
    conv(64, 64, 3, (8, 14, 14), 8),
    conv(16, 32, 3, (8, 16, 16), 8),
    transposed(128, 64, 2, (14, 14), 8, stride=2),
    transposed(32, 32, 3, (12, 12), 16),
    transposed(32, 16, 4, (64,), 4, stride=2, padding=1),
    embedding(5000, 96, 512, 8),
    embedding(300, 48, 2048, 24),
    linear(768, 768, 788, 8, train=False),
    linear(768, 768, 2, 8, train=False),
    conv(128, 128, 3, (28, 28), 8, train=False),
    conv(64, 64, 3, (14, 14), 32, train=False),
    linear(384, 1536, 196, 16),
    linear(1536, 384, 196, 48),
    linear(300, 200, 32, 12),
    linear(640, 640, 2048, 100),
    conv(80, 80, 3, (20, 20), 12),
    conv(160, 80, 3, (10, 10), 40),
    conv(200, 200, 3, (9, 9), 6),
    conv(48, 96, 3, (24, 24), 10, dilation=2),
    conv(512, 128, 1, (7, 7), 8),
    conv(160, 160, 5, (14, 14), 4, groups=160),
    conv(120, 120, 3, (12, 12), 5, groups=3),
    conv(96, 96, 7, (150,), 8),
    conv(48, 48, 3, (6, 10, 10), 24),
    transposed(96, 48, 4, (8, 8), 12, stride=2, padding=1),
    transposed(24, 12, 3, (4, 6, 6), 3, stride=2),
    embedding(10000, 64, 128, 4),
    conv(256, 256, 3, (14, 14), 8, train=False),
    linear(320, 320, 64, 8, train=False),
]
