"""Presets and structures: what they learn, how much, and the dense formula each stands for."""

from __future__ import annotations

import math
import re
import warnings

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from tenfac.adapters.build import plan_layer
from tenfac.adapters.updates import structure as module
from tenfac.adapters.updates.layout import Layout, layout_of
from tenfac.adapters.updates.structure import PRESETS, Structure, structure_of
from tenfac.adapters.updates.update import Update
from tests.adapters.weights import ATTENTION, CASES, adapted, draw, learned, output, shake, update_of
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_relative, assert_says

pytestmark = pytest.mark.filterwarnings("ignore:init='principal'")
RANK = 2
every_preset = pytest.mark.parametrize("preset", PRESETS)
every_case = pytest.mark.parametrize("case", CASES)
some_cases = pytest.mark.parametrize(
    "case", ["Linear", "Conv2d grouped", "ConvTranspose2d", "Embedding", "experts"]
)


def planned(layer: nn.Module, **how: object) -> int:
    how = {"structure": "tucker", "init": None, "scale": 1.0, **how}
    return sum(plan.n_parameters for plan in plan_layer(layer, how.pop("rank", RANK), **how))


def sizes(layout: Layout) -> tuple[int, int, list[int]]:
    return layout.shape[layout.out], layout.shape[layout.into], [layout.shape[n] for n in layout.rest]


# --- how much is learned -----------------------------------------------------------------------------------


def formula(preset: str, layout: Layout) -> int:
    """Numbers that a method learns at rank 2, from its paper."""
    o, i, rest = sizes(layout)
    k, r = math.prod(rest), RANK
    lora = r * (o + i * k)
    tucker = r * r * k + o * r + i * r
    if preset == "lokr":
        left = [r if size % r == 0 else 1 for size in (o, i)]
        return math.prod(left) + o * i * k // math.prod(left)
    if preset == "flora":
        small = [min(size, r) for size in rest]
        squares = sum(size * s for size, s in zip(rest, small, strict=True) if size > 1)
        return r * r * math.prod(small) + o * r + i * r + squares
    return {
        "tucker": tucker,
        "lora": lora,
        "locon": tucker if k > 1 else lora,
        "pissa": lora,
        "svfit": r,
        "loldu": r,
        "randlora": math.ceil(min(o, i * k) / r) * (r + i),
        "s2ft": r * i * k,
    }[preset]


@every_preset
def test_a_preset_learns_as_many_numbers_as_its_method_and_as_was_planned(preset: str) -> None:
    layers = {case: draw(case)[0] for case in CASES}
    want = {case: formula(preset, layout_of(layer, "weight")) for case, layer in layers.items()}
    assert_equal({case: planned(layer, structure=preset) for case, layer in layers.items()}, want)
    updates = {case: update_of(adapted(layer, RANK, structure=preset)) for case, layer in layers.items()}
    assert_equal({case: update.n_trainable for case, update in updates.items()}, want)


def test_the_count_of_an_update_of_a_large_convolution_is_a_quarter_of_lora() -> None:
    assert_equal(planned(nn.Conv2d(256, 256, 3), rank=8), 4672)
    assert_equal(planned(nn.Conv2d(256, 256, 3), rank=8, structure="lora"), 20480)


# --- start and training -----------------------------------------------------------------------------------


@every_preset
@pytest.mark.parametrize("case", ["Linear", "Conv2d grouped", "ConvTranspose2d", "Embedding", *ATTENTION])
def test_a_preset_changes_nothing_at_first_and_moves_every_learned_number_after_a_step(
    preset: str, case: str
) -> None:
    layer, inputs = draw(case)
    before = output(layer, inputs).detach()
    layer = adapted(layer, RANK, structure=preset)
    change = (output(layer, inputs) - before).detach().abs().max()
    assert_below(change, 1e-6, "change of the output at the start")
    numbers = learned(layer)
    for step in range(2):
        layer.zero_grad()
        y = output(layer, inputs)
        (y * torch.linspace(-1, 2, y.numel()).reshape(y.shape)).sum().backward()
        if step == 0:
            assert_above(sum(float(p.grad.abs().sum()) for p in numbers.values()), 1e-6, "first gradient")
            with torch.no_grad():
                for p in numbers.values():
                    p -= 0.1 * p.grad
    still = [name for name, p in numbers.items() if float(p.grad.abs().max()) == 0]
    assert_equal(still, [])
    change = (output(layer, inputs) - before).detach().abs().max()
    assert_above(change, 1e-6, "effect of one step")


