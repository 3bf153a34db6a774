"""Starts of an update: no change, the right directions, the same numbers again, nothing else touched."""

from __future__ import annotations

import math
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tenfac.adapters.build import torch_generator, tucker_adapter
from tenfac.adapters.updates.init import OF_CORE
from tenfac.adapters.updates.layout import layout_of
from tenfac.adapters.updates.subspaces import left_vectors, lower_upper
from tenfac.core.errors import DataError
from tests.adapters.weights import ATTENTION, CASES, adapted, draw, learned, output, shake, update_of
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

pytestmark = pytest.mark.filterwarnings("ignore:init='principal'")
every_init = pytest.mark.parametrize("init", OF_CORE["full"])
every_case = pytest.mark.parametrize("case", CASES)


def gradients(layer: nn.Module) -> Tensor | dict[str, Tensor]:
    """Something of the shape of each weight."""
    rng = torch.Generator().manual_seed(7)
    if not isinstance(layer, nn.MultiheadAttention):
        return torch.randn(layer.weight.shape, generator=rng)
    shapes = {"q": (12, 12), "k": (12, layer.kdim), "v": (12, layer.vdim), "out_proj": (12, 12)}
    return {key: torch.randn(shape, generator=rng) for key, shape in shapes.items()}


def unfolding(weight: Tensor, mode: int) -> np.ndarray:
    return np.moveaxis(weight.detach().double().numpy(), mode, 0).reshape(weight.shape[mode], -1)


def projector(vectors: np.ndarray) -> np.ndarray:
    return vectors @ vectors.T


# --- no change --------------------------------------------------------------------------------------------


@every_init
@pytest.mark.parametrize("case", ["Linear", "Conv2d grouped", "ConvTranspose2d", "Embedding", *ATTENTION])
def test_a_start_changes_nothing(init: str, case: str) -> None:
    layer, inputs = draw(case)
    before = output(layer, inputs).detach()
    after = output(adapted(layer, 2, init=init, data=gradients(layer)), inputs).detach()
    assert_below((after - before).abs().max(), 1e-6, "change of the output")


@pytest.mark.parametrize("init", ["orthonormal", "weight", "principal"])
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16])
def test_factors_have_the_weights_dtype_or_float32(init: str, dtype: torch.dtype) -> None:
    layer = nn.Conv2d(6, 8, 3).to(dtype)
    weight = layer.weight.detach().clone()
    layer = adapted(layer, 2, init=init, data=weight)
    want = torch.promote_types(dtype, torch.float32)
    assert_equal({p.dtype for p in update_of(layer).parameters()}, {want})
    assert_equal(layer._parameters["weight"].detach().double(), weight.double())
    assert_equal(layer.weight.dtype, dtype)
    assert_equal({p.dtype for p in update_of(adapted(nn.Linear(9, 8), 2, dtype=dtype)).parameters()}, {dtype})


@every_init
def test_factors_of_a_bfloat16_weight_are_those_of_float32_up_to_rounding(init: str) -> None:
    torch.manual_seed(1)
    left, right = torch.linalg.qr(torch.randn(8, 8)).Q, torch.linalg.qr(torch.randn(54, 8)).Q
    weight = (left * torch.tensor([8.0, 4, 2, 1, 0.5, 0.25, 0.12, 0.06])) @ right.mT
    layer = nn.Conv2d(6, 8, 3)
    layer.weight = nn.Parameter(weight.reshape(8, 6, 3, 3))
    half = nn.Conv2d(6, 8, 3).bfloat16()
    half.weight = nn.Parameter(layer.weight.detach().bfloat16())
    rank = (2, None, None, None)
    full, small = (
        update_of(adapted(one, rank, init=init, data=one.weight.detach())) for one in (layer, half)
    )
    for name, value in full.state_dict().items():
        assert_relative(small.state_dict()[name], value, 0.06 if init != "weight-minor" else 0.3)


# --- repeatable -------------------------------------------------------------------------------------------


@every_init
def test_a_start_is_repeatable_and_leaves_the_global_generator_alone(init: str) -> None:
    layer = nn.Conv2d(6, 8, 3)
    state = torch.random.get_rng_state()
    first, again, other = (
        update_of(adapted(layer, 2, init=init, data=layer.weight.detach(), random_state=seed)).state_dict()
        for seed in (3, 3, 4)
    )
    assert_equal(torch.random.get_rng_state(), state)
    for name, value in first.items():
        assert_equal(again[name], value)
    same = all(torch.equal(other[name], value) for name, value in first.items())
    assert_equal(same, init not in ("orthonormal", "flora", "lora"))


