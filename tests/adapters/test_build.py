"""``tucker_adapter`` on one layer: what it keeps, what it refuses before anything is touched."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
from torch import nn

import tenfac
from tenfac.adapters import build
from tenfac.adapters.build import plan_layer, tucker_adapter
from tenfac.adapters.checks import check_name
from tenfac.adapters.layer import merge_layer
from tenfac.adapters.updates.init import draw_terms
from tenfac.core.errors import DataError, RankError
from tests.adapters.weights import Raw, adapted, draw, learned, output, shake, update_of
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says


def refused(layer: nn.Module, *args: object, error: type[Exception] = ValueError, **how: object) -> str:
    """The error's text; class, keys, flags and numbers of the layer must be as they were."""
    before = (type(layer), list(layer.state_dict()), [p.requires_grad for p in layer.parameters()])
    numbers = {
        name: value.clone()
        for name, value in layer.state_dict().items()
        if isinstance(value, torch.Tensor) and not nn.parameter.is_lazy(value)
    }
    with pytest.raises(error, match="tucker_adapter: ") as caught:
        tucker_adapter(layer, *args, **how)
    assert_equal(
        (type(layer), list(layer.state_dict()), [p.requires_grad for p in layer.parameters()]), before
    )
    for name, value in numbers.items():
        if value.layout == torch.strided:
            assert_equal(layer.state_dict()[name], value)
    return str(caught.value)


# --- what stays -------------------------------------------------------------------------------------------


def test_the_adapted_layer_is_the_same_object_of_a_subclass_with_its_keys() -> None:
    layer = nn.Conv2d(6, 8, 3)
    keys = list(layer.state_dict())
    got = tenfac.tucker_adapter(layer, 2)
    assert got is layer
    assert_equal(isinstance(got, nn.Conv2d), True)
    assert_equal(list(got.state_dict())[: len(keys)], keys)
    rest = {key.rpartition(".terms.")[0] for key in list(got.state_dict())[len(keys) :]}
    assert_equal(rest, {"tenfac.named.default.weight"})
    assert_equal(sorted(learned(got)), sorted(k for k in got.state_dict() if k not in keys))


@pytest.mark.parametrize(
    "layer",
    [nn.Conv2d(8, 6, 1, bias=False), nn.Linear(12, 9, bias=False), nn.Conv1d(6, 1, 5), nn.Conv1d(1, 8, 5)],
    ids=str,
)
def test_rank_1_whole_modes_and_missing_bias_are_fine(layer: nn.Module) -> None:
    base = layer.weight.detach().clone()
    layer = tucker_adapter(layer, 1)
    update = update_of(layer)
    shake(update)
    assert_equal(max(update.rank[:2]), 1)
    assert_close(layer.weight.detach(), base + update.tucker().to_tensor())


def test_a_plan_tells_the_count_of_every_weight_of_attention() -> None:
    layer = nn.MultiheadAttention(12, 3, kdim=8, add_bias_kv=True)
    plans = plan_layer(layer, 2, structure="tucker", init=None, scale=1.0)
    assert_equal({plan.key: plan.n_parameters for plan in plans}, {"q": 52, "k": 44, "v": 52, "out_proj": 52})
    layer = tucker_adapter(layer, 2)
    assert_equal(sum(p.numel() for p in learned(layer).values()), 200)
    assert_equal(all(".terms." in name for name in learned(layer)), True)


def test_two_names_add_up_and_each_is_its_own() -> None:
    layer, inputs = draw("Conv2d")
    plain = output(layer, inputs).detach()
    base = layer.weight.detach().clone()
    layer = tucker_adapter(layer, 2)
    layer = tucker_adapter(layer, 3, name="second", structure="lora")
    shake(layer)
    both = update_of(layer).delta() + update_of(layer, name="second").delta()
    assert_close(layer.weight.detach(), (base + both).detach())
    assert_above((output(layer, inputs) - plain).detach().abs().max(), 1e-3, "effect")


def test_a_raw_parameter_is_adapted_by_name_even_one_called_like_a_method_of_dictionaries() -> None:
    class Memory(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.keys = nn.Parameter(torch.ones(4, 9, 8))
            self.values = nn.Parameter(torch.ones(9, 8))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.keys.sum(0) + self.values

    layer = Memory()
    layer = tucker_adapter(layer, 2, parameter="keys")
    layer = tucker_adapter(layer, 2, parameter="values")
    assert_equal(sorted(layer.tenfac.named["default"]), ["keys_", "values_"])
    x = torch.zeros(9, 8)
    before = layer(x).detach()
    shake(layer)
    assert_above((layer(x) - before).detach().abs().max(), 1e-3, "effect")
    assert_equal("keys" in layer.state_dict(), True)


def test_one_rank_per_slot_counts_of_stacked_experts_leave_the_stack_whole() -> None:
    update = update_of(adapted(Raw(5, 12, 9), 2))
    assert_equal((update.rank, update.n_trainable), ((5, 2, 2), 5 * 4 + 12 * 2 + 9 * 2))


# --- weights that cannot be adapted -----------------------------------------------------------------------


def test_a_module_without_a_weight_is_refused_with_what_could_be_given() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.scale = nn.Parameter(torch.ones(3, 4)), nn.Parameter(torch.ones(3))

    assert_says(refused(Two()), "'weight'", "Two", "`parameter=`: first.")
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Linear(4, 4))
    assert_says(refused(net), "Sequential", "(0, 2)", "tenfac.adapt")
    assert_says(refused(nn.ReLU()), "ReLU without any weight")
    assert_says(refused(nn.Linear(12, 9), parameter="w"), "'w'", "weight")
    assert_says(refused(nn.MultiheadAttention(12, 3), parameter="q"), "in_proj_weight")