# --- the dense formula ------------------------------------------------------------------------------------


def canonical(tensor: Tensor, layout: Layout) -> Tensor:
    """Axes in the order output, input, the others."""
    return tensor.permute(layout.out, layout.into, *layout.rest)


def dense(preset: str, update: Update) -> Tensor:
    """The update as its paper writes it, output mode first."""
    layout = update.layout
    total = 0
    for term in update.terms:
        parts = {name: value.double() for name, value in term.state_dict().items()}
        matrix = {n: parts.get(f"factors.{n}.matrix") for n in range(len(layout.shape))}
        out, into = matrix[layout.out], matrix[layout.into]
        if preset == "lokr":
            return update.terms[0].scale * canonical(
                torch.kron(parts["core.left"], parts["core.right"]), layout
            )
        core = canonical(parts["core.tensor"], layout)
        if preset in ("svfit", "loldu"):
            value = torch.einsum("op,p,p...->o...", out, parts["core.scales"], core)
        elif preset == "randlora":
            gamma = parts[f"factors.{layout.into}.scales"]
            value = torch.einsum("op,p,pi...,i->oi...", out, parts["core.scales"], core, gamma)
        elif preset == "s2ft":
            value = torch.zeros([layout.shape[n] for n in (layout.out, layout.into, *layout.rest)]).double()
            value[parts[f"factors.{layout.out}.index"].long()] = core
        elif into is None:
            value = torch.einsum("op,p...->o...", out, core)
        else:
            value = torch.einsum("op,iq,pq...->oi...", out, into, core)
        for axis, n in enumerate(layout.rest, start=2):
            if matrix[n] is not None:
                value = torch.einsum("kr,...r->...k", matrix[n], value.movedim(axis, -1)).movedim(-1, axis)
        total = total + term.scale * value
    return total


@every_preset
@every_case
def test_the_update_of_a_preset_is_its_dense_formula(preset: str, case: str) -> None:
    layer = adapted(draw(case)[0].double(), RANK, structure=preset, scale=0.7)
    update = update_of(layer)
    shake(update)
    got = canonical(update.delta(), update.layout)
    got = got.detach()
    assert_above(got.abs().max(), 1e-3, "size of the update")
    assert_close(got, dense(preset, update))


@every_preset
@pytest.mark.parametrize("case", ["ConvTranspose2d", "experts"])
def test_the_tucker_of_an_update_is_detached_and_equals_its_delta(preset: str, case: str) -> None:
    layer = adapted(draw(case)[0], RANK, structure=preset, scale=0.7)
    shake(layer)
    update = update_of(layer)
    tucker = update.tucker()
    assert_equal(tucker.core.requires_grad, False)
    assert_close(tucker.to_tensor(), update.delta().detach())
    with torch.no_grad():
        next(iter(learned(update).values())).zero_()
    assert_above(
        (tucker.to_tensor() - update.delta().detach()).abs().max(), 1e-4, "change after the copy was taken"
    )


def matricised(weight: Tensor, layout: Layout) -> np.ndarray:
    return weight.movedim(layout.out, 0).flatten(1).detach().double().numpy()


@some_cases
def test_svfit_scales_leading_singular_vectors_of_the_weight(case: str) -> None:
    layer, _ = draw(case)
    update = update_of(adapted(layer.double(), 3, structure="svfit"))
    u, _, vt = np.linalg.svd(matricised(layer.weight, update.layout), full_matrices=False)
    with torch.no_grad():
        update.terms[0].core.scales.copy_(torch.tensor([1.0, 2.0, 3.0]))
    want = (u[:, :3] * [1, 2, 3]) @ vt[:3]
    assert_close(matricised(update.delta(), update.layout), want, factor=1e6)


