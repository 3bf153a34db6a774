"""The methods compared, each a module made from one frozen layer."""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable
from typing import Any

import torch
from lycoris.modules.locon import LoConModule
from peft import LoraConfig, inject_adapter_in_model
from torch import Tensor, nn
from torch.nn import functional

from tenfac.adapters.build import tucker_adapter

logging.getLogger("LyCORIS").setLevel(logging.ERROR)


def frozen(layer: nn.Module, _rank: int = 0) -> nn.Module:
    """The base layer, nothing learned."""
    return copy.deepcopy(layer).requires_grad_(False)


def full(layer: nn.Module, _rank: int = 0) -> nn.Module:
    """Full fine-tuning."""
    return copy.deepcopy(layer).requires_grad_(True)


def tenfac(path: str) -> Callable[[nn.Module, int], nn.Module]:
    """Our update, by a path."""
    return lambda layer, rank: tucker_adapter(copy.deepcopy(layer), rank_of(layer, rank), path=path)


def rank_of(layer: nn.Module, rank: int) -> Any:
    """One number per channel mode, no larger than the mode; kernel modes whole."""
    sizes = layer.weight.shape
    return tuple(min(rank, n) if i < 2 else None for i, n in enumerate(sizes))


def peft_lora(layer: nn.Module, rank: int) -> nn.Module:
    """LoRA of peft."""
    holder = nn.Sequential(copy.deepcopy(layer))
    config = LoraConfig(r=rank, lora_alpha=rank, target_modules=["0"])
    return inject_adapter_in_model(config, holder)[0]


def lycoris(bypass: bool) -> Callable[[nn.Module, int], nn.Module]:
    """LoCon with a Tucker core of LyCORIS: two operations after each other, or the update formed."""
    return lambda layer, rank: Patched(frozen(layer), rank, bypass)


class Patched(nn.Module):
    """A layer whose forward LyCORIS has taken over."""

    def __init__(self, layer: nn.Module, rank: int, bypass: bool) -> None:
        super().__init__()
        self.layer = layer
        self.locon = LoConModule(
            "layer", layer, 1.0, lora_dim=rank, alpha=rank, use_tucker=True, bypass_mode=bypass
        )
        self.locon.apply_to()

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x)


class Materialized(nn.Module):
    """The update formed in full and applied by a second operation, as the FLoRA reference does.

    A Tucker update of kernel rank 2 (3 from kernels of 5 on), modes multiplied in the reference's fixed
    order: input, output, kernel. Here to be compared; tenfac has no such path.
    """

    def __init__(self, layer: nn.Module, rank: int) -> None:
        super().__init__()
        self.layer = frozen(layer)
        into, out, *kernel = layer.weight.transpose(0, 1).shape
        ranks = [rank, rank, *(min(k, 3 if k >= 5 else 2) for k in kernel)]
        self.core = nn.Parameter(torch.zeros(ranks))
        self.factors = nn.ParameterList(
            torch.randn(n, r) for n, r in zip([into, out, *kernel], ranks, strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        delta = self.core
        for mode, factor in enumerate(self.factors):
            delta = torch.tensordot(delta, factor, dims=([mode], [1])).movedim(-1, mode)
        delta = delta.transpose(0, 1)
        if isinstance(self.layer, nn.Linear):
            return self.layer(x) + functional.linear(x, delta)
        return self.layer(x) + self.layer._conv_forward(x, delta, None)


METHODS: dict[str, Callable[[nn.Module, int], nn.Module]] = {
    "frozen base": frozen,
    "full fine-tuning": full,
    "tenfac": tenfac("auto"),
    "PEFT LoRA": peft_lora,
    "LyCORIS Tucker, bypass": lycoris(True),
    "tenfac, factored": tenfac("factored"),
    "tenfac, fused": tenfac("fused"),
    "LyCORIS Tucker": lycoris(False),
    "update formed + second operation (as FLoRA's reference)": Materialized,
}