def test_a_lazy_layer_is_refused_until_it_has_seen_an_input() -> None:
    layer = nn.LazyLinear(9)
    assert_says(refused(layer), "lazy", "Run one batch")
    layer(torch.ones(2, 12))
    assert_equal(update_of(tucker_adapter(layer, 2)).rank, (2, 2))


@pytest.mark.filterwarnings("ignore:.*weight_norm.*:FutureWarning")
def test_a_weight_that_is_computed_is_refused_with_how_to_make_it_plain() -> None:
    layer = nn.utils.parametrizations.weight_norm(nn.Linear(12, 9))
    assert_says(refused(layer), "parametrized", "remove_parametrizations(layer, 'weight')")
    assert_says(refused(nn.utils.weight_norm(nn.Linear(12, 9))), "remove_weight_norm")
    nn.utils.parametrize.remove_parametrizations(layer, "weight")
    assert_equal(update_of(tucker_adapter(layer, 2)).rank, (2, 2))


def test_a_quantised_layer_is_refused() -> None:
    class Quantised(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.register_buffer("weight", torch.ones(9, 12, dtype=torch.int8))

    assert_says(refused(Quantised()), "quantised", "Dequantise")
    layer = nn.Linear(12, 9)
    layer.weight = nn.Parameter(torch.ones(9, 12, dtype=torch.int8), requires_grad=False)
    assert_says(refused(layer, error=DataError), "torch.int8", "Dequantise")


@pytest.mark.parametrize("dtype", [torch.complex64, torch.float8_e4m3fn])
def test_a_weight_of_a_dtype_without_arithmetic_here_is_refused(dtype: torch.dtype) -> None:
    layer = nn.Linear(12, 9)
    layer.weight = nn.Parameter(torch.zeros(9, 12).to(dtype), requires_grad=False)
    with pytest.raises(DataError) as error:
        tucker_adapter(layer, 2)
    assert_says(error, str(dtype), "bfloat16")
    assert_equal(type(layer), nn.Linear)


def test_a_weight_that_is_sparse_flat_or_empty_is_refused() -> None:
    layer = nn.Linear(12, 9)
    layer.weight = nn.Parameter(torch.eye(9, 12).to_sparse())
    assert_says(refused(layer, error=DataError), "sparse_coo", "to_dense()")
    assert_says(refused(nn.BatchNorm2d(9), error=DataError), "2 or more modes", "(9,)")
    assert_says(refused(nn.Linear(12, 9), parameter="bias", error=DataError), "(9,)")
    empty = nn.Linear(12, 9)
    empty.weight = nn.Parameter(torch.zeros(0, 12))
    assert_says(refused(empty, error=DataError), "none empty", "(0, 12)")


def test_a_recurrent_layer_is_refused_because_an_update_would_not_act() -> None:
    layer = nn.LSTM(4, 8)
    assert_says(refused(layer, parameter="weight_ih_l0"), "LSTM", "no effect")
    assert_says(refused(layer), "LSTM", "no effect")  # not: name a parameter, which would be refused then
    cell = tucker_adapter(nn.LSTMCell(4, 8), 2, parameter="weight_ih")
    x = torch.ones(1, 4)
    before = cell(x)[0].detach()
    shake(cell)
    assert_above((cell(x)[0] - before).detach().abs().max(), 1e-4, "effect")


def test_an_embedding_that_rewrites_its_weight_is_refused() -> None:
    assert_says(refused(nn.Embedding(15, 10, max_norm=1.0)), "max_norm=None", "1.0")
    layer = nn.Embedding(15, 10, padding_idx=2)
    assert_says(refused(layer, 2, structure="lokr"), "padding_idx", "Kronecker")


def test_a_layer_with_an_attribute_of_that_name_is_refused() -> None:
    layer = nn.Linear(12, 9)
    layer.tenfac = 1
    assert_says(refused(layer), "attribute 'tenfac'")


# --- places, names, options -------------------------------------------------------------------------------


def test_a_name_that_is_taken_is_refused_and_the_first_update_stays() -> None:
    layer = tucker_adapter(nn.Linear(12, 9), 2)
    first = update_of(layer)
    assert_says(refused(layer, 3), "'default'", "another `name`")
    assert update_of(layer) is first
    attention = nn.MultiheadAttention(12, 3)
    tucker_adapter(attention.out_proj, 2)
    assert_says(refused(attention, 2), "already has an update named 'default'")
    assert_equal(type(attention), nn.MultiheadAttention)


def test_a_merged_layer_is_refused() -> None:
    layer = tucker_adapter(nn.Linear(12, 9), 2)
    shake(layer)
    merge_layer(layer)
    with pytest.raises(ValueError, match=r"unmerge\(model\)"):
        tucker_adapter(layer, 2, name="second")
    assert_equal(list(layer.tenfac.named), ["default"])


@pytest.mark.parametrize(
    "name", ["", "a.b", None, 3, "keys", "items", "values", "pop", "forward", "training", "clear"]
)
def test_a_name_that_cannot_be_part_of_a_key_is_refused(name: object) -> None:
    text = refused(nn.Linear(12, 9), 2, name=name)
    assert_says(text, "`name` must", repr(name))


@pytest.mark.parametrize("name", ["default", "my-task_2", "é", "two words"])
def test_other_names_are_fine(name: str) -> None:
    layer = tucker_adapter(nn.Linear(12, 9), 2, name=name)
    assert_equal(list(layer.tenfac.named), [name])
    assert check_name(name, "here") is None
    fresh = tucker_adapter(nn.Linear(12, 9), 2, name=name)
    assert_equal(str(fresh.load_state_dict(layer.state_dict())), "<All keys matched successfully>")


@pytest.mark.parametrize(
    ("how", "parts"),
    [
        ({"path": "fast"}, ("`path`", "'auto', 'factored', 'fused'", "'fast'")),
        ({"init": "zero"}, ("`init`", "orthonormal", "'zero'")),
        ({"init": "lu"}, ("`init`", "full core", "'lu'")),
        ({"structure": "lokr", "init": "weight"}, ("`init`", "kronecker core", "lora")),
        ({"structure": "svfit", "init": "principal"}, ("`init`", "scaled core")),
        ({"structure": "dora"}, ("`structure`", "'dora'")),
        ({"scale": 0}, ("`scale`", "other than 0")),
        ({"scale": math.nan}, ("`scale`", "nan")),
        ({"scale": "2"}, ("`scale`", "'2'")),
        ({"scale": True}, ("`scale`", "True")),
        ({"dtype": torch.int32}, ("`dtype`", "int32")),
        ({"dtype": "float32"}, ("`dtype`", "'float32'")),
    ],
)
def test_an_option_that_cannot_be_is_refused(how: dict[str, object], parts: tuple[str, ...]) -> None:
    assert_says(refused(nn.Linear(12, 9), 2, **how), *parts)


def test_a_random_state_that_cannot_be_is_refused_before_anything_is_touched() -> None:
    layer = nn.Linear(12, 9)
    with pytest.raises(TypeError, match="random_state"):
        tucker_adapter(layer, 2, random_state="0")
    assert_equal(type(layer), nn.Linear)
    one = update_of(adapted(layer, 2, random_state=np.random.default_rng(0)))
    two = update_of(adapted(layer, 2, random_state=0))
    assert_equal(one.terms[0].factors["0"].matrix.detach(), two.terms[0].factors["0"].matrix.detach())


def test_a_refused_rank_of_one_weight_of_attention_leaves_all_untouched() -> None:
    layer = nn.MultiheadAttention(12, 3, kdim=4)
    assert_says(refused(layer, 6, error=RankError), "weight 'q'", "need 180")
    text = refused(layer, (2, 6), error=RankError)
    assert_says(text, "weight 'k'", "mode 1 (in_features)", "size 4")
    assert_equal(type(layer.out_proj).__name__, "NonDynamicallyQuantizableLinear")


def test_the_recipe_says_how_an_update_was_made() -> None:
    update = update_of(adapted(nn.Linear(12, 9), 2, structure="lora", scale=0.5))
    assert_equal(update.recipe, {"structure": "lora", "init": "lora", "scale": 0.5, "rank": (2, 12)})
    assert_below(len(repr(update)), 80, "length of the repr")


def test_a_copy_of_an_adapted_layer_is_independent() -> None:
    layer = tucker_adapter(nn.Linear(12, 9), 2, structure="randlora")
    twin = copy.deepcopy(layer)
    shake(twin)
    assert_equal(float(update_of(layer).delta().detach().abs().max()), 0.0)
    assert_above(update_of(twin).delta().detach().abs().max(), 1e-3, "the copy's update")


@pytest.mark.parametrize("layer", [None, 3, torch.zeros(4, 4)])
def test_what_is_no_module_is_refused_by_type(layer) -> None:
    with pytest.raises(ValueError, match=r"must be a torch\.nn\.Module; got"):
        tucker_adapter(layer, 2)


def test_an_update_that_cannot_be_made_leaves_the_others_of_the_layer_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    made: list[int] = []

    def breaks(start):
        made.append(1)
        if len(made) == 3:
            raise MemoryError
        return draw_terms(start)

    monkeypatch.setattr(build, "draw_terms", breaks)
    layer = nn.MultiheadAttention(8, 2)
    with pytest.raises(MemoryError):
        tucker_adapter(layer, 2)
    assert_equal(type(layer), nn.MultiheadAttention)
    assert_equal([p.requires_grad for p in layer.parameters()], [True] * 4)
