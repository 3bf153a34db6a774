"""Adapters merged and unmerged, switched off, weighed and removed, for whole models and single layers."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from tenfac import (
    DataError,
    activate,
    adapt,
    adapter_report,
    detach,
    disable,
    merge,
    tucker_adapter,
    unmerge,
)
from tenfac.adapters.layer import merge_layer
from tests.adapters.nets import MoE, TiedLM, bits, images, resnet, stir, trainable
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says

FLOATS = [torch.float32, torch.bfloat16, torch.float16]


def two_adapters() -> nn.Module:
    """A net in double precision with adapters "a" on all layers and "b" on convolutions, both stirred."""
    net = resnet().double()
    adapt(net, "all", rank=2, name="a")
    adapt(net, "all-conv", rank=3, name="b")
    return stir(net)


def unchanged(net: nn.Module, before: dict[str, Tensor]) -> None:
    now = bits(net)
    assert_equal(now.keys(), before.keys())
    for name, value in before.items():
        assert_equal(now[name], value)


def delta(net: nn.Module, name: str, layer: str = "layer1.0.conv1") -> Tensor:
    return net.get_submodule(layer).tenfac.named[name]["weight"].delta().detach()


def frozen(net: nn.Module, layer: str = "layer1.0.conv1") -> Tensor:
    return net.get_submodule(layer).state_dict()["weight"].clone()


# --- merge and unmerge ------------------------------------------------------------------------------------


def test_a_merged_model_computes_the_same_with_the_keys_of_the_base() -> None:
    net, x = two_adapters(), images().double()
    before, weight = net(x).detach(), frozen(net)
    merge(net)
    assert_close(net(x), before)
    assert_equal(set(net.state_dict()), set(resnet().state_dict()))
    assert_close(frozen(net), weight + delta(net, "a") + delta(net, "b"))
    plain = resnet().double()
    plain.load_state_dict(net.state_dict())
    assert_equal(plain(x), net(x))


OTHERS = [pytest.param(dtype, marks=pytest.mark.slow) for dtype in (torch.float32, torch.float16)]


@pytest.mark.parametrize("dtype", [torch.bfloat16, *OTHERS])
def test_a_thousand_merges_in_any_order_leave_every_bit(dtype: torch.dtype) -> None:
    net = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Linear(8, 8)).to(dtype).eval()
    adapt(net, ["0", "1"], rank=1, name="a")
    adapt(net, "1", rank=2, name="b")
    stir(net)
    before = bits(net)
    merges = [["a"], ["b"], ["b", "a"], {"a": -0.3, "b": 1.7}]
    for n in range(1000):
        merge(net, merges[n % 4])
        unmerge(net)
    after = net.state_dict()
    assert_equal([name for name in before if not torch.equal(before[name], after[name])], [])


@pytest.mark.parametrize("dtype", FLOATS)
def test_a_merged_weight_is_the_sum_in_float32_rounded_once(dtype: torch.dtype) -> None:
    layer = tucker_adapter(nn.Linear(8, 8).to(dtype), rank=2)
    stir(layer)
    update = layer.tenfac.named["default"]["weight"].delta().detach()
    weight = layer.state_dict()["weight"].clone()
    merge(layer)
    merged = layer.state_dict()["weight"]
    assert_equal(merged.dtype, dtype)
    want = weight.double() + update.double()
    half_a_step = 0.5 * torch.finfo(dtype).eps * want.abs()
    assert_below((merged.double() - want).abs().sub(half_a_step).max(), 1e-7, "beyond one rounding")


def test_merging_twice_changes_nothing_unless_adapters_did() -> None:
    net, x = two_adapters(), images().double()
    merge(net)
    once = bits(net)
    merge(net)
    assert_equal([n for n, value in net.state_dict().items() if not torch.equal(value, once[n])], [])
    assert_equal(set(net.state_dict()), set(once))
    stir(net, seed=1)
    merge(net)
    after = net(x).detach()
    unmerge(net)
    assert_close(net(x), after)


def test_merge_of_names_activates_them_also_from_a_merged_model() -> None:
    net, weight = two_adapters(), frozen(two_adapters())
    merge(net, "a")
    assert_close(frozen(net), weight + delta(net, "a"))
    merge(net, {"a": 0.5, "b": -2.0})
    assert_close(frozen(net), weight + 0.5 * delta(net, "a") - 2 * delta(net, "b"))
    assert_equal(adapter_report(net).merged, True)
    unmerge(net)
    assert_equal(adapter_report(net).active, (("a", 0.5), ("b", -2.0)))


def test_a_layer_whose_adapter_does_not_act_is_merged_as_it_is() -> None:
    net = two_adapters()
    fc, keys = frozen(net, "fc"), set(resnet().state_dict())
    merge(net, "b")  # fc has only "a"
    assert_equal(frozen(net, "fc"), fc)
    assert_equal(set(net.state_dict()), keys)


def test_a_merged_model_refuses_to_train_and_to_load() -> None:
    net = two_adapters()
    merge(net)
    with pytest.raises(DataError, match="unmerge"):
        net.train()(images().double())
    with pytest.raises(RuntimeError, match="unmerge"):
        net.load_state_dict(resnet().state_dict())


def test_an_adapter_with_nan_and_an_overflow_of_float16_are_not_merged() -> None:
    net = two_adapters()
    before = bits(net)
    activate(net, "a")
    half = tucker_adapter(nn.Linear(8, 8).half(), rank=2)
    with torch.no_grad():
        net.fc.tenfac.named["a"]["weight"].terms[0].core.tensor[0, 0] = float("nan")
        half.tenfac.named["default"]["weight"].terms[0].core.tensor.fill_(1e6)
    with pytest.raises(DataError, match="'fc'"):
        merge(net, ["a", "b"])
    assert_equal([n for n in before if ".tenfac." not in n and not torch.equal(before[n], bits(net)[n])], [])
    assert_equal(adapter_report(net).active, (("a", 1.0),))
    with pytest.raises(DataError, match="float16"):
        merge(half)


def test_raw_parameters_and_attention_are_merged_and_unmerged() -> None:
    torch.manual_seed(0)
    x, net = torch.randn(4, 12), nn.ModuleDict({"moe": MoE(), "mha": nn.MultiheadAttention(12, 3)}).eval()
    plain = bits(net)
    adapt(net, ["gate", "w1", "w2", "heads", "mha"], rank=2)
    stir(net)
    before = [net["moe"](x), net["mha"](x, x, x)[0]]
    merge(net)
    assert_close(net["moe"](x), before[0], scale=1.0)
    assert_close(net["mha"](x, x, x)[0], before[1], scale=1.0)
    changed = {n for n, value in net.state_dict().items() if not torch.equal(value, plain[n])}
    weights = {"moe.gate.weight", "moe.experts.w1", "moe.experts.w2", "moe.experts.heads"}
    assert_equal(changed, weights | {"mha.in_proj_weight", "mha.out_proj.weight"})
    unmerge(net)
    assert_equal([n for n in plain if not torch.equal(net.state_dict()[n], plain[n])], [])


# --- disable ----------------------------------------------------------------------------------------------


def test_disabled_adapters_do_not_act_and_do_again_after_the_block() -> None:
    net, x = two_adapters(), images().double()
    base, before = resnet().double()(x).detach(), net(x).detach()
    with disable(net):
        assert_equal(net(x), base)
        with disable(net):
            assert_equal(net(x), base)
        assert_equal(net(x), base)
    assert_equal(net(x).detach(), before)


def test_a_merged_model_is_unmerged_inside_a_disable_block_and_merged_after_it() -> None:
    net, x = two_adapters(), images().double()
    base = resnet().double()(x).detach()
    merge(net)
    merged = bits(net)
    with disable(net), disable(net):
        assert_equal(net(x), base)
    assert_equal(set(net.state_dict()), set(merged))
    assert_equal([n for n in merged if not torch.equal(merged[n], net.state_dict()[n])], [])


def test_an_exception_inside_a_disable_block_leaves_adapters_on() -> None:
    net, x = two_adapters(), images().double()
    before = net(x).detach()
    with pytest.raises(KeyError), disable(net):
        raise KeyError
    assert_equal(net(x).detach(), before)


def test_one_layer_alone_can_be_disabled() -> None:
    net, x = two_adapters(), images().double()
    before = net(x).detach()
    with disable(net.conv1):
        assert_above((net(x).detach() - before).abs().max(), 1e-3, "change by the layer")
        merge(net.fc)
    unmerge(net)
    assert_equal(net(x).detach(), before)


def test_merging_inside_a_disable_block_is_refused() -> None:
    net = two_adapters()
    with disable(net):
        for function in (merge, unmerge):
            with pytest.raises(ValueError, match="Leave the block first"):
                function(net)


# --- activate ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "weights"),
    [
        ("a", {"a": 1.0}),
        (["b"], {"b": 1.0}),
        (["a", "b"], {"a": 1.0, "b": 1.0}),
        ({"a": 0.5, "b": 0.25}, {"a": 0.5, "b": 0.25}),
        ({"a": -1, "b": 0}, {"a": -1.0}),
        ([], {}),
    ],
)
def test_the_effective_weight_is_the_weighted_sum_of_what_acts(names: object, weights: dict) -> None:
    net = two_adapters()
    activate(net, names)
    want = frozen(net) + sum(w * delta(net, name) for name, w in weights.items())
    assert_close(net.layer1[0].conv1.weight.detach(), want)
    assert_equal(dict(adapter_report(net).active), weights)


def test_factored_and_fused_paths_agree_on_a_weighted_sum() -> None:
    net, x = two_adapters(), images().double()
    activate(net, {"a": -0.7, "b": 0.4})
    outputs = []
    for path in ("factored", "fused"):
        for module in net.modules():
            if hasattr(module, "tenfac"):
                module.tenfac.path = path
        outputs.append(net(x).detach())
    assert_close(*outputs, factor=1000)


def test_only_what_acts_gets_a_gradient() -> None:
    net = two_adapters()
    activate(net, "b")
    net(images().double()).sum().backward()
    reached = {name for name, p in net.named_parameters() if p.grad is not None}
    assert_equal(reached, {name for name in trainable(net) if ".named.b." in name})


@pytest.mark.parametrize("weight", [float("nan"), float("inf"), None, True, "1"])
def test_weights_that_are_no_finite_numbers_are_refused(weight: object) -> None:
    with pytest.raises(DataError, match="for 'a'"):
        activate(two_adapters(), {"a": weight})


def test_an_unknown_adapter_is_refused_with_names_near_it() -> None:
    net = resnet()
    adapt(net, "fc", rank=2, name="night")
    for call in (activate, detach, merge):
        with pytest.raises(ValueError, match=f"{call.__name__}: `name` must be") as error:
            call(net, "nigt")
        assert_says(error, "'nigt'", "Did you mean 'night'")


def test_what_names_no_adapters_is_refused() -> None:
    with pytest.raises(ValueError, match="`names` must be a name") as error:
        activate(two_adapters(), 3)
    assert_says(error, "got 3")


def test_switching_a_merged_model_is_refused() -> None:
    net = two_adapters()
    merge(net)
    for call in (activate, detach):
        with pytest.raises(ValueError, match="must not be merged"):
            call(net, "a")


# --- detach -----------------------------------------------------------------------------------------------


def test_detached_models_are_as_they_were() -> None:
    net = resnet()
    net.layer1.requires_grad_(False)
    flags, before, kinds = trainable(net), bits(net), [type(m) for m in net.modules()]
    adapt(net, "all-conv", rank=2, name="a", also_train=["layer1.0.bn1", "conv1.bias"])
    adapt(net, "all", rank=2, name="b")
    stir(net.fc)
    merge(net)
    detach(net)
    assert_equal(trainable(net), flags)
    assert_equal([type(m) for m in net.modules()], kinds)
    assert_equal(set(net.state_dict()), set(before))
    assert_equal([n for n in before if not torch.equal(before[n], net.state_dict()[n])], [])
    assert_equal([name for m in net.modules() for name in vars(m) if "tenfac" in name], [])


def test_one_adapter_is_taken_off_and_the_others_stay() -> None:
    net, x = two_adapters(), images().double()
    activate(net, "b")
    only_b = net(x).detach()
    activate(net, ["a", "b"])
    detach(net, "a")
    assert_equal(net(x).detach(), only_b)
    assert type(net.fc) is nn.Linear
    assert_equal([n for n in trainable(net) if ".named.b." not in n], [])
    detach(net, "b")
    assert_equal(trainable(net), trainable(resnet()))


def test_layers_detached_one_by_one_are_thawed_by_the_model() -> None:
    net = nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8))
    adapt(net, "all-linear", rank=2)
    for layer in net:
        detach(layer)
    assert_equal(trainable(net), [])
    detach(net)
    assert_equal(len(trainable(net)), 4)


def test_what_has_no_adapters_is_refused() -> None:
    net = resnet()
    calls = (
        merge,
        unmerge,
        detach,
        adapter_report,
        lambda m: activate(m, "a"),
        lambda m: disable(m).__enter__(),
    )
    for call in calls:
        with pytest.raises(ValueError, match="ResNet has none") as error:
            call(net)
        assert_says(error, "must have adapters", "tenfac.adapt")


def test_a_language_model_trains_merges_and_is_put_back() -> None:
    torch.manual_seed(0)
    net, words = TiedLM(), torch.randint(0, 30, (4, 6))
    before = bits(net)
    report = adapt(net, ["all-linear", "mlp"], rank=4, exclude="lm_head")
    assert_below(report.trainable / report.total, 0.4, "share that trains")
    learned = [p for p in net.parameters() if p.requires_grad]
    losses = []
    for _ in range(20):
        loss = nn.functional.cross_entropy(net(words).flatten(0, 1), words.flatten())
        losses.append(loss.item())
        with torch.no_grad():
            for parameter, gradient in zip(learned, torch.autograd.grad(loss, learned), strict=True):
                parameter -= 0.1 * gradient
    assert_below(losses[-1], 0.8 * losses[0], "loss after training")
    net.eval()
    with torch.no_grad():
        y = net(words)
        merge(net)
        assert_close(net(words), y)
    assert_equal(net.lm_head.weight is net.embed.weight, True)
    unmerge(net)
    detach(net)
    assert_equal([n for n in before if not torch.equal(before[n], net.state_dict()[n])], [])


# --- merged weights that stay -----------------------------------------------------------------------------


def test_merged_weights_stay_in_a_plain_model_and_nothing_else_does() -> None:
    net, x = resnet().double(), images().double()
    net.conv1.bias.requires_grad_(False)
    flags = {name: p.requires_grad for name, p in net.named_parameters()}
    adapt(net, "all", rank=2, also_train="fc.bias", exclude="fc")
    stir(net)
    merge(net)
    after, weights = net(x).detach(), bits(net)
    detach(net, keep_merged=True)
    assert_equal(
        {type(layer).__name__ for layer in net.modules()}, {type(m).__name__ for m in resnet().modules()}
    )
    assert_equal(net(x).detach(), after)
    unchanged(net, weights)
    assert_equal({name: p.requires_grad for name, p in net.named_parameters()}, flags)
    assert_equal(dict(net.named_buffers()).keys(), dict(resnet().named_buffers()).keys())  # no originals kept
    with pytest.raises(ValueError, match="must have adapters") as error:
        unmerge(net)
    assert_says(error, "must have adapters")
    block = net.layer1[0]
    fused = nn.utils.fusion.fuse_conv_bn_eval(block.conv1, block.bn1)
    y = torch.randn(2, 16, 5, 5, dtype=torch.float64)
    assert_close(fused(y), block.bn1(block.conv1(y)))
    adapt(net, "all-conv", rank=2)  # and it can be adapted anew
    assert_equal(net(x).detach(), after)


def test_weights_that_are_not_merged_cannot_stay_so() -> None:
    net, x = two_adapters(), images().double()
    before = net(x).detach()
    with pytest.raises(ValueError, match="needs a merged model") as error:
        detach(net, keep_merged=True)
    assert_says(error, "merged", "tenfac.merge(model)")
    merge(net)
    with pytest.raises(ValueError, match="takes all adapters off") as error:
        detach(net, "a", keep_merged=True)
    assert_says(error, "takes all", "merge(model, 'a')")
    assert_close(net(x).detach(), before)
    unmerge(net.conv1)
    with pytest.raises(ValueError, match="needs a merged model") as error:
        detach(net, keep_merged=True)
    assert_says(error, "'conv1' is not")


# --- merges that do not come to an end --------------------------------------------------------------------


def test_a_weight_that_another_layer_reads_is_not_merged_into() -> None:
    net, tokens = TiedLM().eval(), torch.arange(10).reshape(2, 5)
    tucker_adapter(net.lm_head, 2)
    stir(net.lm_head)
    before, weights = net(tokens).detach(), bits(net)
    with pytest.raises(ValueError, match="one tensor") as error:
        merge(net)
    assert_says(error, "'lm_head.weight' and 'embed.weight'", "one tensor", "Untie")
    unchanged(net, weights)
    net.embed.weight = nn.Parameter(net.embed.weight.detach().clone())
    merge(net)
    assert_close(net(tokens).detach(), before)


def test_a_merge_that_breaks_off_leaves_no_half_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    from tenfac.adapters import merging

    net, x = two_adapters(), images().double()
    activate(net, "a")
    before, weights, count = net(x).detach(), bits(net), []

    def breaks(layer: nn.Module) -> None:
        count.append(layer)
        if len(count) == 3:
            raise MemoryError
        merge_layer(layer)

    monkeypatch.setattr(merging, "merge_layer", breaks)
    with pytest.raises(MemoryError):
        merge(net, "b")
    assert_equal(net(x).detach(), before)
    unchanged(net, weights)
