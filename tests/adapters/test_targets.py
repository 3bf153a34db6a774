"""Which weights of a model are meant, and what is refused before anything is touched."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.utils import prune

from tenfac import DataError, RankError, adapt
from tenfac.adapters.targets import places_of, select
from tests.adapters.nets import MoE, ResNet, TiedLM, resnet
from tests.checks import assert_equal, assert_says


def labels(model: nn.Module, targets: object, exclude: object = None) -> list[str]:
    rows = adapt(model, targets, rank=2, exclude=exclude).layers
    return [row.layer for row in rows]


CONVS = [f"layer{n}.0.{name}" for n in (1, 2) for name in ("conv1", "conv2", "down")]


@pytest.mark.parametrize(
    ("targets", "want"),
    [
        ("all-conv", ["conv1", *CONVS]),
        ("all-linear", ["fc"]),
        ("all", ["conv1", *CONVS, "fc"]),
        (nn.Linear, ["fc"]),
        ((nn.Linear, nn.Conv2d), ["conv1", *CONVS, "fc"]),
        ("conv2", ["layer1.0.conv2", "layer2.0.conv2"]),
        ("0.conv2", ["layer1.0.conv2", "layer2.0.conv2"]),
        (["fc", "layer1.0.down"], ["layer1.0.down", "fc"]),
        (r"layer1\..*", ["layer1.0.conv1", "layer1.0.conv2", "layer1.0.down"]),
        (r"layer\d.*conv[12]", ["layer1.0.conv1", "layer1.0.conv2", "layer2.0.conv1", "layer2.0.conv2"]),
        (["all-linear", "layer1.0.conv1.weight"], ["layer1.0.conv1", "fc"]),
    ],
)
def test_layers_are_meant_by_kind_type_end_of_name_and_expression(targets: object, want: list[str]) -> None:
    assert_equal(labels(ResNet(), targets), want)


@pytest.mark.parametrize(
    ("exclude", "want"),
    [
        ("conv1", ["layer1.0.conv2", "layer1.0.down", "layer2.0.conv2", "layer2.0.down"]),
        (["layer1", "down"], ["conv1", "layer2.0.conv1", "layer2.0.conv2"]),
        (r"layer\d", ["conv1"]),
        (nn.Sequential, ["conv1"]),
    ],
)
def test_exclude_takes_the_same_forms_and_a_layer_stands_for_all_below_it(
    exclude: object, want: list[str]
) -> None:
    assert_equal(labels(ResNet(), "all-conv", exclude), want)


def test_bilinear_layers_and_bags_of_embeddings_are_meant_by_all_and_their_modes_are_named() -> None:
    model = nn.ModuleDict({"a": nn.Bilinear(6, 7, 8), "b": nn.EmbeddingBag(15, 10), "c": nn.Linear(9, 9)})
    rows = adapt(model, "all", rank=2).layers
    assert_equal([row.layer for row in rows], ["a", "b", "c"])
    assert_equal([row.rank for row in rows], [(2, 6, 2), (2, 2), (2, 2)])
    assert_equal(rows[1].modes, ("num_embeddings", "embedding_dim"))
    with pytest.raises(RankError) as error:
        adapt(nn.Bilinear(6, 7, 8), nn.Bilinear, rank=(9, 1, 1))
    assert_says(error, "mode 0 (out_features)")


def test_a_number_alone_is_a_whole_name() -> None:
    def net() -> nn.Module:
        return nn.Sequential(nn.Sequential(nn.Linear(8, 8), nn.Linear(8, 8)), nn.Linear(8, 8))

    assert_equal(labels(net(), "1"), ["1"])
    assert_equal(labels(net(), "0.1"), ["0.1"])


def test_attention_is_its_four_projections_and_never_its_output_twice() -> None:
    block = ["self_attn.q", "self_attn.k", "self_attn.v", "self_attn.out_proj"]

    def net() -> nn.Module:
        return nn.TransformerEncoderLayer(16, 4, 32)

    assert_equal(labels(net(), "all-linear"), [*block, "linear1", "linear2"])
    assert_equal(labels(net(), "self_attn"), block)
    assert_equal(labels(net(), nn.MultiheadAttention), block)
    assert_equal(labels(net(), ["self_attn", "out_proj"]), block)
    assert_equal(labels(net(), r"self_attn.*"), block)
    assert_equal(labels(net(), "self_attn", exclude="out_proj"), block[:3])
    assert_equal(labels(net(), "all-linear", exclude="self_attn"), ["linear1", "linear2"])
    assert_equal(labels(net(), "out_proj"), block[3:])
    assert_equal(labels(net(), ["self_attn", "in_proj_weight"]), block)
    assert_equal(labels(net(), "in_proj_weight"), ["self_attn.in_proj_weight"])


def test_raw_parameters_are_named_after_their_module() -> None:
    assert_equal(labels(MoE(), "experts.w1"), ["experts.w1"])
    assert_equal(labels(MoE(), ["w2", "heads"]), ["experts.w2", "experts.heads"])
    assert_equal(labels(MoE(), r".*\.w[12]"), ["experts.w1", "experts.w2"])


def test_layers_of_other_makers_are_adapted_by_name() -> None:
    assert_equal(labels(TiedLM(), "mlp"), ["mlp"])


def test_an_expression_for_layers_leaves_raw_parameters_alone() -> None:
    assert_equal(labels(MoE(), ".*"), ["gate"])


def test_a_layer_used_at_two_places_is_one_target_under_both_names() -> None:
    shared = nn.Linear(8, 8)
    net = nn.ModuleDict({"first": shared, "second": shared})
    found = select(places_of(net), "second", set(), "adapt")
    assert_equal([target.label for target in found], ["first"])
    assert_equal(labels(net, "all-linear"), ["first"])


def test_a_layer_itself_can_be_the_model() -> None:
    assert_equal(labels(nn.Linear(8, 8), "all-linear"), ["(model)"])


# --- refusals ---------------------------------------------------------------------------------------------


def weight_normed() -> nn.Module:
    return nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)))


def old_weight_normed() -> nn.Module:
    with pytest.warns(FutureWarning):
        return nn.Sequential(nn.utils.weight_norm(nn.Linear(8, 8)))


def pruned() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8))
    prune.random_unstructured(net[0], "weight", 0.5)
    return net


def integers() -> nn.Module:
    net = nn.Sequential(nn.Linear(8, 8))
    net[0].weight = nn.Parameter(torch.ones(8, 8, dtype=torch.int8), requires_grad=False)
    return net


@pytest.mark.parametrize(
    ("make", "targets", "parts"),
    [
        (ResNet, "conv3", ["'conv3'", "Did you mean ", "'conv1'"]),
        (ResNet, "all-convs", ["'all-convs'", "Did you mean ", "'all-conv'"]),
        (lambda: nn.Sequential(nn.LSTM(8, 8)), nn.LSTM, ["'0' is a LSTM", "outside of its parameters"]),
        (lambda: nn.Sequential(nn.LSTM(8, 8)), "0", ["'0' is a LSTM", "outside of its parameters"]),
        (ResNet, "layer1.0.covn2", ["'layer1.0.covn2'", "'layer1.0.conv2'"]),
        (ResNet, "*conv", ["'*conv'", "matches none"]),
        (ResNet, "zzz", ["'zzz'", "The model has 'conv1'"]),
        (ResNet, nn.Conv1d, ["'Conv1d'", "has none", "BatchNorm2d, Conv2d, Linear"]),
        (ResNet, ["fc", "bn9"], ["'bn9'", "matches none"]),
        (MoE, "all-conv", ["'all-conv'", "Experts, Linear"]),
        (ResNet, "layer1", ["'layer1' is a Sequential without a weight", "'layer1.0.conv1'"]),
        (ResNet, "bn1", ["'layer1.0.bn1' is a weight of shape (16,)", "exclude=['layer1.0.bn1']"]),
        (MoE, "experts", ["'experts' is a Experts without", "'experts.w1', 'experts.w2'"]),
        (MoE, "scale", ["'experts.scale'", "2 or more modes"]),
        (
            weight_normed,
            "all-linear",
            ["parametrization WeightNorm", "remove_parametrizations(layer, 'weight')"],
        ),
        (old_weight_normed, "0", ["weight_norm", "remove_weight_norm"]),
        (pruned, "all-linear", ["pruning", "prune.remove"]),
        (integers, "all-linear", ["torch.int8", "Dequantize"]),
        (ResNet, [], ["`targets`", "[]"]),
        (ResNet, 3, ["`targets`", "got 3"]),
        (ResNet, [nn.Linear(2, 2)], ["`targets`", "Linear(in_features=2"]),
    ],
)
def test_what_cannot_be_a_target_is_refused_with_what_to_do(
    make: object, targets: object, parts: list[str]
) -> None:
    with pytest.raises(ValueError, match=r"^adapt: ") as error:
        adapt(make(), targets, rank=2)
    assert_says(error, *parts)


def test_a_weight_of_integers_is_a_data_error() -> None:
    with pytest.raises(DataError):
        adapt(integers(), "all-linear", rank=2)


def test_what_is_excluded_is_not_refused() -> None:
    net = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Linear(8, 8)), nn.Linear(8, 8))
    assert_equal(labels(net, "all-linear", exclude="0"), ["1"])


def test_a_model_with_lazy_layers_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'1\.weight' is lazy") as error:
        adapt(nn.Sequential(nn.Linear(8, 8), nn.LazyLinear(3)), "all-linear", rank=2)
    assert_says(error, "once on a batch")


def test_a_scripted_model_is_refused() -> None:
    inner = nn.Linear(8, 8)
    with pytest.warns(DeprecationWarning, match="script"):
        scripted = torch.jit.script(inner)
    with pytest.raises(ValueError, match="scripted"):
        adapt(nn.Sequential(scripted), "0", rank=2)


def test_tied_weights_are_refused_with_both_names() -> None:
    net = TiedLM()
    for targets in ("all-linear", "embed"):
        with pytest.raises(ValueError, match="tied weights") as error:
            adapt(net, targets, rank=2)
        assert_says(error, "'embed.weight'", "'lm_head.weight'", "exclude=")
    assert_equal(net.state_dict().keys(), TiedLM().state_dict().keys())
    assert_equal(len(adapt(net, "all-linear", rank=2, exclude="lm_head").layers), 6)


def test_weights_that_share_memory_are_tied_and_views_of_one_buffer_are_not() -> None:
    flat = torch.randn(160)
    net = nn.Sequential(*(nn.Linear(8, 8, bias=False) for _ in range(3)))
    for n, start in enumerate((0, 64, 90)):
        net[n].weight = nn.Parameter(flat[start : start + 64].view(8, 8))
    assert_equal(labels(net, "0"), ["0"])
    with pytest.raises(ValueError, match="tied weights") as error:
        adapt(net, "1", rank=2)
    assert_says(error, "'1.weight'", "'2.weight'")


def test_exclude_and_also_train_must_match_something() -> None:
    for option in ("exclude", "also_train"):
        with pytest.raises(ValueError, match=f"`{option}` must match") as error:
            adapt(resnet(), "all-conv", rank=2, **{option: "fcc"})
        assert_says(error, "'fcc'", "'fc'")


@pytest.mark.parametrize("given", [None, (), []])
def test_nothing_to_exclude_or_train_may_be_said_in_any_way(given: object) -> None:
    report = adapt(ResNet(), "fc", rank=2, exclude=given, also_train=given)
    assert_equal(report.also_train, ())


def test_excluding_everything_is_refused() -> None:
    with pytest.raises(ValueError, match="`exclude` must leave a target"):
        adapt(ResNet(), "fc", rank=2, exclude=["fc"])
