"""Compressed layers against dense formulas: SVD, FWSVD, feature mimicking, Tucker-2 of every geometry."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.compression.compensate import compensate
from tenfac.adapters.compression.compress import compress
from tenfac.adapters.compression.solver import low_rank, roots
from tenfac.adapters.merging import merge
from tenfac.core.errors import DataError, RankError, ShapeError
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says


def draws(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng([seed, *shape]).standard_normal(shape)).to(dtype)


def spread(*shape: int, seed: int = 0) -> torch.Tensor:
    """Inputs whose channels (second axis) are correlated, of unequal size and not about zero."""
    channels = shape[1]
    mixing = draws(channels, channels, seed=seed + 50) * torch.linspace(2, 0.1, channels).double()
    return torch.einsum("ij,nj...->ni...", mixing, draws(*shape, seed=seed)) + 1.5


def linear(into: int, out: int, seed: int = 0, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(into, out, bias=bias, dtype=torch.float64)
    layer.weight.data, values = draws(out, into, seed=seed), draws(out, seed=seed)
    if bias:
        layer.bias.data = values
    return layer


def weighted_norm(matrix: torch.Tensor, left: torch.Tensor, right: torch.Tensor) -> float:
    return float(torch.trace(left @ matrix @ right @ matrix.mT)) ** 0.5


def metric(size: int, seed: int) -> torch.Tensor:
    factor = draws(size, size, seed=seed)
    return factor @ factor.mT + 0.1 * torch.eye(size)


def test_low_rank_is_the_svd_without_metrics() -> None:
    T = draws(7, 5)
    U, V = low_rank(T, 3)
    left, values, right = torch.linalg.svd(T, full_matrices=False)
    assert_close(U @ V, (left[:, :3] * values[:3]) @ right[:3], 1e3)


def test_low_rank_leaves_out_the_smallest_weighted_singular_values() -> None:
    T, A, B = draws(8, 6), metric(8, 1), metric(6, 2)
    U, V = low_rank(T, 3, left=A, moment=T @ B @ T.mT)
    white = torch.linalg.svdvals(torch.linalg.cholesky(A).mT @ T @ torch.linalg.cholesky(B))
    assert_relative(np.array(weighted_norm(T - U @ V, A, B)), white[3:].norm(), 1e-10)


def test_low_rank_needs_no_inverse_of_the_inputs_moment() -> None:
    T, x = draws(8, 6), draws(2, 6)
    U, V = low_rank(T, 2, moment=T @ x.mT @ x @ T.mT)
    assert_relative(U @ V @ x.mT, T @ x.mT, 1e-10)  # two inputs span two dimensions


def test_ranks_that_the_moment_does_not_ask_for_go_to_the_target() -> None:
    T, x = draws(8, 6), draws(2, 6)
    U, V = low_rank(T, 4, moment=T @ x.mT @ x @ T.mT)
    seen = torch.linalg.qr(T @ x.mT).Q
    rest = T - seen @ seen.mT @ T
    left, values, right = torch.linalg.svd(rest, full_matrices=False)
    assert_relative(U @ V, seen @ seen.mT @ T + (left[:, :2] * values[:2]) @ right[:2], 1e-3)


def test_a_moment_of_zero_is_none() -> None:
    T = draws(8, 6)
    (U, V), (left, right) = low_rank(T, 2, moment=torch.zeros(8, 8)), low_rank(T, 2)
    assert_close(U @ V, left @ right)


def test_the_left_factor_is_orthonormal_whatever_the_metric() -> None:
    U, _ = low_rank(draws(8, 6), 3, left=torch.logspace(-9, 9, 8))
    assert_close(U.mT @ U, torch.eye(3, dtype=torch.float64))


def test_roots_of_zero_are_the_identity() -> None:
    for matrix in roots(torch.zeros(3)):
        assert_close(matrix, torch.eye(3, dtype=torch.float64))


def test_roots_of_a_vector_are_those_of_the_diagonal() -> None:
    weights = torch.tensor([4.0, 9.0, 0.0])
    root, inverse = roots(weights)
    assert_close(root.diag()[:2], torch.tensor([2.0, 3.0], dtype=torch.float64))
    assert_below(float(inverse.max()), 1e5 / 3 + 1, "a weight of zero is lifted, not inverted")


def test_a_linear_with_fisher_is_fwsvd() -> None:
    layer, fisher = linear(6, 9), draws(9, 6, seed=3) ** 2
    small = compress(layer, rank=2, fisher=fisher)
    root = fisher.sum(1).sqrt()[:, None]
    left, values, right = torch.linalg.svd(root * layer.weight.detach(), full_matrices=False)
    want = (left[:, :2] * values[:2]) @ right[:2] / root
    assert_relative(small[1].weight @ small[0].weight, want, 1e-10)
    assert_close(small[1].bias, layer.bias)


def test_a_linear_on_its_inputs_is_the_principal_components_of_its_outputs() -> None:
    layer, x = linear(6, 9), spread(200, 6)
    small = compress(layer, rank=2, inputs=[x[:50], x[50:]])
    y = layer(x).detach()
    _, _, components = torch.linalg.svd(y - y.mean(0), full_matrices=False)
    P = components[:2].mT @ components[:2]
    assert_relative(small(x), y.mean(0) + (y - y.mean(0)) @ P, 1e-10)
    assert_relative(np.array(small.info.rel_error), (small(x) - y).norm() / y.norm(), 1e-10)


def test_without_bias_correction_the_second_moment_is_the_metric() -> None:
    layer, x = linear(6, 9, bias=False), spread(200, 6)
    small = compress(layer, rank=2, inputs=x, bias_correction=False)
    _, _, components = torch.linalg.svd(layer(x).detach(), full_matrices=False)
    assert_relative(small(x), layer(x) @ components[:2].mT @ components[:2], 1e-10)


CONVOLUTIONS: list[tuple[type[nn.Module], dict[str, Any], tuple[int, ...]]] = [
    (nn.Conv1d, {"kernel_size": 3, "stride": 2, "padding": 1}, (3, 8, 11)),
    (
        nn.Conv2d,
        {"kernel_size": 3, "dilation": 2, "padding": "same", "padding_mode": "circular"},
        (2, 8, 7, 6),
    ),
    (nn.Conv2d, {"kernel_size": (1, 5), "groups": 2, "padding": (0, 2), "bias": False}, (2, 8, 5, 6)),
    (nn.Conv3d, {"kernel_size": (1, 1, 3)}, (2, 8, 2, 3, 4)),
    (nn.ConvTranspose2d, {"kernel_size": 3, "stride": 2, "groups": 2, "output_padding": 1}, (2, 8, 4, 3)),
]


def low_rank_convolution(kind: type[nn.Module], options: dict[str, Any]) -> nn.Module:
    """A convolution of 8 to 12 channels whose every group has channel ranks (2, 3)."""
    layer = kind(8, 12, **options, dtype=torch.float64)
    groups, transposed = layer.groups, kind is nn.ConvTranspose2d
    parts = []
    for group in range(groups):
        core = draws(2, 3, *layer.kernel_size, seed=group)
        out, into = draws(12 // groups, 2, seed=group), draws(8 // groups, 3, seed=group)
        weight = torch.einsum("op,iq,pq...->oi...", out, into, core)
        parts.append(weight.transpose(0, 1) if transposed else weight)
    layer.weight.data = torch.cat(parts)
    return layer


@pytest.mark.parametrize("case", CONVOLUTIONS, ids=lambda case: f"{case[0].__name__}-{len(case[1])}")
@pytest.mark.parametrize("with_inputs", [False, True])
def test_a_convolution_of_low_rank_is_kept_to_rounding(case: Any, with_inputs: bool) -> None:
    kind, options, shape = case
    layer, x = low_rank_convolution(kind, options), spread(*shape)
    rank = [None] * layer.weight.ndim
    rank[:2] = (3, 2) if kind is nn.ConvTranspose2d else (2, 3)
    small = compress(layer, rank=rank, inputs=x if with_inputs else None)
    assert_relative(small(x), layer(x), 1e-8, "compressed outputs")
    assert_equal(len(small), 3)
    small(x).sum().backward()
    assert_above(min(float(p.grad.abs().max()) for p in small.parameters()), 0, "every number has a gradient")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("places", [(1, 1), (1, 2), (3, 1)])
def test_fewer_places_than_channels_are_kept_and_others_stay_bounded(
    dtype: torch.dtype, places: tuple[int, int]
) -> None:
    examples, size = places
    layer = nn.Conv2d(16, 12, 3, padding=1, dtype=dtype)
    layer.weight.data = draws(12, 16, 3, 3).to(dtype) / 12
    layer.bias.data = draws(12).to(dtype)
    x, others = draws(examples, 16, size, size).to(dtype), draws(9, 16, 5, 5, seed=3).to(dtype)
    small = compress(layer, rank=8, inputs=x, bias_correction=False)
    eps = torch.finfo(dtype).eps
    assert_relative(small(x).double(), layer(x).double(), max(20 * eps, 1e-8), "what was shown")
    got, want = small(others).detach(), layer(others).detach()
    assert_below((got - want).norm() / want.norm(), 1.0, "what was not")
    assert_below(
        max(float(p.detach().abs().max()) for p in small.parameters()), 4, "no number leaves its dtype"
    )


def test_inputs_that_never_change_leave_the_metric_to_the_weight() -> None:
    layer, x = nn.Conv2d(8, 8, 3, dtype=torch.float64), torch.full((3, 8, 5, 5), 0.7).double()
    layer.weight.data = draws(8, 8, 3, 3)
    small, plain = compress(layer, rank=3, inputs=x), compress(layer, rank=3)
    assert_relative(small(x), layer(x), 1e-10)
    others = draws(4, 8, 5, 5)
    difference = small(others) - plain(others)
    assert_relative(difference, difference.mean((0, 2, 3), keepdim=True).expand_as(difference), 1e-8)


@pytest.mark.parametrize("scale", [1e-170, 1e170])
def test_weights_of_any_size_are_compressed_alike(scale: float) -> None:
    layer, big = linear(8, 9), linear(8, 9)
    big.weight.data *= scale
    small, scaled = compress(layer, rank=2), compress(big, rank=2)
    assert_relative(np.array(scaled.info.rel_error), np.array(small.info.rel_error), 1e-10)
    product = scaled[1].weight @ (scaled[0].weight / scale)
    assert_relative(product, small[1].weight @ small[0].weight, 1e-10)


def test_both_modes_of_a_convolution_share_the_energy_left_out() -> None:
    layer = nn.Conv2d(16, 16, 3, dtype=torch.float64).eval()
    layer.weight.data = draws(16, 16, 3, 3)
    small = compress(layer, energy=0.7)
    assert_below(small.info.rel_error**2, 0.3, "energy left out")
    assert_equal((len(small), small.training, small[1].training), (3, False, False))


def test_fisher_weighs_the_outputs_when_input_channels_are_chosen() -> None:
    layer, fisher = nn.Conv1d(8, 6, 3, dtype=torch.float64), draws(6, 8, 3, seed=2) ** 4
    layer.weight.data = draws(6, 8, 3)
    small = compress(layer, rank=(None, 3, None), fisher=fisher)
    white = fisher.sum((1, 2)).sqrt()[:, None, None] * layer.weight.detach()
    left = torch.linalg.svd(white.movedim(1, 0).flatten(1)).U[:, :3]
    want = torch.einsum("oik,ip,jp->ojk", layer.weight.detach(), left, left)
    got = torch.einsum("opk,pi->oik", small[1].weight, small[0].weight[..., 0])
    assert_relative(got, want, 1e-10)


def test_a_layer_without_bias_gets_one_only_from_data() -> None:
    layer, conv = linear(8, 8, bias=False), nn.Conv2d(8, 8, 3, bias=False)
    assert_equal([p.ndim for m in (layer, conv) for p in compress(m, rank=2).parameters()], [2, 2, 4, 4, 4])
    assert_equal(compress(layer, rank=2, inputs=draws(9, 8))[1].bias.shape, (8,))


def test_energy_keeps_what_it_says_and_inputs_make_it_cheaper() -> None:
    layer, x = linear(20, 20), spread(300, 20)
    plain, aware = compress(layer, energy=0.5), compress(layer, energy=0.5, inputs=x)
    assert_below(plain.info.rel_error**2, 0.5, "energy left out of the weight")
    y = layer(x).detach()
    lost = (aware(x) - y).detach().square().sum() / (y - y.mean(0)).square().sum()
    assert_below(lost, 0.5, "energy left out of the outputs")
    assert_below(aware[0].out_features, plain[0].out_features - 1, "rank with inputs")


def test_an_embedding_keeps_its_padding_row() -> None:
    layer = nn.Embedding(30, 12, padding_idx=4, dtype=torch.float64)
    small = compress(layer, rank=3, inputs=torch.arange(30))
    assert_equal(small[0].padding_idx, 4)
    assert_equal(small(torch.tensor([4])), torch.zeros(1, 12, dtype=torch.float64))
    left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    assert_relative(small(torch.arange(30)), (left[:, :3] * values[:3]) @ right[:3], 1e-10)


def test_an_adapted_layer_is_compressed_with_its_updates() -> None:
    layer, x = linear(10, 10), draws(4, 10)
    tucker_adapter(layer, 2)
    for parameter in layer.parameters():
        parameter.data.add_(0.1)
    small = compress(layer, rank=4)
    left, values, right = torch.linalg.svd(layer.weight.detach(), full_matrices=False)
    want = x @ ((left[:, :4] * values[:4]) @ right[:4]).mT + layer.bias
    assert_relative(small(x), want, 1e-10)


def rounded(layer: nn.Module) -> nn.Module:
    other = type(layer)(
        *([8, 8, 3] if isinstance(layer, nn.Conv2d) else [layer.in_features, layer.out_features]),
        dtype=torch.float64,
    )
    other.load_state_dict(layer.state_dict())
    other.weight.data = layer.weight.detach().round()
    return other


def test_compensation_is_eora() -> None:
    layer, x = linear(6, 9), spread(200, 6)
    fixed = compensate(layer, rounded(layer), 2, x, bias_correction=False)
    lost = layer.weight.detach() - rounded(layer).weight.detach()
    values, Q = torch.linalg.eigh(x.mT @ x)
    left, sizes, right = torch.linalg.svd(lost @ Q * values.sqrt(), full_matrices=False)
    update = (left[:, :2] * sizes[:2]) @ right[:2] / values.sqrt() @ Q.mT
    assert_relative(fixed.weight, rounded(layer).weight + update, 1e-9)
    assert_close(fixed._parameters["weight"], rounded(layer).weight)


def test_compensation_of_a_convolution_moves_outputs_and_their_mean_back() -> None:
    layer, x = nn.Conv2d(8, 8, 3, dtype=torch.float64), spread(4, 8, 6, 6)
    layer.weight.data *= 10
    plain, aware = (compensate(layer, rounded(layer), 3, *data)(x).detach() for data in ((), (x,)))
    y = layer(x).detach()
    assert_below((aware - y).norm(), 0.95 * float((plain - y).norm()), "with inputs against plain SVD")
    fixed = compensate(layer, rounded(layer), 3, x)
    assert_close(fixed(x).mean((0, 2, 3)), layer(x).mean((0, 2, 3)), 1e4)


def test_what_is_compensated_is_not_lost_in_the_bias() -> None:
    layer, x = linear(24, 24).to(torch.bfloat16), spread(200, 24).to(torch.bfloat16)
    coarse, wide, coarse_wide = (nn.Linear(24, 24, dtype=d) for d in (torch.bfloat16, *[torch.float32] * 2))
    coarse.weight.data = (layer.weight.detach() * 8).round() / 8
    layer.bias.data += 1000
    for other, model in ((wide, layer), (coarse_wide, coarse)):
        other.load_state_dict(model.state_dict())
    got = compensate(layer, coarse, 3, x, bias_correction=False).tenfac.named["compensation"]["weight"]
    want = compensate(wide, coarse_wide, 3, x.float(), bias_correction=False)
    assert_relative(got.delta(), want.tenfac.named["compensation"]["weight"].delta(), 1e-4)


def test_what_is_lost_is_measured_in_the_wider_of_two_dtypes() -> None:
    layer, coarse = linear(12, 12).to(torch.bfloat16), linear(12, 12).to(torch.float32)
    coarse.weight.data = layer.weight.detach().float() - 1e-3 * torch.outer(*draws(2, 12).float())
    assert_relative(compensate(layer, coarse, 1).weight, layer.weight.detach().float(), 1e-5)


def test_compensation_gives_a_layer_without_bias_a_frozen_one() -> None:
    layer, other = linear(6, 9), linear(6, 9, seed=1, bias=False)
    x = spread(50, 6)
    fixed = compensate(layer, other, 2, x)
    assert_relative(fixed(x).mean(0), layer(x).mean(0), 1e-10)
    assert_equal([n for n, p in fixed.named_parameters() if not p.requires_grad], ["weight", "bias"])


def merged() -> nn.Module:
    layer = tucker_adapter(linear(8, 8), 2)
    merge(layer)
    return layer


REFUSED = [
    (lambda: compress(nn.Linear(8, 8, device="meta"), 2), DataError, "meta device"),
    (lambda: compress(nn.Embedding(8, 8, max_norm=1.0), 2), ValueError, "max_norm=None"),
    (lambda: compress(linear(8, 8), 2, fisher=torch.full((8, 8), torch.inf)), ShapeError, "finite"),
    (lambda: compress(linear(8, 8), 2, inputs=draws(4, 7)), DataError, "(..., 8) in torch.float64 on cpu"),
    (lambda: compress(linear(8, 8), 2, inputs=torch.ones(4, 8)), DataError, "torch.float32"),
    (lambda: compress(nn.Conv2d(8, 8, 3), 2, inputs=torch.ones(4, 8)), DataError, "(N, 8, H, W)"),
    (lambda: compress(nn.Embedding(8, 8), 2, inputs=torch.tensor([8])), DataError, "rows below 8"),
    (lambda: compress(nn.Embedding(8, 8), 2, inputs=torch.ones(2)), DataError, "rows below 8"),
    (lambda: compensate(linear(8, 8), linear(8, 8), 2, name="a.b"), ValueError, "without dots"),
    (lambda: compensate(linear(8, 8), merged(), 2), ValueError, "unmerge"),
    (lambda: compensate(nn.Conv2d(8, 8, 3, stride=2), nn.Conv2d(8, 8, 3), 2), ShapeError, "stride=(2, 2)"),
    (lambda: compress(linear(8, 8)), RankError, "give one of rank and energy; got neither"),
    (lambda: compress(linear(8, 8), 2, energy=0.5), RankError, "got both"),
    (lambda: compress(linear(8, 8), 9), RankError, "mode 0 (out_features)"),
    (lambda: compress(linear(8, 8), 4), RankError, "fewer numbers than"),
    (lambda: compress(linear(8, 8), energy=1.5), RankError, "between 0 and 1"),
    (lambda: compress(linear(8, 8), 2, metric="activation"), ValueError, "must be one of"),
    (lambda: compress(linear(8, 8), 2, metric="activations"), DataError, "needs `inputs`"),
    (lambda: compress(linear(8, 8), 2, metric="fisher"), DataError, "needs `fisher`"),
    (lambda: compress(linear(8, 8), 2, fisher=torch.ones(8, 7)), ShapeError, "shape (8, 8)"),
    (lambda: compress(linear(8, 8), 2, inputs=draws(4, 8) / 0), DataError, "batch 0 holds NaN or infinity"),
    (lambda: compress(linear(8, 8), 2, inputs=[]), DataError, "batches of tensors"),
    (lambda: compress(nn.Conv2d(8, 8, 7, groups=8), 1), RankError, "depthwise"),
    (lambda: compress(nn.Conv2d(8, 8, 3), (2, 2, 1, None)), RankError, "stay whole"),
    (lambda: compress(nn.LSTM(3, 3), 1), TypeError, "got LSTM"),
    (lambda: compensate(linear(8, 8), linear(8, 9), 2), ShapeError, "(9, 8)"),
    (
        lambda: compensate(
            nn.Conv2d(8, 8, 3, groups=2), nn.Conv2d(8, 8, 3, groups=2), 1, torch.ones(1, 8, 5, 5)
        ),
        ValueError,
        "groups=2",
    ),
]


@pytest.mark.parametrize("case", range(len(REFUSED)))
def test_what_cannot_be_done_is_refused(case: int) -> None:
    call, error, words = REFUSED[case]
    with pytest.raises(error) as caught:
        call()
    assert_says(caught, words)
