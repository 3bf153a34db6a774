"""Whole models: what is adapted, what trains, how a budget is shared, starts from gradients, refusals."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from tenfac import DataError, RankError, adapt, adapter_report, detach, merge, tucker_adapter
from tests.adapters.nets import MoE, ResNet, TiedLM, bits, images, resnet, stir, trainable
from tests.checks import assert_above, assert_below, assert_close, assert_equal, assert_says


def tokens() -> Tensor:
    return torch.arange(10).reshape(2, 5)


def lm() -> nn.Module:
    torch.manual_seed(0)
    return TiedLM().eval()


def moe() -> nn.Module:
    torch.manual_seed(0)
    return MoE()


def rows() -> Tensor:
    return torch.randn(4, 12, generator=torch.Generator().manual_seed(2))


CASES: dict[str, tuple[Callable[[], nn.Module], Callable[[], Tensor], dict]] = {
    "resnet": (resnet, images, {"targets": "all"}),
    "transformer": (lm, tokens, {"targets": ["all-linear", "mlp"], "exclude": "lm_head"}),
    "experts": (moe, rows, {"targets": ["gate", "w1", "w2", "heads"]}),
}


@pytest.fixture(params=CASES, name="case")
def _case(request: pytest.FixtureRequest) -> tuple[nn.Module, Tensor, dict]:
    make, x, how = CASES[request.param]
    return make(), x(), how


# --- what is adapted, and what trains ---------------------------------------------------------------------


def test_a_model_computes_what_it_did_until_it_is_trained(case: tuple[nn.Module, Tensor, dict]) -> None:
    net, x, how = case
    before = net(x)
    adapt(net, **how, rank=2)
    assert_close(net(x), before)
    assert_above((stir(net)(x) - before).detach().abs().max(), 1e-2, "change by the adapters")


def test_a_step_of_training_moves_adapters_and_nothing_else(case: tuple[nn.Module, Tensor, dict]) -> None:
    net, x, how = case
    adapt(net, **how, rank=2)
    stir(net)
    before = bits(net)
    net(x).square().mean().backward()
    with torch.no_grad():
        for parameter in net.parameters():
            if parameter.grad is not None:
                parameter -= 0.1 * parameter.grad
    moved = {name for name, value in net.state_dict().items() if not torch.equal(value, before[name])}
    assert_equal(moved, set(trainable(net)))
    assert_equal([name for name in moved if ".tenfac." not in name], [])
    frozen = [p for p in net.parameters() if not p.requires_grad]
    assert_equal([p.grad for p in frozen if p.grad is not None], [])


def test_also_train_trains_layers_and_parameters_besides() -> None:
    net = resnet()
    report = adapt(net, "all-conv", rank=2, also_train=["fc", nn.BatchNorm2d, "down.bias"])
    own = [name for name in trainable(net) if ".tenfac." not in name]
    norms = [f"layer{n}.0.bn{m}.{p}" for n in (1, 2) for m in (1, 2) for p in ("weight", "bias")]
    assert_equal(
        sorted(own), sorted(["fc.weight", "fc.bias", *norms, "layer1.0.down.bias", "layer2.0.down.bias"])
    )
    assert_equal(sorted(report.also_train), sorted(own))
    assert_equal(report.trainable, sum(p.numel() for p in net.parameters() if p.requires_grad))


def test_a_layer_that_trains_itself_is_passed_over_by_kind_and_refused_by_name() -> None:
    report = adapt(resnet(), "all", rank=2, also_train=["fc", "layer1"])
    assert_equal({row.layer.partition(".")[0] for row in report.layers}, {"conv1", "layer2"})
    assert_equal(
        {name for name, _ in report.skipped}, {"fc", *(f"layer1.0.{n}" for n in ("conv1", "conv2", "down"))}
    )
    with pytest.raises(ValueError, match="both in `targets`"):
        adapt(resnet(), "fc", rank=2, also_train="fc")
    with pytest.raises(ValueError, match="must leave a target"):
        adapt(resnet(), "all-linear", rank=2, also_train="fc")


def test_layers_keep_their_class_and_the_model_its_keys() -> None:
    net = resnet()
    keys, old = set(net.state_dict()), bits(net)
    adapt(net, "all-conv", rank=2)
    stir(net)
    assert isinstance(net.conv1, nn.Conv2d)
    assert keys <= set(net.state_dict())
    x, before = images(), net(images())
    net.load_state_dict(old)
    assert_equal(net(x), before)


def test_a_second_adapter_adds_to_the_first_and_leaves_what_trains() -> None:
    net, x = resnet(), images()
    adapt(net, "all-conv", rank=2, name="a", also_train="fc.bias")
    stir(net)
    before, first = net(x), set(trainable(net))
    report = adapt(net, "all", rank=3, name="b", also_train="bn1.bias")
    assert_close(net(x), before)
    assert_equal(report.active, (("a", 1.0), ("b", 1.0)))
    assert first <= set(trainable(net))
    assert "layer1.0.bn1.bias" in trainable(net)


def test_a_copy_of_an_adapted_model_is_the_same_and_can_be_detached() -> None:
    net, x = resnet(), images()
    adapt(net, "all-conv", rank=2)
    stir(net)
    other = copy.deepcopy(net)
    assert_equal(other(x), net(x))
    detach(other)
    assert_equal(set(other.state_dict()), set(resnet().state_dict()))
    assert_equal(trainable(other), trainable(resnet()))


# --- the fast path of torch -------------------------------------------------------------------------------


@pytest.mark.parametrize("targets", ["linear1", "linear2", "self_attn", "out_proj", "all-linear"])
def test_the_fast_path_of_a_transformer_layer_uses_the_updates(targets: str) -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0).eval()
    x = torch.randn(2, 5, 16)
    before = layer(x).detach()
    adapt(layer, targets, rank=2)
    stir(layer)
    slow = layer(x).detach()  # with gradients on, torch takes its ordinary path
    with torch.no_grad():
        fast = layer(x)
    assert_above((slow - before).abs().max(), 1e-2, "change by the adapters")
    assert_close(fast, slow)
    merge(layer)
    with torch.no_grad():
        assert_close(layer(x), slow)


def test_a_stack_of_transformer_layers_with_padding_uses_the_updates() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True, dropout=0.0)
    net = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False).eval()
    x, padding = torch.randn(2, 5, 16), torch.tensor([[False] * 5, [False] * 3 + [True] * 2])
    adapt(net, "all-linear", rank=2)
    stir(net)
    slow = net(x, src_key_padding_mask=padding).detach()
    with torch.no_grad():
        fast = net(x, src_key_padding_mask=padding)
    assert_close(fast[0], slow[0])
    assert_close(fast[1, :3], slow[1, :3])


# --- ranks ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("budget", [500, 1000, 1311, 2500, 6000])
def test_a_budget_is_kept_by_ranks_that_differ_by_one_and_nothing_more_fits(budget: int) -> None:
    report = adapt(ResNet(), "all", budget=budget)
    assert_below(sum(row.parameters for row in report.layers), budget, "learned numbers")
    assert_equal(report.trainable, sum(row.parameters for row in report.layers))
    free = [row.rank[0] for row in report.layers if row.shape == (16, 16, 3, 3)]
    assert_below(max(free) - min(free), 1, "ranks apart")
    left = budget - report.trainable
    assert_below(left, 16 + 16 + (9 + 1) * 2 * max(free) + 10, "numbers left over")


def test_a_budget_that_fits_exactly_is_used_whole() -> None:
    exact = adapt(ResNet(), "all-conv", rank=3).trainable
    report = adapt(ResNet(), "all-conv", budget=exact)
    assert_equal(report.trainable, exact)
    assert_below(adapt(ResNet(), "all-conv", budget=exact - 1).trainable, exact - 1, "learned numbers")


def test_a_budget_counts_ranks_of_the_pattern_and_leaves_them() -> None:
    report = adapt(ResNet(), "all", budget=2000, rank_pattern={"fc": 4, r"layer2\..*": (2, 1, None, None)})
    ranks = {row.layer: row.rank for row in report.layers}
    assert_equal(ranks["fc"], (4, 4))
    assert_equal(ranks["layer2.0.conv1"], (2, 1, 3, 3))
    assert_above(ranks["layer1.0.conv1"][0], 2, "rank of the others")
    assert_below(report.trainable, 2000, "learned numbers")


def test_a_budget_below_rank_one_is_refused_with_the_least() -> None:
    least = adapt(ResNet(), "all-conv", rank=1).trainable
    with pytest.raises(RankError, match=f"at least {least}"):
        adapt(ResNet(), "all-conv", budget=least - 1)
    assert_equal(adapt(ResNet(), "all-conv", budget=least).trainable, least)


def test_a_budget_needs_a_structure_that_grows_with_the_rank() -> None:
    with pytest.raises(RankError, match="grow with the rank"):
        adapt(ResNet(), "all-conv", budget=1000, structure="lokr")


def test_the_first_key_of_the_rank_pattern_that_matches_counts() -> None:
    pattern = {"layer1.0.conv1": 5, "conv1": 3, nn.Linear: 1}
    ranks = {r.layer: r.rank[0] for r in adapt(ResNet(), "all", rank=2, rank_pattern=pattern).layers}
    want = {"layer1.0.conv1": 5, "conv1": 3, "layer2.0.conv1": 3, "fc": 1, "layer1.0.down": 2}
    assert_equal({name: ranks[name] for name in want}, want)


def test_an_int_rank_is_lowered_to_the_size_of_a_mode() -> None:
    report = adapt(ResNet(), "conv1", rank=4)
    assert_equal(report.layers[0].rank, (4, 3, 3, 3))


def test_energy_gives_each_layer_ranks_of_its_own() -> None:
    net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 16))
    with torch.no_grad():
        net[0].weight.copy_(torch.ones(16, 16))
        net[1].weight.copy_(torch.diag(torch.tensor([1.0] * 3 + [0.0] * 13)))
    assert_equal([row.rank for row in adapt(net, "all-linear", energy=0.99).layers], [(1, 1), (3, 3)])


def test_layers_too_small_are_passed_over_by_kind_and_refused_by_name() -> None:
    net = nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1))
    report = adapt(net, "all-linear", rank=4)
    assert_equal([row.layer for row in report.layers], ["0"])
    assert_equal(report.skipped[0][0], "1")
    assert_says(report.skipped[0][1], "fewer numbers than the weight", "16")
    assert type(net[1]) is nn.Linear
    with pytest.raises(RankError, match="adapt: 1: "):
        adapt(nn.Sequential(nn.Linear(16, 16), nn.Linear(16, 1)), ["0", "1"], rank=4)
    with pytest.raises(RankError, match="no target can be adapted; 0: "):
        adapt(nn.Sequential(nn.Linear(16, 1)), "all-linear", rank=4)


@pytest.mark.parametrize(
    ("how", "part"),
    [
        ({"rank": 0}, "1 or more; got 0"),
        ({"rank": 2.5}, "got 2.5"),
        ({"budget": 10.0}, "got 10.0"),
        ({"energy": 1.5}, "(0, 1]; got 1.5"),
        ({"rank": 2, "budget": 100}, "got rank and budget"),
        ({"rank": (2, 2)}, "one entry per storage mode"),
        ({"rank": 2, "rank_pattern": {"fc": 99, "cnv": 1}}, "'cnv'"),
        ({"rank": 2, "rank_pattern": ["fc"]}, "a mapping from layers to ranks"),
    ],
)
def test_sizes_that_no_layer_can_have_are_refused(how: dict, part: str) -> None:
    with pytest.raises(ValueError, match=r"^adapt") as error:
        adapt(ResNet(), "all", **how)
    assert_says(error, part)


# --- starts from gradients --------------------------------------------------------------------------------


def test_factors_start_in_the_span_of_the_gradient_of_the_users_loss(
    case: tuple[nn.Module, Tensor, dict],
) -> None:
    net, x, how = case
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    plain = copy.deepcopy(net).requires_grad_(True)
    plain(x).square().mean().backward()
    wanted = {name: p.grad for name, p in plain.named_parameters()}
    calls = []

    def loss() -> Tensor:
        calls.append(1)
        return net(x).square().mean()

    adapt(net, **how, rank=2, init="gradient", data=loss)
    assert_equal(calls, [1])
    assert_equal([name for name, p in net.named_parameters() if p.grad is not None], [])
    assert_equal([name for name in trainable(net) if ".tenfac." not in name], [])
    for name, layer in ((n, m) for n, m in net.named_modules() if hasattr(m, "tenfac")):
        for slot in layer.tenfac.slots:
            gradient = slot.of(wanted[f"{name}.{slot.parameter}"])
            update = layer.tenfac.named["default"][slot.name]
            mode = update.layout.out
            flat = gradient.movedim(mode, 0).flatten(1).double()
            kept = update.terms[0].factors[str(mode)].matrix.detach().double().T @ flat
            best = torch.linalg.svdvals(flat)[:2].square().sum()
            assert_close(float(kept.square().sum() / best), 1.0, factor=1e9)


def spent(loss: Tensor) -> Tensor:
    """A loss whose backward pass has been made."""
    loss.backward()
    return loss


@pytest.mark.parametrize(
    ("loss", "part"),
    [
        (lambda _: None, "NoneType"),
        (lambda net: net(images()), "shape (2, 10)"),
        (lambda _: torch.zeros(()), "depend on the model"),
        (lambda net: spent(net(images()).sum()), "without calling backward()"),
        (lambda net: net.fc.weight.sum(), "'conv1' has none"),
        (lambda net: 0 * net(images()).sum(), "gradient of zero"),
        (lambda net: float("nan") * net(images()).sum(), "finite"),
    ],
)
def test_a_loss_without_gradients_is_refused(loss: Callable, part: str) -> None:
    net = resnet()
    net.layer1.requires_grad_(False)
    flags = trainable(net)
    with pytest.raises(DataError, match="adapt: ") as error:
        adapt(net, "all-conv", rank=2, init="gradient", data=lambda: loss(net))
    assert_says(error, part)
    assert_equal(trainable(net), flags)


def test_data_and_the_start_that_uses_it_need_each_other() -> None:
    net = resnet()
    with pytest.raises(ValueError, match="`data` must be a function"):
        adapt(net, "all-conv", rank=2, init="gradient")
    with pytest.raises(ValueError, match="init='gradient', which alone uses it"):
        adapt(net, "all-conv", rank=2, data=lambda: net(images()).sum())


# --- nothing is touched -----------------------------------------------------------------------------------


def snapshot(model: nn.Module) -> tuple:
    flags = [(name, p.requires_grad) for name, p in model.named_parameters()]
    return flags, [type(m) for m in model.modules()], [sorted(vars(m)) for m in model.modules()]


def test_every_refusal_leaves_the_model_as_it_was() -> None:
    net = resnet()
    net.layer1.requires_grad_(False)
    with torch.no_grad():
        net.layer2[0].conv2.weight[0, 0, 0, 0] = float("nan")
    before = snapshot(net)
    for how in (
        {"rank": 99, "targets": ["conv1", "conv9"]},
        {"rank": (3, 3, 3, 3)},
        {"structure": "lorra"},
        {"init": "best"},
        {"path": "quick"},
        {"name": "a.b"},
        {"dtype": torch.int8},
        {"scale": float("nan")},
        {"init": "weight"},
        {"rank": 2, "also_train": "relu"},
    ):
        with pytest.raises(ValueError, match="adapt"):
            adapt(net, **{"targets": "all", **how})
        assert_equal(snapshot(net), before)


def test_a_failure_while_adapters_are_built_is_undone(monkeypatch: pytest.MonkeyPatch) -> None:
    net = resnet()
    adapt(net, "conv1", rank=2, name="kept")
    before = snapshot(net)
    from tenfac.adapters import model

    install, count = model.install, []

    def failing(*args: object) -> None:
        count.append(1)
        if len(count) == 4:
            raise MemoryError
        install(*args)

    monkeypatch.setattr(model, "install", failing)
    with pytest.raises(MemoryError):
        adapt(net, "all", rank=2, also_train="bn1")
    assert_equal(len(count), 4)
    assert_equal(snapshot(net), before)
    assert_equal({row.adapter for row in adapter_report(net).layers}, {"kept"})


def test_an_adapter_of_that_name_is_refused() -> None:
    net = resnet()
    tucker_adapter(net.fc, rank=2)
    with pytest.raises(ValueError, match="named 'default'") as error:
        adapt(net, "all", rank=2)
    assert_says(error, "adapt: fc")
    assert type(net.conv1) is nn.Conv2d


def test_a_merged_model_is_refused_and_so_is_training_an_adapted_weight() -> None:
    net = resnet()
    adapt(net, "fc", rank=2)
    with pytest.raises(ValueError, match=r"'fc\.weight' has one"):
        adapt(net, "all-conv", rank=2, also_train="fc", name="b")
    merge(net)
    with pytest.raises(ValueError, match="must not be merged"):
        adapt(net, "all-conv", rank=2, name="b")


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(ValueError, match=r"must be a torch.nn.Module; got list"):
        adapt([nn.Linear(2, 2)], "all")
