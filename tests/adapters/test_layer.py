"""The adapted layer as a module: its class, its weight, its copies, its refusals."""

from __future__ import annotations

import copy
import inspect
import pickle
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

from tenfac.adapters.build import tucker_adapter
from tenfac.adapters.layer import adapted_layers, detach, merge_layer, unmerge_layer
from tenfac.core.errors import DataError
from tests.adapters.toys import (
    Experts,
    Standardized,
    adapted,
    effect,
    input_of,
    layer_of,
    oracle,
    stir,
    trained,
)
from tests.checks import assert_above, assert_below, assert_equal, assert_relative, assert_says


def frozen(layer: nn.Module, name: str = "weight") -> torch.Tensor:
    return layer._parameters[name]


# --- the weight -------------------------------------------------------------------------------------------


def test_the_weight_read_is_the_effective_one_and_the_frozen_one_where_nothing_acts() -> None:
    layer, plain = adapted("Conv2d k3").eval(), layer_of("Conv2d k3")
    assert_relative(layer.weight, oracle(layer, plain).weight, 1e-6)
    assert layer.weight.requires_grad
    assert_equal(frozen(layer).detach(), plain.weight.detach())
    layer.tenfac.enabled = False
    assert layer.weight is frozen(layer)
    layer.tenfac.enabled = True
    merge_layer(layer)
    assert layer.weight is frozen(layer)
    unmerge_layer(layer)
    layer.tenfac.active.clear()
    assert layer.weight is frozen(layer)


def test_a_weight_with_updates_is_not_replaced_removed_or_parametrized() -> None:
    layer = adapted("Linear").eval()
    before, new = layer(input_of("Linear")), nn.Parameter(torch.zeros(9, 7))
    with pytest.raises(DataError) as error:
        layer.weight = new
    assert_says(error, "AdaptedLinear", "'weight'", "act", "disable")
    with pytest.raises(TypeError):
        layer.weight = torch.zeros(9, 7)
    for norm in (nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm):
        with pytest.raises(DataError, match="parametrized"):
            norm(layer)
    with pytest.raises(DataError, match="removed"):
        del layer.weight
    assert_equal(layer(input_of("Linear")), before)
    merge_layer(layer)
    with pytest.raises(DataError, match="unmerge"):
        layer.weight = new
    unmerge_layer(layer)


def test_a_disabled_weight_may_be_replaced_and_the_update_is_added_to_the_new_one() -> None:
    layer = adapted("Linear")
    delta = (layer.weight - frozen(layer)).detach()
    layer.tenfac.enabled = False
    layer.weight = nn.Parameter(torch.ones(9, 7), requires_grad=False)
    with torch.no_grad():
        layer.weight.mul_(2)  # in place too, as docs/adapters.md says
    layer.tenfac.enabled = True
    assert_relative(layer.weight, 2 + delta, 1e-6)


def test_a_fused_batch_norm_never_counts_an_update_twice() -> None:
    conv, norm = adapted("Conv2d k3").eval(), nn.BatchNorm2d(8).eval()
    norm.running_var.fill_(3.0)
    with pytest.raises(DataError, match="count twice"):
        torch.nn.utils.fusion.fuse_conv_bn_eval(conv, norm)
    x, want = input_of("Conv2d k3"), norm(conv(input_of("Conv2d k3")))
    plain = oracle(conv, layer_of("Conv2d k3")).eval()
    assert_relative(torch.nn.utils.fusion.fuse_conv_bn_eval(plain, norm)(x), want, 1e-5)


def test_a_parametrized_a_lazy_and_a_renormalized_weight_are_refused_before_anything_is_touched() -> None:
    cures = {
        nn.utils.parametrizations.spectral_norm: "remove_parametrizations",
        nn.utils.parametrizations.weight_norm: "remove_parametrizations",
        nn.utils.spectral_norm: "plain parameter",
    }
    for norm, cure in cures.items():
        layer = norm(nn.Linear(7, 9))
        with pytest.raises(ValueError, match=cure):
            tucker_adapter(layer, 2)
        assert not hasattr(layer, "tenfac")
    with pytest.raises(ValueError, match="must have a shape"):
        tucker_adapter(nn.LazyLinear(4), 2)
    with pytest.raises(ValueError, match="max_norm"):
        tucker_adapter(nn.Embedding(11, 6, max_norm=1.0), 2)


def test_updates_are_in_the_mode_of_their_layer() -> None:
    assert_equal({m.training for m in tucker_adapter(nn.Linear(6, 8).eval(), 2).modules()}, {False})


