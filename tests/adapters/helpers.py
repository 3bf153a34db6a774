"""What tests of adapters share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


class Raw(nn.Module):
    """A stack of matrices as a parameter of its own, which the files of other libraries do not know."""

    def __init__(self) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.randn(3, 6, 8))


def outputs(net: nn.Module, *x: Any) -> Any:
    with torch.no_grad():
        return net(*x)


def fill(model: nn.Module, seed: int = 1) -> Any:
    """Draw every learned number of the adapters of a model, so that they act; the model."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "tenfac" in name.split(".") and parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) / 2)
    return model
