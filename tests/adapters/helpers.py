"""What tests of adapters share."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn


def fill(model: nn.Module, seed: int = 1) -> Any:
    """Draw every learned number of the adapters of a model, so that they act; the model."""
    rng = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if "tenfac" in name.split(".") and parameter.requires_grad:
            with torch.no_grad():
                parameter.copy_(torch.randn(parameter.shape, generator=rng) / 2)
    return model