def test_attention_draws_other_numbers_for_every_weight() -> None:
    layer = adapted(nn.MultiheadAttention(12, 3), 2)
    q, k = (update_of(layer, slot).terms[0].factors["0"].matrix for slot in "qk")
    assert_above((q - k).detach().abs().max(), 1e-2, "difference of the factors")


# --- directions -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("init", ["weight", "weight-minor", "gradient"])
@every_case
def test_factors_span_singular_vectors_of_every_unfolding(init: str, case: str) -> None:
    layer, _ = draw(case)
    data = gradients(layer)
    update = update_of(adapted(layer.double(), 3, init=init, data=data))
    source = data if init == "gradient" else layer.weight
    for mode, factor in update.terms[0].factors.items():
        u, _, _ = np.linalg.svd(unfolding(source, int(mode)))
        want = u[:, -3:] if init == "weight-minor" else u[:, :3]
        got = factor.matrix.detach().numpy()
        if init == "weight-minor":  # a tall unfolding has more directions that it lacks than are wanted
            energy = np.linalg.norm(want.T @ unfolding(source, int(mode)))
            assert_close(np.linalg.norm(got.T @ unfolding(source, int(mode))), energy, factor=1e7, scale=1)
        else:
            assert_close(projector(got), projector(want), factor=1e6)
        assert_close(got.T @ got, np.eye(3))
    assert_equal(len(update.terms[0].factors), 2)


@every_case
def test_orthonormal_factors_are_orthonormal_and_the_core_is_zero(case: str) -> None:
    update = update_of(adapted(draw(case)[0].double(), 3))
    for factor in update.terms[0].factors.values():
        assert_close(factor.matrix.detach().mT @ factor.matrix.detach(), torch.eye(3, dtype=torch.float64))
    core = update.terms[0].core.tensor.detach()
    assert_equal(core, torch.zeros_like(core))


def test_flora_factors_are_torchs_kaiming_normal_of_their_own_shape() -> None:
    update = update_of(
        adapted(nn.Conv2d(64, 96, 5).double(), (8, 4, 2, 2), structure="flora", random_state=5)
    )
    rng = torch_generator(5)
    for mode, (size, rank) in enumerate([(96, 8), (64, 4), (5, 2), (5, 2)]):
        want = torch.empty(size, rank, dtype=torch.float64)
        nn.init.kaiming_normal_(want, a=math.sqrt(3), generator=rng)
        assert_close(update.terms[0].factors[str(mode)].matrix.detach(), want)
    assert_equal(float(update.terms[0].core.tensor.detach().abs().max()), 0.0)
    assert_equal(update.terms[0].scale, 1.0)


def test_flora_is_multiplied_by_scale_alone() -> None:
    layer = adapted(nn.Linear(12, 9).double(), 2, structure="flora", scale=4.0)
    update = update_of(layer)
    shake(update)
    core, out, into = (
        update.terms[0].core.tensor,
        update.terms[0].factors["0"].matrix,
        update.terms[0].factors["1"].matrix,
    )
    assert_close(update.delta().detach(), (4.0 * out @ core @ into.mT).detach())


def test_lora_is_drawn_within_the_bounds_of_kaiming_uniform() -> None:
    update = update_of(adapted(nn.Conv2d(32, 64, 3), 8, structure="lora"))
    bound = 1 / math.sqrt(32 * 9)  # kaiming_uniform with a = sqrt(5) of a convolution from 32 channels
    core = update.terms[0].core.tensor.detach()
    assert_below(core.abs().max(), bound, "largest entry")
    assert_above(core.abs().max(), 0.99 * bound, "largest entry")
    assert_equal(float(update.terms[0].factors["0"].matrix.detach().abs().max()), 0.0)


def test_a_lora_start_without_an_output_factor_has_a_zero_core() -> None:
    update = update_of(adapted(nn.Conv2d(6, 8, 3), (None, 2, 2, None), init="lora"))
    assert_equal(update.delta().detach().abs().max(), torch.tensor(0.0))
    assert_above(update.terms[0].factors["1"].matrix.detach().abs().max(), 1e-3, "factor")


@every_case
def test_the_principal_start_trains_the_projection_of_the_weight_and_warns(case: str) -> None:
    layer, _ = draw(case)
    weight = layer.double().weight.detach().clone()
    with pytest.warns(UserWarning, match="init='principal'"):
        layer = adapted(layer, 3, init="principal", scale=2.0)
    update = update_of(layer)
    want = weight.numpy()
    for mode in map(int, update.terms[0].factors):
        u = np.linalg.svd(unfolding(weight, mode))[0][:, :3]
        want = np.moveaxis(np.tensordot(projector(u), want, (1, mode)), 0, mode)
    assert_close(update.terms[0].delta(update.layout).detach().numpy(), want, factor=1e6)
    assert_equal(learned(update.terms[1]), {})
    assert_equal(layer._parameters["weight"].detach(), weight)