# --- paths ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layer", "how"),
    [
        (Standardized(6, 8, 3), {}),
        (nn.MultiheadAttention(8, 2), {}),
        (nn.Embedding(11, 6, scale_grad_by_freq=True), {}),
        (Experts(3, 6, 5), {"parameter": "stack"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_the_factored_path_is_refused_where_the_forward_is_not_torchs_own(layer: Any, how: dict) -> None:
    before = type(layer)
    with pytest.raises(ValueError) as error:  # noqa: PT011
        tucker_adapter(layer, 2, path="factored", **how)
    assert_says(error, "path='factored'", before.__name__, "path='auto'")
    assert type(layer) is before
    assert not [p for p in layer.parameters() if not p.requires_grad]


def test_a_sparse_table_has_only_the_factored_path() -> None:
    with pytest.raises(ValueError, match="sparse=True"):
        tucker_adapter(nn.Embedding(11, 6, sparse=True), 2, path="fused")
    with pytest.raises(ValueError, match="sparse=True"):
        tucker_adapter(nn.EmbeddingBag(11, 6, sparse=True), 2)


def test_a_layer_with_a_forward_of_its_own_sees_the_effective_weight() -> None:
    plain = Standardized(6, 8, 3)
    layer = stir(tucker_adapter(copy.deepcopy(plain), 2))
    x = torch.randn(2, 6, 5, 5)
    assert_relative(layer(x), oracle(layer, plain)(x), 1e-6)
    assert_equal(inspect.signature(layer.forward), inspect.signature(plain.forward))


def test_a_forward_patched_on_the_instance_still_runs() -> None:
    layer = nn.Conv2d(6, 8, 3)
    layer.forward = lambda x: 2 * functional.conv2d(x, layer.weight, layer.bias)
    stir(tucker_adapter(layer, 2))
    x = torch.randn(1, 6, 5, 5)
    assert_relative(layer(x), 2 * functional.conv2d(x, layer.weight, layer.bias), 1e-6)
    assert type(copy.copy(layer)) is type(layer)
    with pytest.raises(ValueError, match="not torch's own"):
        tucker_adapter(layer, 2, name="second", path="factored")


def test_two_adapters_add_on_either_path_and_the_last_named_path_holds() -> None:
    for paths in (("factored", "fused"), ("fused", "factored"), ("fused", "auto")):
        plain, x = layer_of("Conv2d groups"), input_of("Conv2d groups")
        layer = tucker_adapter(copy.deepcopy(plain), 2, path=paths[0])
        stir(tucker_adapter(layer, 1, name="second", path=paths[1], random_state=1, scale=2.0))
        layer.tenfac.active = {"default": 0.5, "second": -2.0}
        assert_equal(layer.tenfac.path, "fused" if paths[1] == "auto" else paths[1])
        want = oracle(layer, plain)(x)
        for path in ("factored", "fused"):
            layer.tenfac.path = path
            assert_relative(layer(x), want, 1e-6)


def test_two_adapters_in_bfloat16_are_rounded_once() -> None:
    plain = nn.Linear(64, 64).bfloat16()
    layer = stir(tucker_adapter(tucker_adapter(copy.deepcopy(plain), 2), 2, name="second")).eval()
    exact = oracle(layer, plain.double()).weight.detach()
    read = layer.weight.detach()
    assert_equal(read.dtype, torch.bfloat16)
    assert_below(((read.double() - exact) / exact).abs().max(), 2.0**-8, "relative error of one rounding")
    merge_layer(layer)
    assert torch.equal(frozen(layer), read)


def test_an_adapter_of_the_same_name_is_refused() -> None:
    with pytest.raises(ValueError, match="already has an update named 'default'"):
        tucker_adapter(adapted("Linear"), 2)


def test_updates_of_two_parameters_of_one_module() -> None:
    plain, x = Experts(2, 3, 6, 5), torch.randn(4, 5)
    module = tucker_adapter(copy.deepcopy(plain), (2, 2, 3, 2), parameter="stack")
    stir(tucker_adapter(module, 2, parameter="gate"))
    want = oracle(module, plain)(x)
    assert_above(effect(want, plain(x)), 0.05, "effect")
    assert_relative(module(x), want, 1e-6)
    assert_relative(pickle.loads(pickle.dumps(module))(x), want, 1e-6)  # noqa: S301
    module.eval()
    merge_layer(module)
    assert_relative(module(x), want, 1e-6)
    detach(module)
    assert_equal(module(x).detach(), plain(x).detach())
    assert type(module) is Experts


# --- attention and recurrence -----------------------------------------------------------------------------

ATTENTIONS: dict[str, dict[str, Any]] = {
    "packed": {},
    "unequal": {"kdim": 6, "vdim": 10},
    "batch first": {"batch_first": True},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True, "bias": False},
}


@pytest.mark.parametrize("kind", ATTENTIONS)
def test_attention_is_the_dense_attention(kind: str) -> None:
    how = ATTENTIONS[kind]
    plain = nn.MultiheadAttention(8, 2, **how)
    layer = stir(tucker_adapter(copy.deepcopy(plain), 2))
    truth = oracle(layer, plain)
    inputs = [torch.randn(4, 3, how.get(name, 8)) for name in ("edim", "kdim", "vdim")]
    length = 3 if how.get("batch_first") else 4
    mask = torch.full((length, length), -5.0).triu(1)
    assert_above(effect(truth(*inputs)[0], plain(*inputs)[0]), 0.05, "effect")
    for training in (True, False):
        for grad in (True, False):
            for need in (True, False):
                with torch.set_grad_enabled(grad):
                    layer.train(training)
                    truth.train(training)
                    got = layer(*inputs, need_weights=need, attn_mask=mask)
                    want = truth(*inputs, need_weights=need, attn_mask=mask)
                    assert_relative(got[0], want[0], 1e-6)
                    if need:
                        assert_relative(got[1], want[1], 1e-6)
    layer(*inputs)[0].square().sum().backward()
    assert_equal([name for name, p in trained(layer).items() if p.grad is None], [])
    merged = layer.eval()
    for _, part in list(adapted_layers(merged)):
        merge_layer(part)
    assert_relative(merged(*inputs)[0], truth(*inputs)[0], 1e-6)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
def test_the_fast_path_of_a_transformer_is_its_slow_path() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True, dropout=0.0)
    plain = nn.TransformerEncoder(layer, 2)
    encoder = copy.deepcopy(plain)
    for part in encoder.layers:
        for inner in (part.linear1, part.linear2, part.self_attn):
            tucker_adapter(inner, 2)
    truth, x = oracle(stir(encoder), plain), torch.randn(2, 5, 8)
    slow = encoder(x)
    assert_above(effect(slow, plain(x)), 0.05, "effect")
    assert_relative(slow, truth(x), 1e-6)
    encoder.eval()
    with torch.no_grad():
        assert_relative(encoder(x), slow, 1e-6)
        assert_relative(encoder(x, src_key_padding_mask=torch.zeros(2, 5, dtype=torch.bool)), slow, 1e-6)


# --- merged -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.Linear(7, 9), nn.MultiheadAttention(8, 2), Standardized(6, 8, 3)])
def test_a_merged_layer_in_training_mode_is_refused(layer: nn.Module) -> None:
    for _, part in list(adapted_layers(tucker_adapter(layer, 2))):
        merge_layer(part)
    inputs = {
        nn.Linear: (torch.ones(1, 7),),
        nn.MultiheadAttention: (torch.ones(2, 1, 8),) * 3,
        Standardized: (torch.ones(1, 6, 4, 4),),
    }
    args = next(value for kind, value in inputs.items() if isinstance(layer, kind))
    with pytest.raises(DataError, match="unmerge"):
        layer(*args)
    with torch.no_grad():
        layer(*args)
    layer.eval()(*args)


def test_merging_under_autocast_is_not_in_its_precision() -> None:
    layer = adapted("Linear").eval()
    want = oracle(layer, layer_of("Linear")).weight
    with torch.autocast("cpu", torch.bfloat16):
        merge_layer(layer)
    assert_relative(frozen(layer), want, 1e-6)


def test_originals_kept_while_merged_follow_the_layer_to_another_dtype() -> None:
    for dtype in (torch.bfloat16, torch.float64, torch.float16):
        layer = adapted("Conv2d k3").eval()
        merge_layer(layer)
        unmerge_layer(layer.to(dtype))
        assert torch.equal(frozen(layer), layer_of("Conv2d k3").weight.to(dtype))
    layer = copy.deepcopy(adapted("Conv2d k3").eval())
    merge_layer(layer)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(layer)))  # noqa: S301
    unmerge_layer(twin)
    assert_equal(frozen(twin).detach(), layer_of("Conv2d k3").weight.detach())
    assert layer.tenfac.merged


def test_detach_leaves_the_layer_as_it_was() -> None:
    plain = layer_of("Conv2d k3")
    plain.bias.requires_grad_(False)
    layer = stir(tucker_adapter(copy.deepcopy(plain), 2)).eval()
    assert_equal(sorted(trained(layer)), sorted(n for n, _ in layer.tenfac.named_parameters(prefix="tenfac")))
    merge_layer(layer)
    assert detach(layer) is layer
    assert type(layer) is nn.Conv2d
    assert_equal(list(layer.state_dict()), list(plain.state_dict()))
    assert_equal([p.requires_grad for p in layer.parameters()], [True, False])
    assert_equal(layer.weight.detach(), plain.weight.detach())
    assert detach(layer) is layer


def test_repr_is_torchs_with_the_state_of_the_updates() -> None:
    layer = adapted("Conv2d k3").eval()
    assert_says(
        repr(layer), "AdaptedConv2d(", "6, 8, kernel_size=(3, 3)", "default: weight (2, 3, 3, 3)", "; on)"
    )
    merge_layer(layer)
    assert_says(repr(layer), "; merged)")
