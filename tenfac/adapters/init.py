"""Where an update starts: always at no change, with factors drawn, or taken from the weight or a gradient."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .layout import Layout
from .ranks import Ranks, core_shape

INITS = ("orthonormal", "weight", "weight-minor", "gradient", "principal", "flora", "lora")


def draw_factors(
    init: str,
    layout: Layout,
    ranks: Ranks,
    source: Tensor,
    rng: torch.Generator,
    dtype: torch.dtype,
) -> dict[int, Tensor]:
    """The factors of the modes that have one, ``(I_n, R_n)`` each.

    ``source`` is the weight, or its gradient for ``init="gradient"``.
    """
    factors = {}
    for n, r in enumerate(ranks):
        if r is None:
            continue
        if source.is_meta:
            factors[n] = torch.empty(layout.shape[n], r, dtype=dtype, device="meta")
        elif init in ("weight", "principal", "gradient"):
            factors[n] = left_vectors(source, n)[:, :r]
        elif init == "weight-minor":
            factors[n] = left_vectors(source, n)[:, -r:]
        else:
            factors[n] = _drawn(init, layout.shape[n], r, rng)
    if init == "lora" and layout.out in factors:
        factors[layout.out] = torch.zeros_like(factors[layout.out])
    return {n: factor.to(source.device, dtype).contiguous() for n, factor in factors.items()}


def draw_core(
    init: str, layout: Layout, ranks: Ranks, factors: dict[int, Tensor], weight: Tensor, rng: torch.Generator
) -> Tensor:
    """The core: zero, unless the factors make no change by themselves or ``init="principal"``."""
    shape = core_shape(layout, ranks)
    like = next(iter(factors.values()), weight)
    if init == "principal" and not weight.is_meta:
        core = weight.detach().to(like.dtype)
        for n, factor in factors.items():
            core = torch.tensordot(core, factor, dims=([n], [0])).movedim(-1, n)
        return core.contiguous()
    if init == "lora" and not weight.is_meta:
        bound = 1 / math.sqrt(math.prod(shape) // shape[layout.out])  # kaiming_uniform with a = sqrt(5)
        core = torch.rand(shape, generator=rng, dtype=torch.float64) * (2 * bound) - bound
        return core.to(like.device, like.dtype)
    return torch.zeros(shape, dtype=like.dtype, device=weight.device)


def left_vectors(tensor: Tensor, mode: int) -> Tensor:
    """Left singular vectors of a mode's unfolding, ``(I_n, I_n)``, largest first; in float64."""
    flat = tensor.detach().movedim(mode, 0).reshape(tensor.shape[mode], -1).to(torch.float64)
    return torch.linalg.eigh(flat @ flat.mT).eigenvectors.flip(1)


def _drawn(init: str, size: int, rank: int, rng: torch.Generator) -> Tensor:
    normal = torch.randn(size, rank, generator=rng, dtype=torch.float64)
    if init == "flora":  # kaiming_normal with a = sqrt(3): fan-in is the number of columns
        return normal * math.sqrt(2 / (1 + 3) / rank)
    return torch.linalg.qr(normal).Q