# --- hard weights -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("structure", "init"),
    [("tucker", "weight"), ("tucker", "principal"), ("svfit", "weight"), ("loldu", "lu"), ("s2ft", "weight")],
)
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_a_weight_that_is_not_finite_is_refused_where_it_is_read(
    structure: str, init: str, bad: float
) -> None:
    layer = nn.Linear(12, 9)
    with torch.no_grad():
        layer.weight[2, 3] = bad
    with pytest.raises(DataError) as error:
        tucker_adapter(layer, 2, structure=structure, init=init)
    assert_says(error, f"init={init!r}", "finite", "orthonormal")
    assert_equal((type(layer), layer.weight.requires_grad), (nn.Linear, True))
    assert_equal(update_of(tucker_adapter(layer, 2)).rank, (2, 2))


@pytest.mark.parametrize("structure", ["tucker", "lora", "pissa", "svfit", "loldu"])
@pytest.mark.parametrize("init", ["weight", "weight-minor", "principal", "gradient", "lu"])
def test_a_weight_of_zeros_starts_finite_and_can_be_trained(structure: str, init: str) -> None:
    core = "scaled" if structure in ("svfit", "loldu") else "full"
    if init not in OF_CORE[core]:
        with pytest.raises(ValueError, match="`init` must be one of"):
            adapted(nn.Linear(12, 9), 2, structure=structure, init=init)
        return
    layer = nn.Linear(12, 9)
    nn.init.zeros_(layer.weight)
    layer = adapted(layer, 2, structure=structure, init=init, data=torch.zeros(9, 12))
    x = torch.randn(5, 12)
    layer(x).square().sum().backward()
    assert_equal([n for n, p in layer.named_parameters() if not bool(torch.isfinite(p).all())], [])
    assert_above(sum(float(p.grad.abs().sum()) for p in learned(layer).values()), 1e-6, "gradient")


@pytest.mark.parametrize("size", [1e-200, 1e200])
def test_a_weight_of_extreme_size_has_the_same_directions(size: float) -> None:
    layer = nn.Linear(12, 9).double()
    want = update_of(adapted(layer, 2, init="weight"))
    with torch.no_grad():
        layer.weight *= size
    got = update_of(adapted(layer, 2, init="weight"))
    for mode in "01":
        assert_close(
            got.terms[0].factors[mode].matrix.detach(), want.terms[0].factors[mode].matrix.detach(), 1e5
        )


@pytest.mark.parametrize(
    "structure", ["tucker", "lora", "flora", "pissa", "svfit", "loldu", "randlora", "s2ft"]
)
@pytest.mark.parametrize("path", ["factored", "fused"])
def test_the_padding_row_of_an_embedding_never_changes(structure: str, path: str) -> None:
    layer = nn.Embedding(15, 10, padding_idx=3)
    base = layer.weight.detach().clone()
    layer = adapted(layer, 2, structure=structure, path=path)
    x = torch.arange(15)
    for _ in range(3):
        layer.zero_grad()
        (layer(x) - 1).square().sum().backward()
        with torch.no_grad():
            for p in learned(layer).values():
                p -= 0.1 * p.grad
    assert_equal(layer.weight.detach()[3], base[3])
    assert_above((layer.weight.detach() - base).abs().max(), 1e-4, "change elsewhere")


# --- subspaces --------------------------------------------------------------------------------------------


def test_the_sketch_of_a_large_mode_finds_its_leading_vectors() -> None:
    rng = torch.Generator().manual_seed(0)
    left = torch.linalg.qr(torch.randn(1200, 40, generator=rng)).Q
    right = torch.linalg.qr(torch.randn(1100, 40, generator=rng)).Q
    weight = (left * torch.arange(1, 41) ** -0.5) @ right.mT
    state = torch.random.get_rng_state()
    got = left_vectors(weight, 0, 6)
    assert_equal(torch.random.get_rng_state(), state)
    assert_close(got.mT @ got, torch.eye(6, dtype=torch.float64))
    assert_close((got.mT @ left.double()).abs(), torch.eye(6, 40, dtype=torch.float64), factor=2e12)
    kept = float((got.mT @ weight.double()).square().sum())
    assert_relative(np.array(kept), np.array(sum(1 / k for k in range(1, 7))), 1e-6)


