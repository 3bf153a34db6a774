"""A layer's weight through ``tucker`` and back, beside what ``compress`` makes of the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from tenfac import compress, load, save, tucker
from tests.checks import assert_below, assert_close, assert_equal, assert_relative


def convolution(rank: int = 3) -> nn.Conv2d:
    """A layer whose weight has multilinear rank (rank, rank, 3, 3), and little else."""
    rng = np.random.default_rng(0)
    layer = nn.Conv2d(8, 12, 3, padding=1, dtype=torch.float64)
    core, out, into = (rng.standard_normal(s) for s in ((rank, rank, 3, 3), (12, rank), (8, rank)))
    weight = np.einsum("pqhw,op,cq->ochw", core, out, into) + 1e-4 * rng.standard_normal((12, 8, 3, 3))
    layer.weight.data = torch.from_numpy(weight)
    return layer


def test_a_weight_goes_through_tucker_and_back_into_its_layer(tmp_path: Path) -> None:
    layer, x = convolution(), torch.from_numpy(np.random.default_rng(1).standard_normal((5, 8, 7, 7)))
    want = layer(x).detach()
    t = tucker(layer.weight.detach(), tol=1e-3)
    assert_equal(t.rank, (3, 3, 3, 3))
    save(t, tmp_path / "weight.tenfac")
    with torch.no_grad():
        layer.weight.copy_(load(tmp_path / "weight.tenfac").to_tensor())
    assert_equal(layer.weight.detach(), t.to_tensor())
    assert_relative(layer(x).detach(), want, 2e-3, "change of the outputs")


def test_the_compressed_layer_has_the_tucker_weight() -> None:
    layer = convolution()
    layer.weight.data = tucker(layer.weight.detach(), rank=(3, 3, 3, 3)).to_tensor()
    small = compress(layer, rank=3)
    x = torch.from_numpy(np.random.default_rng(1).standard_normal((5, 8, 7, 7)))
    assert_close(small(x).detach(), layer(x).detach(), 1e3)
    numbers = sum(p.numel() for p in small.parameters())
    assert_below(numbers, 8 * 3 + 3 * 3 * 9 + 3 * 12 + 12, "learned numbers")


def test_the_gradient_of_a_weight_passes_through_its_decomposition() -> None:
    layer = convolution()
    t = tucker(layer.weight, rank=(12, 8, 3, 3))  # nothing is cut: the tensor is the weight
    t.to_tensor().square().sum().backward()
    assert_relative(layer.weight.grad, 2 * layer.weight.detach(), 1e-8, "gradient")
