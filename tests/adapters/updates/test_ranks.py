"""Ranks from an int, a tuple, a budget, an energy or nothing; and what is refused, with the mode's name."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from tenfac.adapters.build import plan_layer
from tenfac.adapters.updates.layout import layout_of
from tenfac.adapters.updates.ranks import count, mode_energies, n_terms, resolve, slice_energies
from tenfac.adapters.updates.structure import PRESETS, Structure
from tenfac.core.errors import DataError, RankError
from tests.adapters.weights import CASES, Raw, adapted, draw, learned, shake, update_of
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says

CONV = nn.Conv2d(32, 64, 3, groups=2)  # weight (64, 16, 3, 3)


def ranks(layer: nn.Module, rank: object = None, structure: object = "tucker", **how: object) -> tuple:
    return plan_layer(layer, rank, structure=structure, init=None, scale=1.0, **how)[0].ranks


def refused(layer: nn.Module, *args: object, **how: object) -> str:
    """The error's text; the layer must be as it was."""
    kind = type(layer)
    with pytest.raises(RankError, match="tucker_adapter: ") as error:
        ranks(layer, *args, **how)
    assert_equal(type(layer), kind)
    return str(error.value)


# --- forms ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "rank", "want"),
    [
        (CONV, 4, (4, 4, None, None)),
        (CONV, np.int64(4), (4, 4, None, None)),
        (CONV, 16, (16, None, None, None)),
        (CONV, (4, 2, None, 3), (4, 2, None, None)),
        (CONV, [4, None, 2, 1], (4, None, 2, 1)),
        (CONV, np.array([4, 2, 1, 1]), (4, 2, 1, 1)),
        (nn.ConvTranspose2d(32, 64, 3, groups=2), (5, 4, 2, 2), (5, 4, 2, 2)),
        (nn.Embedding(50, 10), (5, 4), (5, 4)),
        (nn.Linear(12, 9), 1, (1, 1)),
        (nn.Conv2d(16, 1, 3), 2, (None, 2, None, None)),
        (nn.Conv2d(32, 32, 7, groups=32), 4, (4, None, None, None)),
        (Raw(4, 12, 9), 2, (None, 2, 2)),
        (Raw(4, 3, 12, 9), 2, (None, None, 2, 2)),
        (Raw(4, 12, 9), (2, 3, 4), (2, 3, 4)),
    ],
    ids=str,
)
def test_a_rank_becomes_one_per_storage_mode(layer: nn.Module, rank: object, want: tuple) -> None:
    assert_equal(ranks(layer, rank), want)


@pytest.mark.parametrize(
    ("structure", "want"),
    [
        ("flora", (4, 4, 3, 3)),
        ("lora", (4, None, None, None)),
        ("s2ft", (4, None, None, None)),
        ("svfit", (4, None, None, None)),
        ("randlora", (4, None, None, None)),
        ("lokr", (4, 4, 1, 1)),
    ],
)
def test_an_int_is_the_rank_of_the_modes_that_a_structure_has_factors_for(
    structure: str, want: tuple
) -> None:
    assert_equal(ranks(CONV, 4, structure), want)


@pytest.mark.parametrize(
    ("shape", "rank", "want"),
    [
        ((12, 10), 4, (4, 2)),
        ((12, 10), 5, (4, 5)),
        ((7, 12), 5, (1, 4)),
        ((12, 10), 99, None),
        ((8, 6), (2, 3), (2, 3)),
    ],
)
def test_the_left_block_of_a_kronecker_core_has_the_largest_divisors(
    shape: tuple[int, int], rank: object, want: tuple | None
) -> None:
    layer = nn.Linear(shape[1], shape[0])
    if want is None:  # the left block would be the weight itself
        assert_says(refused(layer, rank, "lokr"), "fewer numbers than the weight")
    else:
        assert_equal(ranks(layer, rank, "lokr"), want)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_default_learns_at_most_half_of_the_weight_and_at_rank_8_if_it_can(preset: str) -> None:
    for case in CASES:
        layer, _ = draw(case)
        plan = plan_layer(layer, None, structure=preset, init=None, scale=1.0)[0]
        assert_below(plan.n_parameters, plan.layout.numel / 2, f"learned numbers, {case}")
        assert_below(max(r for r in plan.ranks if r is not None), 8, f"rank, {case}")
    big = ranks(nn.Linear(160, 120), structure=preset)
    assert_equal(max(r for r in big if r is not None), 8)