def test_vectors_of_an_unfolding_taller_than_wide_are_completed() -> None:
    weight = torch.randn(9, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    u = np.linalg.svd(weight.numpy())[0]
    for rank in (2, 4, 6, 9):
        got = left_vectors(weight, 0, rank)
        assert_close(got.mT @ got, torch.eye(rank, dtype=torch.float64))
        assert_close(projector(got[:, : min(rank, 4)].numpy()), projector(u[:, : min(rank, 4)]), factor=1e4)
    for rank in (2, 5, 7):
        minor = left_vectors(weight, 0, rank, minor=True)
        assert_close(minor.mT @ minor, torch.eye(rank, dtype=torch.float64))
        missed = (minor[:, -min(rank, 5) :].mT @ weight).norm()
        assert_below(missed, 1e-7, "weight along directions that it does not have")


def test_the_first_columns_and_rows_of_lu_need_no_more_than_those_columns() -> None:
    matrix = torch.randn(50, 30, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    p, lower, upper = torch.linalg.lu(matrix)
    columns, rows = lower_upper(matrix, 7)
    assert_close(columns, (p @ lower)[:, :7], factor=1e4)
    assert_close(rows, upper[:7] / upper.diagonal()[:7, None], factor=1e4)


def test_the_sign_of_every_vector_is_fixed_by_its_largest_entry() -> None:
    got = left_vectors(torch.randn(8, 20, generator=torch.Generator().manual_seed(0)), 0)
    assert_above(got.gather(0, got.abs().argmax(0, keepdim=True)).min(), 0.0, "largest entries")


# --- no values yet ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "structure", ["tucker", "flora", "lora", "lokr", "pissa", "svfit", "randlora", "s2ft"]
)
def test_a_layer_on_the_meta_device_is_adapted_and_loaded_later(structure: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layer = nn.Conv2d(6, 8, 3)
        real = adapted(layer, 2, structure=structure)
        shake(real)
        empty = tucker_adapter(nn.Conv2d(6, 8, 3, device="meta"), 2, structure=structure)
    assert_equal({p.is_meta for p in [*empty.parameters(), *empty.buffers()]}, {True})
    assert_equal(update_of(empty).n_trainable, update_of(real).n_trainable)
    empty = empty.to_empty(device="cpu")
    empty.load_state_dict(real.state_dict())
    x = torch.randn(2, 6, 5, 5)
    assert_equal(empty(x).detach(), real(x).detach())


def test_energy_of_a_layer_on_the_meta_device_is_refused() -> None:
    with pytest.raises(DataError) as error:
        tucker_adapter(nn.Linear(12, 9, device="meta"), energy=0.9)
    assert_says(error, "meta", "Give rank")


# --- gradients --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "parts"),
    [
        (torch.zeros(12, 9), ("(9, 12)", "(12, 9)")),
        (torch.full((9, 12), math.nan), ("finite", "NaN")),
        (torch.zeros(9, 12, dtype=torch.int64), ("floating-point", "int64")),
        (3.0, ("tensor", "float")),
        ({"bias": torch.zeros(9)}, ("'weight'", "['bias']")),
        (None, ("needs `data`",)),
    ],
)
def test_a_gradient_that_does_not_fit_is_refused(data: object, parts: tuple[str, ...]) -> None:
    layer = nn.Linear(12, 9)
    with pytest.raises(ValueError, match="data") as error:
        tucker_adapter(layer, 2, init="gradient", data=data)
    assert_says(error, "tucker_adapter:", *parts)
    assert_equal(type(layer), nn.Linear)


def test_attention_takes_one_gradient_per_weight() -> None:
    layer = nn.MultiheadAttention(12, 3, kdim=8)
    data = {"q": torch.randn(12, 12), "k": torch.randn(12, 8), "v": torch.randn(12, 12)}
    with pytest.raises(ValueError, match="'out_proj'"):
        tucker_adapter(layer, 2, init="gradient", data=data)
    with pytest.raises(ValueError, match="map each weight of attention"):
        tucker_adapter(layer, 2, init="gradient", data=data["q"])
    assert_equal(type(layer), nn.MultiheadAttention)
    layer = tucker_adapter(layer, 2, init="gradient", data={**data, "out_proj": torch.randn(12, 12)})
    u = np.linalg.svd(unfolding(data["k"], 1))[0][:, :2]
    got = update_of(layer, "k").terms[0].factors["1"].matrix.detach().double().numpy()
    assert_close(projector(got), projector(u), factor=1e10)


def test_layouts_of_the_cases_cover_every_kind() -> None:
    kinds = {layout_of(draw(case)[0], "weight").kind for case in CASES}
    assert_equal(kinds, {"linear", "conv", "conv_transpose", "embedding", "parameter"})
