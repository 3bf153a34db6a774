"""The choice of the forward path, and what the factored path keeps for the backward pass."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.layer import AdaptedStock
from tenfac.adapters.updates.path import choose_path, n_positions
from tests.checks import assert_below, assert_equal


def choice(layer: nn.Module, rank: object, *shape: int, names: int = 1, **options: object) -> str:
    """The path that an adapted layer takes for an input of a shape."""
    for name in range(names):
        tucker_adapter(layer, rank, name=f"n{name}", **options)
    assert isinstance(layer, AdaptedStock)
    x = torch.zeros(shape, dtype=torch.int64) if isinstance(layer, nn.Embedding) else torch.zeros(shape)
    return choose_path(layer, x, [update for update, _ in layer.tenfac.updates("weight")], "auto")


CERTAIN = [
    (lambda: nn.Conv2d(256, 256, 3, padding=1), (8, 8, None, None), (4, 256, 14, 14), "factored"),
    (lambda: nn.Conv2d(512, 512, 3, padding=1), (8, 8, None, None), (4, 512, 7, 7), "factored"),
    (lambda: nn.Conv2d(96, 96, 7, padding=3, groups=96), (8, 1, None, None), (4, 96, 28, 28), "fused"),
    (lambda: nn.Conv2d(128, 128, 3, padding=1, groups=16), (8, 8, None, None), (4, 128, 14, 14), "fused"),
    (lambda: nn.Conv2d(8, 8, 3, padding=1), (1, 1, None, None), (4, 8, 32, 32), "fused"),
    (lambda: nn.Conv1d(64, 64, 9, padding=4), (48, 48, None), (4, 64, 256), "fused"),
    (lambda: nn.Conv3d(64, 64, 3, padding=1), (8, 8, None, None, None), (4, 64, 8, 14, 14), "factored"),
    (lambda: nn.ConvTranspose2d(256, 256, 4), (8, 8, None, None), (4, 256, 14, 14), "factored"),
    (lambda: nn.ConvTranspose2d(32, 32, 3), (24, 24, None, None), (4, 32, 32, 32), "fused"),
    (lambda: nn.Linear(768, 768), 8, (8, 768), "factored"),
    (lambda: nn.Linear(768, 768), 256, (8, 768), "factored"),
    (lambda: nn.Linear(768, 768), 8, (4, 197, 768), "factored"),
    (lambda: nn.Linear(128, 128), 50, (4096, 128), "fused"),
    (lambda: nn.Embedding(20000, 96), 8, (4, 32), "factored"),
    (lambda: nn.Embedding(50, 8), 3, (64, 512), "fused"),
    (lambda: nn.Embedding(50, 8, sparse=True), 3, (64, 512), "factored"),
]


@pytest.mark.parametrize(("make_layer", "rank", "shape", "path"), CERTAIN)
def test_where_one_path_is_far_better_it_is_chosen(make_layer, rank, shape, path) -> None:
    assert_equal(choice(make_layer(), rank, *shape), path)


@pytest.mark.parametrize(
    ("make_layer", "structure", "shape", "path"),
    [
        (lambda: nn.Linear(512, 512), "lora", (788, 512), "factored"),
        (lambda: nn.Linear(512, 512), "randlora", (788, 512), "fused"),
        (lambda: nn.Embedding(20000, 64), "lora", (4, 32), "factored"),
        (lambda: nn.Linear(512, 512), "lokr", (16, 512), "fused"),
        (lambda: nn.Linear(512, 512), "lokr", (788, 512), "fused"),
        (lambda: nn.Conv2d(128, 128, 3), "lokr", (1, 128, 6, 6), "fused"),
        (lambda: nn.Embedding(2000, 64), "lokr", (4, 512), "fused"),
    ],
)
def test_structures_without_an_input_factor_or_any_are_judged_by_what_their_core_costs(
    make_layer, structure, shape, path
) -> None:
    assert_equal(choice(make_layer(), 8, *shape, structure=structure), path)


def test_without_gradients_the_weight_gradient_is_not_counted_so_that_fusing_wins_on_many_tokens() -> None:
    assert_equal(choice(nn.Linear(768, 768), 32, 788, 768), "factored")
    with torch.no_grad():
        assert_equal(choice(nn.Linear(768, 768), 32, 788, 768), "fused")
        assert_equal(choice(nn.Linear(768, 768), 8, 2, 768), "factored")


def test_many_updates_of_one_layer_are_fused_where_one_is_applied_in_factors() -> None:
    shape, rank = (4, 64, 56, 56), (16, 16, None, None)
    assert_equal(choice(nn.Conv2d(64, 64, 3, padding=1), rank, *shape), "factored")
    assert_equal(choice(nn.Conv2d(64, 64, 3, padding=1), rank, *shape, names=4), "fused")


def test_a_path_that_is_asked_for_is_not_judged_and_nothing_is_fused_where_nothing_acts() -> None:
    layer, x = tucker_adapter(nn.Linear(12, 12), 2), torch.zeros(1, 12)
    updates = list(layer.tenfac.named["default"].values())
    assert_equal(choose_path(layer, x, updates, "fused"), "fused")
    assert_equal(choose_path(layer, x, updates, "factored"), "factored")
    assert_equal(choose_path(layer, x, [], "factored"), "fused")


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(3, 5), (2, 4, 3)),
        (nn.Conv1d(3, 5, 4, stride=3, padding=2, dilation=2), (2, 3, 17)),
        (nn.Conv2d(3, 5, (3, 2), padding="same", dilation=(1, 2)), (2, 3, 7, 9)),
        (nn.Conv2d(3, 5, 3, padding=(0, 2), stride=(2, 1), padding_mode="circular"), (3, 7, 9)),
        (nn.Conv3d(3, 5, 2, padding="valid"), (2, 3, 4, 5, 6)),
        (nn.ConvTranspose1d(3, 5, 3, stride=2, padding=1, output_padding=1), (2, 3, 6)),
        (nn.ConvTranspose2d(3, 5, (3, 2), stride=(1, 3), dilation=2), (2, 3, 4, 5)),
    ],
)
def test_positions_are_those_of_the_real_input_and_output(layer, shape) -> None:
    x = torch.zeros(shape)
    y = layer(x)
    channels = {nn.Linear: -1}.get(type(layer), -y.ndim + (y.ndim == len(layer.weight.shape)))
    want = x.numel() // x.shape[channels], y.numel() // y.shape[channels]
    assert_equal(n_positions(layer, x), want)


# --- what is kept for the backward pass ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "rank", "x"),
    [
        (nn.Conv2d(64, 48, 3, padding=1), (4, 4, None, None), torch.randn(1, 64, 4, 4)),
        (nn.Linear(192, 192), (4, None), torch.randn(65, 192)),
        (nn.Linear(192, 192), (None, 4), torch.randn(65, 192)),
        (nn.ConvTranspose2d(48, 64, 3), (4, 4, None, None), torch.randn(1, 48, 4, 4)),
        (nn.Linear(64, 96), 4, torch.randn(5, 64)),
        (nn.Embedding(200, 40), 4, torch.arange(6)),
    ],
)
def test_the_factored_path_keeps_nothing_of_the_weights_size_but_the_weight_itself(layer, rank, x) -> None:
    weight = layer.weight
    tucker_adapter(layer, rank, path="factored")
    kept: list[int] = []

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        if tensor.untyped_storage().data_ptr() not in (weight.untyped_storage().data_ptr(), x.data_ptr()):
            kept.append(tensor.numel())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        layer(x.requires_grad_() if x.is_floating_point() else x).square().sum().backward()
    assert_below(max(kept), weight.numel() // 2, "largest tensor kept for the backward pass")


def test_256_channels_at_rank_8_take_4672_numbers() -> None:
    layer = tucker_adapter(nn.Conv2d(256, 256, 3), 8, modes=(0, 1))
    learned = sum(p.numel() for p in layer.parameters() if p.requires_grad)
    assert_equal(learned, 2 * 256 * 8 + 8 * 8 * math.prod((3, 3)))
    assert_equal(learned, 4672)