# --- modes ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", ["tucker", "lora", "svfit", "s2ft"])
@pytest.mark.parametrize("modes", [(0,), (0, 1), (0, 2), (0, 1, 2, 3), np.array([3, 0])])
def test_modes_asked_for_get_a_factor_and_no_others(structure: str, modes: tuple[int, ...]) -> None:
    layer = adapted(CONV.double(), 2, structure=structure, modes=modes)
    update = update_of(layer)
    assert_equal(sorted(map(int, update.terms[0].factors)), sorted(int(n) for n in modes))
    assert_equal(update.rank, tuple(2 if n in modes else size for n, size in enumerate((64, 16, 3, 3))))
    plan = plan_layer(CONV, 2, structure=structure, init=None, scale=1.0, modes=modes)[0]
    assert_equal(plan.n_parameters, update.n_trainable)
    shake(update)
    delta = update.delta().detach()
    for n in range(4):
        flat = delta.movedim(n, 0).flatten(1)
        limit = 2 if n in modes else min(flat.shape)
        assert_below(torch.linalg.matrix_rank(flat), limit, f"rank of mode {n}")


def test_a_rank_tuple_gives_factors_to_modes_that_a_structure_leaves_whole() -> None:
    update = update_of(adapted(CONV, (4, 3, 2, 2), structure="lora"))
    assert_equal(sorted(update.terms[0].factors), ["0", "1", "2", "3"])
    assert_equal(update.n_trainable, 4 * 3 * 2 * 2 + 64 * 4 + 16 * 3 + 3 * 2 + 3 * 2)
    assert_equal(len(learned(update)), 5)


# --- budget -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("structure", PRESETS)
@pytest.mark.parametrize("budget", [150, 700, 3000])
def test_a_budget_buys_the_int_rank_with_the_most_numbers_within_it(structure: str, budget: int) -> None:
    layout = layout_of(CONV, "weight")
    affordable = []
    for rank in range(1, 65):
        try:
            found = resolve(layout, PRESETS[structure], CONV.weight, rank=rank, cap=True)
        except RankError:
            continue
        affordable.append(count(layout, PRESETS[structure], found))
    affordable = [n for n in affordable if n <= budget]
    if not affordable:
        assert_says(refused(CONV, None, structure, budget=budget), "budget must be at least", str(budget))
    else:
        plan = plan_layer(CONV, None, structure=structure, init=None, scale=1.0, budget=budget)[0]
        assert_equal(plan.n_parameters, max(affordable))


def test_a_budget_for_a_long_embedding_is_found_without_trying_every_rank() -> None:
    layer = nn.Embedding(50_000, 64, device="meta")
    assert_equal(ranks(layer, budget=200_000), (3, 3))


# --- energy -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("energy", [0.3, 0.5, 0.8])
@pytest.mark.parametrize("structure", ["tucker", "flora", "lora"])
def test_energy_keeps_that_share_of_the_weight_at_the_smallest_ranks_that_do(
    structure: str, energy: float
) -> None:
    layer = nn.Conv2d(12, 20, 3)
    with torch.no_grad():
        layer.weight.mul_((torch.arange(1, 21) ** -1.0)[:, None, None, None])
        layer.weight.mul_((torch.arange(1, 13) ** -1.0)[None, :, None, None])
    weight = layer.weight.detach().double().numpy()
    found = ranks(layer, structure=structure, energy=energy)
    factored = [0] if structure == "lora" else [0, 1] if structure == "tucker" else [0, 1, 2, 3]
    kept = weight
    for n in factored:
        u, s, _ = np.linalg.svd(np.moveaxis(weight, n, 0).reshape(weight.shape[n], -1))
        lost = 1 - np.cumsum(s**2) / np.sum(s**2)
        want = int(np.argmax(lost <= (1 - energy) / len(factored) + 1e-12)) + 1
        assert_equal(found[n] if found[n] is not None else weight.shape[n], want)
        kept = np.moveaxis(np.tensordot(u[:, :want] @ u[:, :want].T, kept, (1, n)), 0, n)
    assert_above(np.sum(kept**2) / np.sum(weight**2), energy, "share kept by the HOSVD")


