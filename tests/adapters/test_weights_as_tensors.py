"""A layer's weight through ``tucker`` and back, beside what ``compress`` makes of the layer."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from tenfac import adapt, compress, detach, load, merge, save, tucker, unmerge
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative


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


def layers() -> list[nn.Module]:
    """A linear layer and convolutions of one to three places."""
    torch.manual_seed(0)
    return [
        nn.Linear(10, 7),
        nn.Conv1d(6, 8, 3),
        nn.Conv2d(6, 8, 3),
        nn.Conv3d(4, 5, 2),
        nn.ConvTranspose2d(6, 4, 3),
    ]


@pytest.mark.parametrize("layer", layers(), ids=lambda layer: type(layer).__name__)
def test_the_weight_of_every_layer_has_its_modes_in_the_order_in_which_it_is_stored(layer: nn.Module) -> None:
    t = tucker(layer.weight, tol=1e-5)  # a parameter that requires its gradient is an array as any other
    assert_equal(t.shape, tuple(layer.weight.shape))
    assert_relative(t.to_tensor().detach(), layer.weight.detach(), 1e-5, "weight")
    small = tucker(layer.weight, rank=2)
    with torch.no_grad():
        layer.weight.copy_(small.to_tensor())
    assert_equal(tucker(layer.weight.detach(), tol=1e-5).rank, small.rank)


def test_what_an_adapter_learned_goes_through_tucker_once_it_is_merged() -> None:
    torch.manual_seed(0)
    net, x = nn.Sequential(nn.Conv2d(4, 6, 3)), torch.randn(2, 4, 5, 5)
    frozen = net[0].weight.detach().clone()
    adapt(net, "all", rank=2, init="orthonormal")
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter) * parameter.requires_grad)
    effective = net[0].weight.detach().clone()  # of an adapted layer: frozen weight and update
    assert_above((effective - frozen).abs().max().item(), 1e-3, "size of the update")
    assert_relative(tucker(net[0].weight.detach(), tol=1e-5).to_tensor(), effective, 1e-5, "adapted weight")
    merge(net)
    assert_relative(net[0].weight.detach(), effective, 1e-5, "merged weight")
    unmerge(net)
    merge(net)
    detach(net, keep_merged=True)
    want = net(x).detach()
    t = tucker(net[0].weight.detach(), tol=1e-4)
    with torch.no_grad():
        net[0].weight.copy_(t.to_tensor())
    assert_relative(net(x).detach(), want, 1e-3, "outputs")
