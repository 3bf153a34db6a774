"""Layers of every kind of weight, each with an input, for the tests of structures, starts and ranks."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.updates.update import Update


class Raw(nn.Module):
    """A raw parameter, applied entry by entry."""

    def __init__(self, *shape: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def _x(*shape: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randn(shape),)


def _index(n: int) -> Callable[[], tuple[Tensor, ...]]:
    return lambda: (torch.randint(0, n, (4, 9)),)


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "Linear": (lambda: nn.Linear(12, 9, bias=False), _x(5, 12)),
    "Conv1d": (lambda: nn.Conv1d(6, 8, 5), _x(2, 6, 9)),
    "Conv2d": (lambda: nn.Conv2d(6, 8, 3), _x(2, 6, 5, 5)),
    "Conv2d 1x1": (lambda: nn.Conv2d(9, 8, 1), _x(2, 9, 3, 3)),
    "Conv2d grouped": (lambda: nn.Conv2d(12, 8, (3, 4), groups=2), _x(2, 12, 5, 5)),
    "Conv3d": (lambda: nn.Conv3d(6, 8, 3), _x(2, 6, 4, 4, 4)),
    "ConvTranspose2d": (lambda: nn.ConvTranspose2d(8, 12, 3, groups=2), _x(2, 8, 4, 4)),
    "Embedding": (lambda: nn.Embedding(15, 10), _index(15)),
    "EmbeddingBag": (lambda: nn.EmbeddingBag(15, 10), _index(15)),
    "Bilinear": (lambda: nn.Bilinear(6, 7, 8), lambda: (torch.randn(5, 6), torch.randn(5, 7))),
    "experts": (lambda: Raw(4, 8, 6), _x(4, 8, 6)),
    "4-D parameter": (lambda: Raw(4, 3, 8, 6), _x(4, 3, 8, 6)),
}
ATTENTION: dict[str, tuple[Callable[[], nn.Module], Callable[[], tuple[Tensor, ...]]]] = {
    "attention": (lambda: nn.MultiheadAttention(12, 3), lambda: (torch.randn(4, 2, 12),) * 3),
    "attention of unequal sizes": (
        lambda: nn.MultiheadAttention(12, 3, kdim=8, vdim=10, add_bias_kv=True),
        lambda: (torch.randn(4, 2, 12), torch.randn(4, 2, 8), torch.randn(4, 2, 10)),
    ),
}


def draw(case: str) -> tuple[nn.Module, tuple[Tensor, ...]]:
    """A layer of a kind and an input for it, always the same numbers."""
    make, inputs = {**CASES, **ATTENTION}[case]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return make(), inputs()


def adapted(layer: nn.Module, *args: Any, **kwargs: Any) -> nn.Module:
    """A copy of a layer, adapted."""
    return tucker_adapter(copy.deepcopy(layer), *args, **kwargs)


def update_of(layer: nn.Module, slot: str = "weight", name: str = "default") -> Update:
    return layer.tenfac.named[name][slot]


def output(layer: nn.Module, inputs: tuple[Tensor, ...]) -> Tensor:
    y = layer(*inputs)
    return y[0] if isinstance(y, tuple) else y


def learned(module: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in module.named_parameters() if p.requires_grad}


@torch.no_grad()
def shake(module: nn.Module, seed: int = 1) -> None:
    """Move every learned number."""
    rng = torch.Generator().manual_seed(seed)
    for parameter in learned(module).values():
        parameter += torch.randn(parameter.shape, generator=rng).to(parameter.dtype) * 0.3