def test_energies_of_a_mode_are_its_squared_singular_values() -> None:
    weight = torch.randn(5, 3, 4, generator=torch.Generator().manual_seed(0))
    for n in range(3):
        flat = np.moveaxis(weight.double().numpy(), n, 0).reshape(weight.shape[n], -1)
        want = np.zeros(len(flat))
        values = np.linalg.svd(flat)[1] ** 2
        want[: len(values)] = values
        got = mode_energies(weight, n).numpy()
        assert_close(got / got.sum(), want / want.sum())
        rows = slice_energies(weight, n).numpy()
        assert_close(rows / rows.sum(), np.sort((flat**2).sum(1))[::-1] / np.sum(flat**2))


def test_energy_of_a_weight_of_zeros_is_rank_1() -> None:
    layer = nn.Linear(12, 9)
    nn.init.zeros_(layer.weight)
    assert_equal(ranks(layer, energy=0.9), (1, 1))


# --- refusals ---------------------------------------------------------------------------------------------


def test_a_rank_beyond_a_mode_is_refused_with_the_modes_name_and_ranks_that_fit() -> None:
    assert_says(
        refused(CONV, 20),
        "mode 1 (in_channels/groups), which has size 16",
        "at most 16; got 20",
        "rank=(20, 16, None, None)",
    )
    assert_says(
        refused(CONV, (4, 4, 4, 3)), "mode 2 (kernel height), which has size 3", "1..3; got 4", "None"
    )
    assert_says(refused(nn.Embedding(50, 10), 12), "mode 1 (embedding_dim)", "10")
    assert_says(refused(nn.Linear(12, 9), (0, 1)), "mode 0 (out_features)", "1..9; got 0")
    assert_says(refused(Raw(4, 12, 9), 10), "mode 2 (axis 2)", "rank=(None, 10, 9)")


def test_the_ranks_that_a_refusal_proposes_are_accepted() -> None:
    text = refused(nn.Conv2d(64, 200, 3), 80)
    assert_says(text, "rank=(80, 64, None, None)")
    assert_equal(ranks(nn.Conv2d(64, 200, 3), (80, 64, None, None)), (80, None, None, None))


@pytest.mark.parametrize(
    "rank", [True, "8", 2.0, 0.9, (2, True), (2, 2.0), (2, "2"), {"weight": 2}, b"12", (2, math.nan)]
)
def test_a_rank_that_is_no_int_is_refused(rank: object) -> None:
    assert_says(refused(nn.Linear(12, 9), rank), "rank must be an int or one int (or None)", f"got {rank!r}")


def test_a_float_rank_is_told_of_energy_and_no_other_is() -> None:
    assert_says(refused(nn.Linear(12, 9), 0.9), "write energy=0.9")
    assert_equal("energy" in refused(nn.Linear(12, 9), True), False)


def test_ranks_of_wrong_number_are_refused_with_the_modes_names() -> None:
    assert_says(
        refused(CONV, (2, 2)),
        "one entry per storage mode",
        "out_channels, in_channels/groups, kernel height, kernel width",
        "got 2",
    )


@pytest.mark.parametrize("rank", [0, -3])
def test_a_rank_below_1_is_refused(rank: int) -> None:
    assert_says(refused(CONV, rank), f"1 or more; got {rank}")


def test_two_ways_to_say_the_size_are_refused() -> None:
    assert_says(refused(CONV, 4, budget=100), "one of rank, budget and energy; got rank and budget")
    assert_says(refused(CONV, 4, budget=100, energy=0.5), "got rank and budget and energy")
    assert_says(refused(CONV, (4, 4, None, None), modes=(0,)), "`modes` must come with an int rank", "None")