@every_case
def test_loldu_scales_leading_columns_and_rows_of_the_lu_factors_of_the_weight(case: str) -> None:
    layer, _ = draw(case)
    update = update_of(adapted(layer.double(), 3, structure="loldu"))
    p, lower, upper = torch.linalg.lu(torch.from_numpy(matricised(layer.weight, update.layout)))
    with torch.no_grad():
        update.terms[0].core.scales.copy_(upper.diagonal()[:3])
    want = ((p @ lower)[:, :3] @ upper[:3]).numpy()
    assert_close(matricised(update.delta(), update.layout), want, factor=1e4)


@some_cases
def test_pissa_trains_the_leading_singular_part_of_the_weight_balanced(case: str) -> None:
    layer, _ = draw(case)
    update = update_of(adapted(layer.double(), 3, structure="pissa", scale=2.0))
    u, s, vt = np.linalg.svd(matricised(layer.weight, update.layout), full_matrices=False)
    first = update.terms[0]
    got = matricised(first.delta(update.layout), update.layout)
    assert_close(got, (u[:, :3] * s[:3]) @ vt[:3], factor=1e5)
    lengths = first.factors[str(update.layout.out)].matrix.detach().norm(dim=0)
    assert_close(lengths.square().numpy(), s[:3] / 2, factor=1e5)  # the scale is 2
    assert_equal(learned(update.terms[1]), {})


@pytest.mark.parametrize("case", ["Linear", "Conv2d", "ConvTranspose2d", "Embedding"])
def test_randlora_is_of_full_rank(case: str) -> None:
    update = update_of(adapted(draw(case)[0].double(), RANK, structure="randlora"))
    shake(update)
    matrix = matricised(update.delta(), update.layout)
    assert_equal(np.linalg.matrix_rank(matrix), min(matrix.shape))


def test_randlora_has_one_frozen_core_and_orthonormal_bases() -> None:
    update = update_of(adapted(nn.Linear(12, 9).double(), 4, structure="randlora"))
    assert_equal(len(update.terms), 3)
    eye = torch.eye(4, dtype=torch.float64)
    for term in update.terms:
        assert_equal(term.core.tensor, update.terms[0].core.tensor)
        assert_close(term.factors["0"].matrix.mT @ term.factors["0"].matrix, eye)
        assert_close(term.core.tensor @ term.core.tensor.mT, eye)
    first, second = (term.factors["0"].matrix for term in update.terms[:2])
    assert_above((first - second).abs().max(), 1e-3, "difference of two bases")


def test_s2ft_changes_its_rows_and_no_others() -> None:
    layer = adapted(nn.Conv2d(6, 8, 3), 3, structure="s2ft")
    update = update_of(layer)
    shake(update)
    changed = update.delta().abs().flatten(1).sum(1) > 0
    assert_equal(changed.nonzero().flatten(), update.terms[0].factors["0"].index)
    assert_equal(int(changed.sum()), 3)


def test_a_selection_takes_the_rows_that_its_start_asks_for() -> None:
    layer = nn.Linear(4, 6)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([3.0, 0, 5, 1, 4, 2])[:, None].expand(6, 4))
    index = {
        init: update_of(adapted(layer, 2, structure="s2ft", init=init)).terms[0].factors["0"].index.tolist()
        for init in ("weight", "weight-minor")
    }
    assert_equal(index, {"weight": [2, 4], "weight-minor": [1, 3]})
    ranks = update_of(adapted(layer, structure="s2ft", energy=0.7)).rank
    assert_equal(ranks, (2, 4))  # rows 25 + 16 of 55 keep 0.75


# --- gradients --------------------------------------------------------------------------------------------