@pytest.mark.parametrize("modes", ["01", 0, (0.0,), (True,), ("0",)])
def test_modes_that_are_no_ints_are_refused(modes: object) -> None:
    assert_says(refused(CONV, 4, modes=modes), "`modes` must be a sequence of ints", f"got {modes!r}")


def test_modes_that_are_not_there_are_refused() -> None:
    assert_says(refused(CONV, 4, modes=(0, 4)), "mode 3 (kernel width)", "got [4]")
    assert_says(refused(CONV, 4, modes=(-1,)), "got [-1]")
    assert_says(refused(CONV, 4, "randlora", modes=(0, 1)), "without mode 1 (in_channels/groups)", "diagonal")
    assert_says(
        refused(CONV, (4, 2, None, None), "randlora"), "mode 1 (in_channels/groups) must be None", "diagonal"
    )


@pytest.mark.parametrize("budget", [0, -1, 10.0, "10", True])
def test_a_budget_that_is_no_count_is_refused(budget: object) -> None:
    assert_says(refused(CONV, budget=budget), "budget must be a number of parameters", repr(budget))


def test_a_budget_too_small_is_refused_with_the_least_that_would_do() -> None:
    least = 9 + 64 + 16
    assert_says(refused(CONV, budget=least - 1), f"at least {least}", f"got {least - 1}")
    assert_equal(ranks(CONV, budget=least), (1, 1, None, None))


@pytest.mark.parametrize("energy", [0, 1.5, -0.1, "0.9", True, math.nan])
def test_an_energy_that_is_no_share_is_refused(energy: object) -> None:
    assert_says(refused(CONV, energy=energy), "energy must be a share in (0, 1]", repr(energy))


def test_energy_is_refused_where_the_rank_does_not_cut_the_weight() -> None:
    assert_says(refused(CONV, None, "lokr", energy=0.5), "Kronecker core", "rank or budget")
    assert_says(refused(CONV, None, "randlora", energy=0.5), "full rank")
    layer = nn.Linear(12, 9)
    with torch.no_grad():
        layer.weight[0, 0] = math.nan
    with pytest.raises(DataError, match="NaN"):
        ranks(layer, energy=0.5)


def test_an_update_as_large_as_the_weight_is_refused_with_both_counts() -> None:
    text = refused(CONV, (60, 16, None, None))
    assert_says(text, f"need {60 * 16 * 9 + 64 * 60}", "(64, 16, 3, 3) has 9216", "Lower the rank")
    assert_says(refused(nn.Linear(1, 5)), "fewer numbers than the weight")


def test_a_block_that_does_not_divide_its_mode_is_refused_with_the_divisors() -> None:
    assert_says(
        refused(nn.Linear(12, 9), (4, 3), "lokr"), "mode 0 (out_features) must divide 9; got 4", "1, 3, 9"
    )


def test_a_scaled_core_has_no_rank_beyond_the_matrix_that_it_cuts() -> None:
    layer = nn.Conv1d(8, 32, 3, groups=8)  # as a matrix, 32 by 3
    assert_says(
        refused(layer, 4, "svfit"), "mode 0 (out_channels), which has size 32 and all others 3", "at most 3"
    )
    assert_equal(ranks(layer, 3, "svfit"), (3, None, None))
    assert_equal(ranks(layer, (None, None, None), "svfit"), (3, None, None))
    assert_says(refused(nn.Linear(12, 9), (4, 2), "svfit"), "product of the other ranks, 2; got 4")


def test_a_sum_of_full_rank_has_as_many_terms_as_it_needs() -> None:
    layout = layout_of(nn.Linear(12, 9), "weight")
    got = [n_terms(layout, PRESETS["randlora"], (r, None)) for r in (1, 2, 4, 9)]
    assert_equal(got, [9, 5, 3, 1])
    assert_equal(n_terms(layout, Structure(), (2, 2)), 1)