KINDS = {
    "full core": "tucker",
    "whole input mode": "lora",
    "kernel factors": "flora",
    "Kronecker core": "lokr",
    "scaled core": "svfit",
    "two terms": "pissa",
    "scaled cores and diagonals": "randlora",
    "selection": "s2ft",
    "diagonals alone": Structure(core="full", out="diagonal", into="dense", rest="diagonal"),
    "selection of inputs": Structure(out="dense", into="selection"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_gradient_of_the_update_is_right_for_every_kind_of_core_and_factor(kind: str) -> None:
    torch.manual_seed(0)
    update = update_of(adapted(nn.Conv1d(4, 4, 3).double(), 2, structure=KINDS[kind], scale=0.5))
    shake(update)
    names = list(learned(update))

    def delta(*values: Tensor) -> Tensor:
        return torch.func.functional_call(
            _Delta(update), {f"update.{n}": v for n, v in zip(names, values, strict=True)}, ()
        )

    assert torch.autograd.gradcheck(delta, tuple(learned(update).values()))


class _Delta(nn.Module):
    def __init__(self, update: Update) -> None:
        super().__init__()
        self.update = update

    def forward(self) -> Tensor:
        return self.update.delta()


# --- words ------------------------------------------------------------------------------------------------


def test_the_table_has_every_preset_with_its_paper() -> None:
    rows = re.findall(r"^(\w+) +arXiv (\d{4}\.\d{5}) ", module.__doc__, flags=re.MULTILINE)
    assert_equal([name for name, _ in rows], list(PRESETS))


def test_locon_has_a_core_of_its_own_only_where_there_is_a_kernel() -> None:
    linear, conv = nn.Linear(12, 9), nn.Conv2d(6, 8, 3)
    assert_equal(update_of(adapted(linear, 2, structure="locon")).rank, (2, 12))
    assert_equal(update_of(adapted(conv, 2, structure="locon")).rank, (2, 2, 3, 3))
    assert_equal(update_of(adapted(linear, 2, structure=PRESETS["locon"])).rank, (2, 2))


def test_a_structure_of_ones_own_equals_the_preset_of_the_same_words() -> None:
    layer = nn.Conv2d(6, 8, 3)
    own = update_of(adapted(layer, 2, structure=Structure(into="identity", init="lora")))
    preset = update_of(adapted(layer, 2, structure="lora"))
    for name, value in preset.state_dict().items():
        assert_equal(own.state_dict()[name], value)
    assert_equal(own.recipe["structure"]["into"], "identity")
    assert_equal(preset.recipe["structure"], "lora")


@pytest.mark.parametrize(
    ("fields", "parts"),
    [
        ({"core": "diag"}, ("`core`", "'full', 'scaled', 'kronecker'", "'diag'")),
        ({"rest": "none"}, ("`rest`", "identity", "'none'")),
        ({"core": "kronecker"}, ("Kronecker", "`out`", "'dense'")),
        ({"core": "scaled", "out": "identity"}, ("out='dense'", "'identity'")),
        ({"full_rank": True}, ("full_rank", "scaled")),
    ],
)
def test_a_structure_that_cannot_be_is_refused(fields: dict[str, object], parts: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match="Structure") as error:
        Structure(**fields)
    assert_says(error, "Structure:", *parts)


@pytest.mark.parametrize(("word", "near"), [("lorra", "lora"), ("Tucker", "tucker"), ("s2f", "s2ft")])
def test_an_unknown_structure_is_refused_with_the_nearest_name(word: str, near: str) -> None:
    with pytest.raises(ValueError, match="structure") as error:
        structure_of(word)
    assert_says(error, "randlora", repr(word), f"Did you mean {near!r}?")
    with pytest.raises(ValueError, match="structure") as error:
        structure_of(None)
    assert_says(error, "None")


def test_the_principal_start_warns() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adapted(nn.Linear(12, 9), 2, structure="pissa")
    assert_equal(len(caught), 1)
    assert_says(caught[0].message, "init='principal'", "orthonormal")


def test_a_kronecker_start_is_one_of_lycoris() -> None:
    update = update_of(adapted(nn.Conv2d(8, 12, 3), 4, structure="lokr"))
    core = update.terms[0].core
    assert_equal((tuple(core.left.shape), tuple(core.right.shape)), ((4, 4, 1, 1), (3, 2, 3, 3)))
    assert_equal(update.rank, (4, 4, 1, 1))
    assert_equal(core.right.detach(), torch.zeros(3, 2, 3, 3))
    assert_below(core.left.detach().abs().max(), 0.5, "largest entry, 1/sqrt(fan-in)")
    assert_relative(core.left.detach().std(), torch.tensor(0.5 / 3**0.5), 0.4)
